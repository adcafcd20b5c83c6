"""A bundle's two halves as they run live, in one process: what `models evaluate` and `models compare` ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.cli.options import missing
from isthmus.device.executor import Executor
from isthmus.models.bundle import Bundle, Manifest, Point
from isthmus.models.pictures import placing, sendable
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.vocabulary import Guess, OperatingPoint, Placing

LEAST_SCORE = 0.01
"""Boxes less sure than this change no average precision worth telling."""


class Halves:
    """Head and tail of a bundle, picture after picture."""

    def __init__(self, found: Bundle, manifest: Manifest) -> None:
        """`manifest` stands for the bundle's own. Raises ConfigError when what runs a tail is not installed."""
        try:
            from isthmus.edge_server.engines import Tail
        except ImportError as error:
            raise missing(error, "server") from error
        self.manifest = manifest
        whole = replace(found, manifest=manifest)
        self._executor, self._tail, self._codec = Executor(whole), Tail(whole, 1), FrameCodec(found.codec)

    def answers(
        self, pixels: NDArray[np.uint8], points: Sequence[Point] | None = None
    ) -> Iterator[tuple[Guess | None, int]]:
        """The answer of each operating point, in their order, and the bytes that it takes; None where it has none."""
        points = self.manifest.points if points is None else points
        by_exit: dict[tuple[float, int], Guess | None] = {}
        by_point: dict[OperatingPoint, tuple[Guess | None, int]] = {}
        for width in self.manifest.widths:
            placings = self._run(pixels, width, by_exit)
            for point in points:
                if point.width == width and point.step is not None:
                    by_point[point.key] = self._from_server(point.step, point.layers, placings)
            self._executor.forget(0)
        for point in points:
            yield by_point.get(point.key) or (by_exit[point.width, point.exit or 0], 0)

    def whole(self, pixels: NDArray[np.uint8]) -> Guess | None:
        """What the server's model answers when nothing is lost on the way: the uncut model, or the larger one of a pair."""
        frame: NDArray[Any]
        if (ladder := self.manifest.picture) is not None:
            frame = sendable(pixels, ladder.input)
            where = placing(pixels.shape, ladder.input)
        else:
            self._run(pixels, max(self.manifest.widths), {})
            frame, where = self._executor.features(0), placing(pixels.shape, self.manifest.input)
            self._executor.forget(0)
        (packed,) = self._tail.run([frame])
        return self._read(packed, [where])

    def _run(
        self, pixels: NDArray[np.uint8], width: float, by_exit: dict[tuple[float, int], Guess | None]
    ) -> tuple[Placing, ...]:
        self._executor.hold(0, pixels)
        for stage in range(len(self.manifest.stages)):
            result = self._executor.job(0, stage, width)()
            by_exit[width, stage] = result.guess
        return result.placings

    def _from_server(self, step: int, layers: int, placings: Sequence[Placing]) -> tuple[Guess | None, int]:
        payloads = [self._executor.encode(0, step, layer) for layer in range(layers)]
        (packed,) = self._tail.run([self._codec.decode(payloads)])
        return self._read(packed, placings[step : step + 1]), sum(map(len, payloads))

    def _read(self, packed: tuple[float, ...] | bytes | None, placings: Sequence[Placing]) -> Guess | None:
        if packed is None:
            return None  # no number: the device would answer for itself
        guess = self.manifest.answers.guess(packed, temperature=1.0, accuracy=1.0)
        return placings[0].outward(guess) if placings else guess


def unsure(m: Manifest) -> Manifest:
    """`m`, with boxes of any score: average precision counts them all."""

    def low(boxes: Boxes | None) -> Boxes:
        return msgspec.structs.replace(boxes or Boxes(), score=LEAST_SCORE)

    stages = tuple(tuple(msgspec.structs.replace(s, boxes=low(s.boxes)) for s in row) for row in m.stages)
    sent = m.picture and msgspec.structs.replace(m.picture, boxes=low(m.picture.boxes))
    return msgspec.structs.replace(m, boxes=low(m.boxes), stages=stages, picture=sent)
