"""How much of a step a bundle's frames may keep of the frames before, and the code of what changed, from clips.

The code is learnt from some clips, what may be kept is judged on others: of each step and number of layers the largest share
whose answers lose next to nothing against those to whole frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from isthmus.models.progress import Report
from isthmus.proto.bits.packing import LAYERS
from isthmus.proto.codec import Codec, CodecConfig
from isthmus.proto.errors import CodecError
from isthmus.proto.frame_codec import Floats, deltas_of
from isthmus.proto.temporal.delta import Deltas
from isthmus.proto.temporal.sequences import coded, fit_deltas

KEEPS = (0.5, 0.6, 0.7, 0.8, 1.0)
"""Shares of a step that are tried."""
TOLERANCE = 0.01
"""What answers may lose, of 1."""
Clips = Sequence[Sequence[Floats]]
Lost = Callable[[Clips, Clips], float]


def with_deltas(
    config: CodecConfig, fitting: Clips, judging: Clips, lost: Lost, *, lag: int = 3, report: Report
) -> CodecConfig:
    """`config` with deltas: features (H, W, C) of clips to learn from, and of others to judge by.

    `lost` is given the judging clips' features as they arrive whole, and as they arrive as deltas, and says how much less the
    answers to the latter are worth, of 1: in AP50, say. Each frame refers to the one `lag` before. Raises CodecError where the
    config cannot have deltas.
    """
    tried = [fit_deltas(config, fitting, _every(config, keep), lags=(1, lag)) for keep in KEEPS]
    found = [
        [_kept(tried, judging, lost, step, layers, lag, report) for layers in range(1, LAYERS + 1)]
        for step in range(len(config.steps))
    ]
    every = [_deltas(each) for each in tried]
    keep = tuple(tuple(KEEPS[i] for i in row) for row in found)
    tables = tuple(tuple(every[i].tables[step][layer] for layer, i in enumerate(row)) for step, row in enumerate(found))
    return replace(config, deltas=Deltas(keep, tables))


def _kept(
    tried: Sequence[CodecConfig], judging: Clips, lost: Lost, step: int, layers: int, lag: int, report: Report
) -> int:
    """The index of the largest share up to which all lose no more than may be lost."""
    whole = [_arriving(tried[0], clip, step, layers, len(clip)) for clip in judging]
    best = 0
    for i, config in enumerate(tried):
        found = lost(whole, [_arriving(config, clip, step, layers, lag) for clip in judging])
        report(f"step {step} of {layers} layers, {KEEPS[i]:g} kept: {found:.4f} lost")
        if found > TOLERANCE:
            break
        best = i
    return best


def _arriving(config: CodecConfig, clip: Sequence[Floats], step: int, layers: int, lag: int) -> list[Floats]:
    """A clip's features as the server has them; a lag as long as the clip makes all of them whole."""
    codec = Codec(config)
    deltas = deltas_of(codec)
    assert deltas is not None
    return [deltas.features(frame.reconstruction) for frame in coded(codec, clip, step, layers, lag)]


def _every(config: CodecConfig, keep: float) -> tuple[tuple[float, ...], ...]:
    return ((keep,) * LAYERS,) * len(config.steps)


def _deltas(config: CodecConfig) -> Deltas:
    if config.deltas is None:
        raise CodecError("config: no deltas")
    return config.deltas
