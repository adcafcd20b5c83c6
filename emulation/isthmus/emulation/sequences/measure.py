"""Measures a table of clips: every operating point of a bundle on every frame, and where what it found went from there.

The device's own executor, codec and flow and the server's own engine answer, so what is replayed is what they would say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.device.executor import Executor
from isthmus.device.tracking.flow import Grey, follow, small_grey
from isthmus.device.tracking.tracks import LEAST_SCORE, Place, overlap
from isthmus.edge_server.engines import Tail
from isthmus.emulation.sequences.table import Sequences
from isthmus.models.bundle import Bundle
from isthmus.models.inputs import FORMATS, QUALITIES
from isthmus.models.pictures import resized
from isthmus.proto.codec import Codec
from isthmus.proto.errors import DataError
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.temporal.sequences import delta_sizes
from isthmus.proto.vocabulary import Box, Guess

LONGEST_AGE = 32
"""Frames that things are followed for: as many as a tracker remembers."""
LAGS = (1, 3, 6, 15)
"""Frames that an answer may take, hence how old what a frame is coded against may be: up to what a server holds."""
MOST_BOXES = 8
"""Boxes of one answer that are kept, the surest: average precision hardly sees the others."""
SAME = 0.7
"""Boxes of several points that overlap so much are of one thing, whose motion they share."""
Pixels = NDArray[np.uint8]


class Footage(Protocol):
    """A clip with its boxes."""

    @property
    def name(self) -> str:
        """What it is called."""

    def frames(self, every: int = 1) -> Iterator[tuple[int, Pixels]]:
        """Every so many frames: number and pixels (H, W, 3) RGB."""

    def truth(self, number: int, shape: tuple[int, ...]) -> tuple[Box, ...]:
        """What is in a frame, given the shape of its pictures."""


def measure(
    bundle: Bundle,
    clips: Sequence[tuple[Footage, float]],
    report: Callable[[str], None],
    *,
    frames: int | None = None,
    pictures: bool = True,
    threads: int = 1,
) -> Sequences:
    """The table of clips, each with its frames a second: the first `frames` of each, all where that is None.

    `pictures`: also what is found in the pictures sent as WebP. Raises DataError where the bundle finds no boxes.
    """
    if bundle.manifest.task != "detection":
        raise DataError(f"{bundle.folder.name}: finds no boxes (its task is {bundle.manifest.task})")
    made = _Rows(_Network(bundle, threads), pictures)
    for index, (clip, _) in enumerate(clips):
        count = 0
        for number, pixels in clip.frames():
            if frames is not None and number >= frames:
                break
            made.add(index, number, pixels, clip.truth(number, pixels.shape))
            count += 1
        made.end_clip()
        report(f"{clip.name}: {count} frames")
    return made.table([clip.name for clip, _ in clips], [fps for _, fps in clips])


class _Network:
    """Both halves of a bundle, and everything that they answer to one picture."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._manifest = bundle.manifest
        self._executor, self._tail = Executor(bundle, threads=threads), Tail(bundle, threads)
        self._codec, self._alone = FrameCodec(bundle.codec), Codec(replace(bundle.codec, picture=None))
        self._points = {point.key: point for point in bundle.manifest.points}
        self.order = [point.key for point in bundle.manifest.points]
        self.lags = () if bundle.codec.deltas is None else LAGS
        self._features: list[list[NDArray[np.float32]]] = [[] for _ in bundle.manifest.widths]
        """[width]: of the frames of this clip."""

    def answers(self, pixels: Pixels) -> tuple[list[tuple[Box, ...]], NDArray[np.int64]]:
        """The boxes of every operating point, and payload bytes (W, S, L)."""
        found: dict[Any, tuple[Box, ...]] = {}
        sizes: list[list[list[int]]] = []
        for width, features in zip(sorted(self._manifest.widths), self._features, strict=True):
            self._executor.hold(0, pixels)
            for stage in range(len(self._manifest.stages)):
                guess = self._executor.job(0, stage, width)().guess
                found |= {key: _boxes(guess) for key in self.order if (key.width, key.exit) == (width, stage)}
            sizes.append(self._sent(width, found))
            if self.lags:
                features.append(self._executor.features(0).copy())
        self._executor.forget(0)
        return [found[key] for key in self.order], np.array(sizes)

    def deltas(self, sizes: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Bytes (N, W, G, S, L) of the clip's frames as deltas, given what they take whole (N, W, S, L). Ends the clip."""
        n, widths, steps, layers = sizes.shape
        deltas = np.zeros((n, widths, len(self.lags), steps, layers), np.uint32)
        for w, features in enumerate(self._features):
            for g, lag in enumerate(self.lags):
                deltas[:, w, g] = delta_sizes(self._alone, features, sizes[:, w].astype(np.uint32), lag)
            features.clear()
        return deltas

    def of_picture(self, pixels: Pixels) -> tuple[Box, ...]:
        """What the whole network finds at full width, its features as if they were not quantised: at the finest step."""
        width = max(self._manifest.widths)
        self._executor.hold(0, pixels)
        for stage in range(len(self._manifest.stages)):
            self._executor.job(0, stage, width)()
        finest = max((k for k in self.order if k.width == width and k.step == 0), key=lambda k: k.layers)
        payloads = [self._executor.encode(0, 0, layer) for layer in range(finest.layers)]
        self._executor.forget(0)
        return self._told([self._codec.decode(payloads)], [finest])[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the pictures that the head takes."""
        return self._manifest.input.shape

    def _sent(self, width: float, found: dict[Any, tuple[Box, ...]]) -> list[list[int]]:
        """Answers to what crosses of the frame that is held, and its bytes [step][layer]."""
        keys = [key for key in self.order if key.width == width and key.step is not None]
        most = max(key.layers for key in keys)
        steps = sorted({key.step for key in keys if key.step is not None})
        payloads = {step: [self._executor.encode(0, step, layer) for layer in range(most)] for step in steps}
        features = [self._codec.decode(payloads[key.step or 0][: key.layers]) for key in keys]
        found |= dict(zip(keys, self._told(features, keys), strict=True))
        return [[len(payload) for payload in payloads[step]] for step in steps]

    def _told(self, features: Sequence[Any], keys: Sequence[Any]) -> list[tuple[Box, ...]]:
        task = self._manifest.answers
        told = []
        for packed, key in zip(self._tail.run(features), keys, strict=True):
            if packed is None:
                raise DataError(f"{self._manifest.name}: its tail answers NaN; export the bundle again")
            point = self._points[key]
            told.append(_boxes(task.guess(packed, temperature=point.temperature, accuracy=point.accuracy)))
        return told


class _Rows:
    """The table as it grows."""

    def __init__(self, network: _Network, pictures: bool) -> None:
        self._network, self._qualities = network, QUALITIES if pictures else ()
        self._clip, self._number = list[int](), list[int]()
        self._truth, self._boxes = list[tuple[int, Box]](), list[tuple[int, int, Box]]()
        self._sizes, self._picture_bytes = list[NDArray[np.int64]](), list[list[int]]()
        self._deltas = list[NDArray[np.uint32]]()
        self._things: list[tuple[int, NDArray[np.float32]]] = []
        self._greys: list[Grey] = []
        self._unfollowed: list[tuple[int, list[Place]]] = []

    def add(self, clip: int, number: int, pixels: Pixels, truth: Iterable[Box]) -> None:
        """One frame, the next of its clip."""
        n = len(self._clip)
        self._clip.append(clip)
        self._number.append(number)
        self._truth += [(n, box) for box in truth]
        answers, sizes = self._network.answers(pixels)
        self._sizes.append(sizes)
        self._picture_bytes.append([])
        for quality in self._qualities:
            decoded, size = _as_webp(pixels, self._network, quality)
            self._picture_bytes[-1].append(size)
            answers.append(self._network.of_picture(decoded))
        self._boxes += [(n, p, box) for p, boxes in enumerate(answers) for box in boxes]
        self._greys.append(small_grey(pixels))
        self._unfollowed.append((n, _apart(box for boxes in answers for box in boxes)))

    def end_clip(self) -> None:
        """The clip has ended: code its frames against one another, and follow what was found through those after it."""
        self._deltas.append(self._network.deltas(np.array(self._sizes[len(self._clip) - len(self._greys) :])))
        for first, (n, places) in enumerate(self._unfollowed):
            tracks = np.full((len(places), LONGEST_AGE + 1, 4), np.nan, np.float32)
            now = dict(enumerate(places))
            for age in range(LONGEST_AGE + 1):
                if age and first + age < len(self._greys):
                    moved = follow(self._greys[first + age - 1], self._greys[first + age], list(now.values()))
                    now = {i: place for i, place in zip(now, moved, strict=True) if place is not None}
                elif age:
                    now = {}
                for i, place in now.items():
                    tracks[i, age] = place
            self._things += [(n, track) for track in tracks]
        self._greys, self._unfollowed = [], []

    def table(self, names: Sequence[str], fps: Sequence[float]) -> Sequences:
        """Everything added."""
        truth, boxes = [box for _, box in self._truth], [box for *_, box in self._boxes]
        return Sequences(
            names=np.array(names),
            fps=np.array(fps, np.float32),
            clip=np.array(self._clip, np.uint16),
            number=np.array(self._number, np.uint32),
            truth_frame=np.array([n for n, _ in self._truth], np.uint32),
            truth_label=np.array([box.label for box in truth], np.uint16),
            truth_place=_places(truth),
            box_frame=np.array([n for n, *_ in self._boxes], np.uint32),
            box_point=np.array([p for _, p, _ in self._boxes], np.uint16),
            box_label=np.array([box.label for box in boxes], np.uint16),
            box_score=np.array([box.score for box in boxes], np.float16),
            box_place=_places(boxes),
            layer_bytes=np.array(self._sizes, np.uint32),
            lags=np.array(self._network.lags, np.uint16),
            delta_bytes=np.concatenate(self._deltas),
            picture_bytes=np.array(self._picture_bytes, np.uint32).reshape(len(self._clip), len(self._qualities)),
            thing_frame=np.array([n for n, _ in self._things], np.uint32),
            thing_place=np.array([t for _, t in self._things], np.float16).reshape(-1, LONGEST_AGE + 1, 4),
        )


def _boxes(guess: Guess | None) -> tuple[Box, ...]:
    boxes = guess.detail if guess is not None and isinstance(guess.detail, tuple) else ()
    return tuple(box for box in boxes if box.score >= LEAST_SCORE)[:MOST_BOXES]


def _apart(boxes: Iterable[Box]) -> list[Place]:
    """Places of boxes, one of each that overlap as those of one thing do; the surest first."""
    kept: list[Place] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        place = Place(box.top, box.left, box.bottom, box.right)
        if all(overlap(place, other) < SAME for other in kept):
            kept.append(place)
    return kept


def _places(boxes: Sequence[Box]) -> NDArray[np.float16]:
    rows = [(box.top, box.left, box.bottom, box.right) for box in boxes]
    return np.array(rows, np.float16).reshape(-1, 4)


def _as_webp(pixels: Pixels, network: _Network, quality: int) -> tuple[Pixels, int]:
    """A picture, made as small as the network takes it, after coding and decoding, and the bytes that it takes on the wire."""
    small = resized(pixels, network.shape)
    suffix, key, container_bytes = FORMATS["webp"]
    file = cv2.imencode(suffix, small[:, :, ::-1], [key, quality])[1]
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR)
    assert decoded is not None  # its own encoder's file
    return np.ascontiguousarray(decoded[:, :, ::-1]).astype(np.uint8), len(file) - container_bytes
