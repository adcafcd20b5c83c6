"""What is offered of a bundle to existing clients: `NAME`, pictures in, and `NAME.tail`, what crosses in; answers out.

Both are the bundle's best: full width, nothing left out. An answer is JSON; where a bundle's answers are one class of few,
its logits are there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.edge_server.engines import Frame
from isthmus.edge_server.inference.tensors import ANY, Port
from isthmus.edge_server.repository.lane import Served
from isthmus.models.bundle import Bundle
from isthmus.models.pictures import placing, sendable
from isthmus.proto.errors import CodecError, WireError
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.tasks import WITHOUT_CLASSES
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Box, Guess, Placing

if TYPE_CHECKING:
    from isthmus.edge_server.inference.head import Head

TAIL = ".tail"
"""Behind a bundle's name, the name of its server's half alone."""
PICTURE = Port("picture", "UINT8", (ANY, ANY, ANY, 3))
PAYLOAD = Port("payload", "BYTES", (ANY, ANY))
"""The layers of each frame as they cross, base first."""
ANSWER = Port("answer", "BYTES", (ANY,))
FEW = 64
"""So many classes have logits of their own: see `proto.tasks.classification`."""


@dataclass(frozen=True)
class Asked:
    """What a request asks about: a frame each, and where each picture lies in what the model is given."""

    frames: tuple[Frame, ...]
    placings: tuple[Placing, ...]


class Offers:
    """What is offered of all bundles that a server has now."""

    def __init__(self, offered: Callable[[], Sequence[Served]], found: Callable[[Served], Bundle]) -> None:
        """`found` reads the bundle of what is `offered`, in a thread. It raises BundleError where it cannot."""
        self._offered, self._found = offered, found
        self._offers: dict[bytes, Offer] = {}

    def __str__(self) -> str:
        """The models by name and version."""
        names = (f"{name} {version_of(s.sha256)}" for s in self._offered() for name in (s.name, s.name + TAIL))
        return ", ".join(names) or "none"

    async def find(self, model: str, version: str = "") -> Offer | None:
        """What was offered last under this name, or the one of this version. Raises BundleError."""
        for served in reversed(self._offered()):
            if model in (served.name, served.name + TAIL) and version in ("", version_of(served.sha256)):
                offer = await self._of(served)
                return offer if model in offer.models else None
        return None

    async def _of(self, served: Served) -> Offer:
        for gone in self._offers.keys() - {served.sha256 for served in self._offered()}:
            self._offers.pop(gone).close()
        if served.sha256 not in self._offers:
            bundle = await asyncio.to_thread(self._found, served)
            self._offers.setdefault(served.sha256, Offer(bundle))
        return self._offers[served.sha256]


def version_of(sha256: bytes) -> str:
    """By what a client tells two bundles of one name apart."""
    return sha256.hex()[:12]


class Offer:
    """One bundle's two models. Asked from the event loop; pictures go through the head in a thread of its own."""

    def __init__(self, bundle: Bundle) -> None:
        manifest, codec = bundle.manifest, bundle.codec
        self.name, self.sha256 = manifest.name, bundle.sha256
        self._bundle, self._manifest, self._codec = bundle, manifest, FrameCodec(codec)
        self._head: Head | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._features = Port("features", "FP32", (ANY, codec.height, codec.width, codec.channels))
        self._task = manifest.answers if manifest.picture is None else manifest.picture_answers(manifest.picture)
        best = [p for p in manifest.points if p.exit is None and p.width == manifest.widths[-1]]
        self._best = max(best, key=lambda p: p.accuracy, default=None)

    @property
    def version(self) -> str:
        """By what a client tells it from others of its name."""
        return version_of(self.sha256)

    @property
    def models(self) -> tuple[str, ...]:
        """The names under which it is offered; the whole model only where there is all that it needs."""
        whole = self._manifest.picture is not None or self._bundle.head_path.is_file()
        return (self.name, self.name + TAIL) if whole else (self.name + TAIL,)

    def inputs(self, model: str) -> tuple[Port, ...]:
        """What a model takes: one of these."""
        if model == self.name:
            return (PICTURE,)
        return (self._features, PAYLOAD) if self._codec.config.steps else (PAYLOAD,)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What a model gives."""
        classes = len(self._manifest.labels)
        if self._manifest.task.startswith("classification") and 0 < classes <= FEW:
            return ANSWER, Port("logits", "FP32", (ANY, classes))
        return (ANSWER,)

    def read(self, port: Port, values: NDArray[Any]) -> Asked | None:
        """The frames in an input's values; None for pictures that the head must see first. Raises WireError."""
        if port is PICTURE:
            return None if self._manifest.picture is None else self._sent(values)
        if port is PAYLOAD:
            return self._whole(tuple(self._crossed(i, tuple(row)) for i, row in enumerate(values)))
        if not np.isfinite(values).all():
            raise WireError("features: NaN or infinite values")
        return self._whole(tuple(values))

    async def see(self, pictures: NDArray[Any]) -> Asked:
        """Pictures (B, H, W, 3) through the head. Raises BundleError where there is none that can be used."""
        return await asyncio.wrap_future(self._thread.submit(self._see, pictures))

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)

    def answers(self, packed: Sequence[Packed], asked: Asked, port: Port) -> NDArray[Any]:
        """What a tail gave for each frame, as an output. Raises ValueError when it cannot be read."""
        if port.name == "logits":
            return np.asarray(packed, np.float32)
        values = np.empty(len(packed), object)
        values[:] = [self._told(one, placing) for one, placing in zip(packed, asked.placings, strict=True)]
        return values

    def _see(self, pictures: NDArray[Any]) -> Asked:
        if self._head is None:
            from isthmus.edge_server.inference.head import Head  # needs LiteRT, which few servers are asked for

            self._head = Head(self._bundle)
        where = placing(pictures.shape[1:], self._manifest.input)
        return Asked(tuple(map(self._head.features, pictures)), (where,) * len(pictures))

    def _sent(self, pictures: NDArray[Any]) -> Asked:
        assert self._manifest.picture is not None
        taken = self._manifest.picture.input
        where = placing(pictures.shape[1:], taken)
        return Asked(tuple(sendable(pixels, taken) for pixels in pictures), (where,) * len(pictures))

    def _whole(self, frames: tuple[Frame, ...]) -> Asked:
        return Asked(frames, (Placing(),) * len(frames))

    def _crossed(self, index: int, payloads: tuple[bytes, ...]) -> Frame:
        try:
            return self._codec.crossed(payloads).features
        except CodecError as error:
            raise WireError(f"payload {index}: {error}") from error

    def _told(self, packed: Packed, where: Placing) -> bytes:
        temperature, accuracy = (1.0, 0.0) if self._best is None else (self._best.temperature, self._best.accuracy)
        guess = where.outward(self._task.guess(packed, temperature=temperature, accuracy=accuracy))
        return msgspec.json.encode(self._named(guess))

    def _named(self, guess: Guess) -> dict[str, Any]:
        told: dict[str, Any] = {"label": guess.label, "confidence": guess.confidence}
        if self._manifest.task not in WITHOUT_CLASSES:
            told["name"] = self._manifest.name_of(guess.label)
        if isinstance(guess.detail, tuple):
            return told | {"boxes": [self._box(box) for box in guess.detail]}
        return told if guess.detail is None else told | {type(guess.detail).__name__.lower(): guess.detail}

    def _box(self, box: Box) -> dict[str, Any]:
        return {"name": self._manifest.name_of(box.label), **msgspec.structs.asdict(box)}
