"""What every operating point of an injected detector answers, with its files and the real codec, against the uncut detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Point
from isthmus.models.injection.halves import Exported
from isthmus.models.progress import Report
from isthmus.models.splitting.answered import WIDTH, Answered, answered, by_confidence, from_fallback
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.codec import Codec, CodecConfig
from isthmus.proto.vocabulary import Guess


@dataclass(frozen=True)
class Measured:
    """The operating points, what is right, and what each payload takes."""

    answered: tuple[Answered, ...]
    truth: tuple[Guess, ...]
    layer_bytes: NDArray[np.uint32]
    """(N, 1, S, L)"""


def judging(uncut: Uncut) -> Uncut:
    """All its pictures judge; none of them fits anything."""
    count = len(uncut.images)
    return replace(uncut, fitting=np.arange(0), measuring=np.arange(count))


def measured(uncut: Uncut, exported: Exported, config: CodecConfig, fallback: Uncut | None, report: Report) -> Measured:
    """Every step and number of layers over the pictures of `uncut`, and the fallback's own answers to them."""
    truth, codec = uncut.guesses(), Codec(config)
    features = [exported.head(image) for image in uncut.images]
    exits = [] if fallback is None else [from_fallback(fallback, truth)]
    found, sizes = list[Answered](exits), []
    for step in range(len(config.steps)):
        payloads = [codec.encode(x, step) for x in features]
        at_step = np.array([list(map(len, p)) for p in payloads], np.uint32)
        for layers in range(1, config.layers + 1):
            size = round(float(at_step[:, :layers].sum(1).mean()), 1)
            point = Point(width=WIDTH, step=step, layers=layers, bytes=size)
            outputs = [exported.tail(codec.decode(p[:layers])) for p in payloads]
            found.append(by_confidence(_answered(uncut, point, outputs, truth), exits))
        sizes.append(at_step)
        best = found[-1].point
        report(f"step {config.steps[step]:g}: {best.bytes:,.0f} bytes, agreement {best.accuracy:.1%}")
    return Measured(tuple(found), tuple(truth), np.stack(sizes, axis=1)[:, None])


def _answered(
    uncut: Uncut, point: Point, outputs: Sequence[list[NDArray[np.float32]]], truth: Sequence[Guess]
) -> Answered:
    packed = [uncut.task.pack(arrays) for arrays in outputs]
    return answered(uncut, point, [arrays[0] for arrays in outputs], packed, truth)
