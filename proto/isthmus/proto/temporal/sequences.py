"""Frames in their order through the codec, as a stream would send them: what each takes, and how its code is learnt. Pure.

Each frame is coded against the one `lag` frames before it, which is what an answer that is so long under way leaves; those
at the beginning are whole. As in a stream, a frame crosses whole where its delta would not be smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.bits.huffman import SYMBOLS, code_lengths
from isthmus.proto.bits.packing import LAYERS
from isthmus.proto.codec import HEADER_BYTES, Codec, CodecConfig
from isthmus.proto.errors import CodecError
from isthmus.proto.frame_codec import Floats, deltas_of
from isthmus.proto.temporal.delta import Deltas, upto
from isthmus.proto.temporal.reconstruction import Reconstruction
from isthmus.proto.temporal.sparse import ALPHABET, Indices

PRIOR = 0.1
"""A letter that never occurred counts as so many, hence has a code."""
_FLAT = "".join(f"{n:x}" for n in code_lengths(np.pad(np.ones(ALPHABET), (0, SYMBOLS - ALPHABET))))


@dataclass(frozen=True)
class Coded:
    """One frame of a sequence at one step, of so many layers."""

    whole_bytes: int
    """Payload bytes of all these layers, coded alone."""
    delta_bytes: int | None
    """Payload bytes of the delta; None where there is no frame to refer to."""
    letters: Indices
    """What the delta's code counts."""
    reconstruction: Reconstruction
    """What both halves have of it, sent as whichever is smaller."""

    @property
    def as_delta(self) -> bool:
        """Whether the delta is smaller."""
        return self.delta_bytes is not None and self.delta_bytes < self.whole_bytes

    @property
    def sent_bytes(self) -> int:
        """What crosses."""
        return self.delta_bytes if self.as_delta and self.delta_bytes is not None else self.whole_bytes


def coded(
    codec: Codec, frames: Iterable[Floats], step: int, layers: int, lag: int, whole: Iterable[int] | None = None
) -> Iterator[Coded]:
    """Each of a clip's features (H, W, C) in turn; `whole`: what each takes alone, where that is known.

    Raises CodecError where the codec has no deltas.
    """
    if (deltas := deltas_of(codec)) is None:
        raise CodecError("config: no deltas; fit them first")
    held: list[Reconstruction] = []
    for x, alone in zip(frames, repeat(None) if whole is None else whole, strict=False):
        distances = deltas.packing.distances(x)
        whole_bytes = sum(map(len, codec.encode(x, step)[:layers])) if alone is None else alone
        now = upto(deltas.whole(distances, step), layers)
        frame = Coded(whole_bytes, None, np.zeros(0, np.intp), now)
        if len(held) >= lag:
            change = deltas.change(distances, step, layers, held[-lag])
            size = HEADER_BYTES + deltas.size_bytes(change, step, layers)
            now = deltas.changed(change, step, layers, held[-lag]) if size < whole_bytes else now
            frame = Coded(whole_bytes, size, change.symbols, now)
        held.append(frame.reconstruction)
        del held[:-lag]
        yield frame


def sizes(codec: Codec, frames: Sequence[Floats], lag: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Payload bytes of a clip's frames coded alone (N, S, L), layer by layer; and as a delta (N, S, L), each standing for so
    many layers, 0 where there is no frame to refer to. Every step and number of layers is a stream of its own.
    """
    shape = len(frames), len(codec.config.steps), codec.config.layers
    alone = np.zeros(shape, np.uint32)
    for step in range(shape[1]):
        for n, x in enumerate(frames):
            alone[n, step] = [len(payload) for payload in codec.encode(x, step)]
    return alone, delta_sizes(codec, frames, alone, lag)


def delta_sizes(codec: Codec, frames: Sequence[Floats], alone: NDArray[np.uint32], lag: int) -> NDArray[np.uint32]:
    """The second of `sizes`, where the first is known."""
    deltas = np.zeros_like(alone)
    for step in range(alone.shape[1]):
        for layers in range(1, alone.shape[2] + 1):
            whole = alone[:, step, :layers].sum(axis=1).tolist()
            frames_ = coded(codec, frames, step, layers, lag, whole)
            deltas[:, step, layers - 1] = [c.delta_bytes or 0 for c in frames_]
    return deltas


def fit_deltas(
    config: CodecConfig,
    clips: Sequence[Sequence[Floats]],
    keep: Sequence[Sequence[float]],
    *,
    lags: Sequence[int] = (1, 3),
) -> CodecConfig:
    """`config` with deltas whose code is learnt from clips of features (H, W, C), each coded at every one of `lags`.

    `keep`: see `Deltas`. Raises CodecError where they or the config do not fit.
    """
    rows = tuple(tuple(map(float, row)) for row in keep)
    flat = replace(config, deltas=Deltas(rows, ((_FLAT,) * LAYERS,) * len(config.steps)))
    codec = Codec(flat)
    tables = tuple(
        tuple(_table(codec, clips, step, layers, lags) for layers in range(1, LAYERS + 1))
        for step in range(len(config.steps))
    )
    return replace(config, deltas=Deltas(rows, tables))


def _table(codec: Codec, clips: Sequence[Sequence[Floats]], step: int, layers: int, lags: Sequence[int]) -> str:
    """Code lengths of the letters that occurred where a delta was the smaller one."""
    counts = np.pad(np.full(ALPHABET, PRIOR), (0, SYMBOLS - ALPHABET))
    for lag in lags:
        for clip in clips:
            for frame in coded(codec, clip, step, layers, lag):
                if frame.as_delta:
                    counts += np.bincount(frame.letters, minlength=SYMBOLS)
    return "".join(f"{n:x}" for n in code_lengths(counts))
