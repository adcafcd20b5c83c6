"""The picture itself at several qualities, and what the server's model answers to each: operating points of a pair or a split.

Half of the sample pictures fit sizes and temperatures, the other half, which they never saw, measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Input, PictureLadder, Point, TailPart
from isthmus.models.flatbuffer import written
from isthmus.models.pictures import Intake, resized, sendable
from isthmus.models.progress import Report
from isthmus.models.splitting.cuts import whole
from isthmus.models.splitting.onnx_model import OnnxGraph
from isthmus.models.splitting.split import WIDTH, Answered, answered, by_confidence
from isthmus.models.splitting.uncut import Uncut, runner
from isthmus.proto import picture_codec
from isthmus.proto.codec import HEADER_BYTES
from isthmus.proto.errors import ConfigError
from isthmus.proto.picture_codec import Format, PictureConfig, Pixels
from isthmus.proto.vocabulary import Guess

QUALITIES = (90, 70, 50, 30, 15, 5, 1)
"""WebP's own, finest first: from 16 kB to 2 kB of a picture of 416 x 416 pixels."""


@dataclass(frozen=True)
class Ladder:
    """How the picture crosses to `server`, and what the operating points answer."""

    server: Uncut
    config: PictureConfig
    answered: tuple[Answered, ...]
    """One for each quality."""
    sizes: NDArray[np.uint32]
    """(N, Q) bytes of the measured pictures."""

    @property
    def file(self) -> str:
        """The name of the server's model in a bundle."""
        return "large.onnx" if isinstance(self.server.graph, OnnxGraph) else "large.tflite"

    @property
    def model(self) -> bytes:
        """The server's model, as it is put into a bundle."""
        graph = self.server.graph
        return graph.path.read_bytes() if isinstance(graph, OnnxGraph) else written([whole(graph, "large")])

    @property
    def table(self) -> PictureLadder:
        """The table of `bundle.toml`."""
        engine = "onnx" if isinstance(self.server.graph, OnnxGraph) else "litert"
        return PictureLadder(
            input=self.server.input,
            format=self.config.format,
            qualities=self.config.qualities,
            size_fit=self.config.size_fit,
            tail=(TailPart(self.file, engine),),
            flops=self.server.graph.flops,
            boxes=self.server.reading.boxes,
            size=None if (shape := (self.config.height, self.config.width)) == self.server.input.shape else shape,
        )


@dataclass(frozen=True)
class Coder:
    """How pictures are to be coded."""

    format: Format = "webp"
    qualities: tuple[int, ...] = QUALITIES
    longest: int | None = None
    """The picture's longer side, where it is sent smaller than the server's model takes it."""

    def crossing(self, taken: Input) -> Input:
        """The picture that crosses, for a model that takes `taken`. Raises ConfigError where that is smaller still."""
        most = max(taken.shape)
        if self.longest is None or self.longest == most:
            return taken
        if self.longest > most:
            raise ConfigError(f"picture size {self.longest}: the model takes {most} pixels; send no more")
        height, width = (max(1, round(side * self.longest / most)) for side in taken.shape)
        return msgspec.structs.replace(taken, size=height, width=width)


def measured(
    server: Uncut,
    pictures: Sequence[Pixels],
    coder: Coder,
    truth: Sequence[Guess],
    report: Report,
    *,
    exits: Sequence[Answered] = (),
    first_step: int = 0,
) -> Ladder:
    """Code the `pictures` that `server` was shown at every quality, and compare what it then answers with the truth.

    The qualities are steps of the bundle's ladder from `first_step` on; `exits` are those that may have spoken before.
    """
    small = coder.crossing(server.input)
    sent = [sendable(picture, small) for picture in pictures]
    config = picture_codec.fit([sent[i] for i in server.fitting], coder.format, coder.qualities)
    run = runner(server.graph)
    intake, shape = Intake(server.input), server.input.shape
    steps, sizes = [], np.zeros((len(server.measuring), len(coder.qualities)), np.uint32)
    for quality, value in enumerate(coder.qualities):
        files = [picture_codec.encode(pixels, config, quality) for pixels in sent]
        seen = (picture_codec.decode(file, config) for file in files)
        outputs = [[a[0] for a in run(intake(resized(pixels, shape))).values()] for pixels in seen]
        sizes[:, quality] = [HEADER_BYTES + len(files[i]) for i in server.measuring]
        mean = round(float(sizes[:, quality].mean()), 1)
        point = Point(width=WIDTH, step=first_step + quality, layers=1, bytes=mean)
        packed = [server.task.pack(arrays) for arrays in outputs]
        found = answered(server, point, [arrays[0] for arrays in outputs], packed, truth)
        steps.append(by_confidence(found, exits))
        report(f"{coder.format} {value}: {point.bytes:,.0f} bytes, agreement {found.point.accuracy:.2%}")
    return Ladder(server, config, tuple(steps), sizes)
