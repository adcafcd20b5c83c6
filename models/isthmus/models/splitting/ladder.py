"""The picture itself at several qualities, and what the server's model answers to each: operating points of a pair or a split.

Half of the sample pictures fit sizes and temperatures, the other half, which they never saw, measures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Point
from isthmus.models.flatbuffer import written
from isthmus.models.picture_ladder import Input, PictureLadder, Region, TailPart, View
from isthmus.models.pictures import Intake, resized
from isthmus.models.progress import Report
from isthmus.models.regions import PLACED, seen
from isthmus.models.splitting.answered import WIDTH, Answered, answered, by_confidence
from isthmus.models.splitting.cuts import whole
from isthmus.models.splitting.onnx_model import OnnxGraph
from isthmus.models.splitting.uncut import Uncut, runner
from isthmus.proto import picture_codec
from isthmus.proto.codec import HEADER_BYTES
from isthmus.proto.errors import ConfigError
from isthmus.proto.picture_codec import Format, PictureConfig, Pixels
from isthmus.proto.vocabulary import Guess, Placing

QUALITIES = (90, 70, 50, 30, 15, 5, 1)
"""WebP's own, finest first: from 16 kB to 2 kB of a picture of 416 x 416 pixels."""


@dataclass(frozen=True)
class Sight:
    """One view of the picture that is to be in the ladder."""

    qualities: tuple[int, ...]
    longest: int | None = None
    """The longer side of what crosses; None: as the server's model takes it."""
    region: bool = False
    """Whether only the part crosses where the device's own answer says something is."""

    def of(self, taken: Input) -> View:
        """The view, for a model that takes `taken`. Raises ConfigError where that is smaller."""
        most = max(taken.shape)
        longest = self.longest or most
        if longest > most:
            raise ConfigError(f"pictures of {longest} pixels: the server's model takes {most}; send no more")
        height, width = (max(1, round(side * longest / most)) for side in taken.shape)
        return View((height, width), self.qualities, (), Region() if self.region else None)


@dataclass(frozen=True)
class Coder:
    """How pictures are to be coded, in which views; the first is of the whole picture."""

    format: Format = "webp"
    sights: tuple[Sight, ...] = (Sight(QUALITIES),)


@dataclass(frozen=True)
class Ladder:
    """How the picture crosses to `server`, and what the operating points answer."""

    server: Uncut
    table: PictureLadder
    """Its table in `bundle.toml`."""
    answered: tuple[Answered, ...]
    """One for each quality."""
    sizes: NDArray[np.uint32]
    """(N, Q) bytes of the measured pictures."""

    @property
    def file(self) -> str:
        """The name of the server's model in a bundle."""
        return self.table.tail[0].file

    @property
    def model(self) -> bytes:
        """The server's model, as it is put into a bundle."""
        graph = self.server.graph
        return graph.path.read_bytes() if isinstance(graph, OnnxGraph) else written([whole(graph, "large")])


def measured(
    server: Uncut,
    pictures: Sequence[Pixels],
    coder: Coder,
    truth: Sequence[Guess],
    report: Report,
    *,
    device: Uncut | None = None,
    exits: Sequence[Answered] = (),
    first_step: int = 0,
) -> Ladder:
    """Code the `pictures` that `server` was shown at every quality, and compare what it then answers with the truth.

    The qualities are steps of the bundle's ladder from `first_step` on. `device` is the model whose answer says where
    something is, `exits` what that answers where measured. Raises ConfigError where parts are asked for and there is none.
    """
    if device is None and any(sight.region for sight in coder.sights):
        raise ConfigError(
            "--region: the device has no answer of its own that says where something is; name a --fallback"
        )
    if server.reading.task not in PLACED and any(sight.region for sight in coder.sights):
        raise ConfigError(f"--region: answers of {server.reading.task} have no places; it is for boxes and keypoints")
    table = _table(server, coder)
    own = [None] * len(pictures) if device is None else device.guesses()
    shown = [seen(picture, table, guess) for picture, guess in zip(pictures, own, strict=True)]
    views, bench = [], _Bench(server, truth, exits)
    for n, view in enumerate(table.views):
        sent = [of[n] for of in shown]
        config = picture_codec.fit([sent[i][0] for i in server.fitting], coder.format, view.qualities)
        views.append(msgspec.structs.replace(view, size_fit=config.size_fit))
        for quality in range(len(view.qualities)):
            step = first_step + len(bench.answered)
            bench.add(sent, config, quality, step)
            point = bench.answered[-1].point
            report(f"{table.named(step - first_step)}: {point.bytes:,.0f} bytes, agreement {point.accuracy:.2%}")
    first, *more = views
    table = msgspec.structs.replace(table, size_fit=first.size_fit, more=tuple(more))
    return Ladder(server, table, tuple(bench.answered), np.stack(bench.sizes, axis=1))


def _table(server: Uncut, coder: Coder) -> PictureLadder:
    """The table of `bundle.toml`, but for what is to be fitted."""
    onnx = isinstance(server.graph, OnnxGraph)
    first, *more = (sight.of(server.input) for sight in coder.sights)
    return PictureLadder(
        input=server.input,
        format=coder.format,
        qualities=first.qualities,
        size_fit=(),
        tail=(TailPart("large.onnx", "onnx") if onnx else TailPart("large.tflite", "litert"),),
        flops=server.graph.flops,
        boxes=server.reading.boxes,
        size=None if first.size == server.input.shape else first.size,
        more=tuple(more),
    )


class _Bench:
    """Codes pictures, asks the server's model about what is left of them, and compares."""

    def __init__(self, server: Uncut, truth: Sequence[Guess], exits: Sequence[Answered]) -> None:
        self._server, self._truth, self._exits = server, truth, exits
        self._run, self._intake = runner(server.graph), Intake(server.input)
        self.answered: list[Answered] = []
        self.sizes: list[NDArray[np.uint32]] = []

    def add(self, sent: Sequence[tuple[Pixels, Placing]], config: PictureConfig, quality: int, step: int) -> None:
        """One more operating point: every picture at one quality of one view."""
        server = self._server
        files = [picture_codec.encode(pixels, config, quality) for pixels, _ in sent]
        outputs = [self._answer(picture_codec.decode(file, config)) for file in files]
        sizes = np.array([HEADER_BYTES + len(files[i]) for i in server.measuring], np.uint32)
        point = Point(width=WIDTH, step=step, layers=1, bytes=round(float(sizes.mean()), 1))
        packed = [server.task.pack(arrays) for arrays in outputs]
        there = dataclasses.replace(server, placings=tuple(where for _, where in sent))
        found = answered(there, point, [arrays[0] for arrays in outputs], packed, self._truth)
        self.answered.append(by_confidence(found, self._exits))
        self.sizes.append(sizes)

    def _answer(self, pixels: Pixels) -> list[NDArray[Any]]:
        arrays = self._run(self._intake(resized(pixels, self._server.input.shape)))
        return [array[0] for array in arrays.values()]
