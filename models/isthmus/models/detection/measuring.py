"""What every operating point of a detector answers to frames: with the real codec, from the network or from a bundle's files.

Here a point's `accuracy` is how well its boxes agree with the truth, frame by frame (F1 at an overlap of a half), which is
what a scheduler can add up; average precision is counted over all frames at once and stands in the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Outcomes, Point
from isthmus.models.bundling import calibration
from isthmus.models.bundling.evaluate import Evaluation
from isthmus.models.data.clips import BoxedFrames
from isthmus.models.progress import Report
from isthmus.proto.codec import Codec, CodecConfig, fit
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.detection import Detection
from isthmus.proto.vocabulary import Box, Guess

Maps = NDArray[np.float32]
SCORES = tuple(round(0.1 + 0.05 * i, 2) for i in range(10))
"""Where an answer's least score is searched."""
BINS = 6
"""Of confidence, each with as many frames as the others: a detector's scores keep to a part of 0 to 1 of their own."""
MOST = 20
"""Boxes of an answer: more things than this are a flock."""


class Halves(Protocol):
    """A detector in two halves."""

    def head(self, images: NDArray[np.uint8], width: float) -> tuple[Maps, Maps]:
        """Features (N, h, w, C) and the exit's maps (N, h, w, K + 4) for RGB pictures (N, H, W, 3) at `width`."""

    def tail(self, features: Maps) -> Maps:
        """The server's maps (N, h, w, K + 4) for features (N, h, w, C)."""


@dataclass(frozen=True)
class Answered:
    """One operating point's maps (N, h, w, K + 4)."""

    point: Point
    maps: Maps


def fitted_codec(
    halves: Halves, widths: Sequence[float], steps: Sequence[float], images: NDArray[np.uint8]
) -> CodecConfig:
    """Entropy tables and size predictor from pictures, all widths together; features are coded about 0."""
    features = np.concatenate([halves.head(images, width)[0] for width in widths])
    return fit(features, (0.0,) * features.shape[-1], steps)


def answered(
    halves: Halves, widths: Sequence[float], config: CodecConfig, images: NDArray[np.uint8], report: Report
) -> tuple[list[Answered], NDArray[np.uint32]]:
    """Every operating point's maps, and the payloads' bytes (N, W, S, L): exits first, as widths come."""
    codec, found, sizes = Codec(config), list[Answered](), []
    for width in widths:
        features, exits = halves.head(images, width)
        found.append(Answered(Point(width=width, exit=0), exits))
        layer_bytes = np.zeros((len(images), len(config.steps), config.layers), np.uint32)
        for step in range(len(config.steps)):
            payloads = [codec.encode(x, step) for x in features]
            layer_bytes[:, step] = [list(map(len, p)) for p in payloads]
            for layers in range(1, config.layers + 1):
                decoded = np.stack([codec.decode(p[:layers]) for p in payloads])
                size = float(layer_bytes[:, step, :layers].sum(1).mean())
                point = Point(width=width, step=step, layers=layers, bytes=round(size, 1))
                found.append(Answered(point, halves.tail(decoded)))
        sizes.append(layer_bytes)
        report(f"width {width:g}: {len(images)} frames at {len(config.steps)} steps")
    return found, np.stack(sizes, 1)


def truth_of(boxes: NDArray[np.float32], shape: tuple[int, int]) -> Guess:
    """What is in a frame, as an answer: the largest thing gives the label."""
    height, width = shape
    largest = sorted(boxes.tolist(), key=lambda r: -(r[3] - r[1]) * (r[4] - r[2]))
    found = tuple(
        Box(int(k), 1.0, top / height, left / width, bottom / height, right / width)
        for k, left, top, right, bottom in largest
    )
    return Guess(found[0].label if found else 0, 1.0, found)


def fitted_boxes(answers: Sequence[Answered], frames: BoxedFrames) -> Boxes:
    """How boxes are read: from which score on they agree best with the truth, at the exits and at the finest step alike."""
    chosen = [a for a in answers if a.point.step in (None, 0)]
    return max(
        (Boxes("cells", score=score, most=MOST) for score in SCORES),
        key=lambda boxes: sum(float(_scores(guesses(a.maps, frames, boxes), frames, boxes).mean()) for a in chosen),
    )


def task_of(frames: BoxedFrames, boxes: Boxes) -> Detection:
    """The task that reads maps."""
    return Detection(boxes, (frames.images.shape[1], frames.images.shape[2]), classes=len(frames.labels))


def guesses(maps: Maps, frames: BoxedFrames, boxes: Boxes) -> list[Guess]:
    """The answers that maps (N, h, w, K + 4) are."""
    task = task_of(frames, boxes)
    return [task.guess(task.pack([m]), temperature=1.0, accuracy=0.0) for m in maps]


def _scores(found: Sequence[Guess], frames: BoxedFrames, boxes: Boxes) -> NDArray[np.float32]:
    """(N,) how well answers agree with the truth."""
    task, shape = task_of(frames, boxes), frames.images.shape[1:3]
    truth = [truth_of(rows, (shape[0], shape[1])) for rows in frames.boxes]
    return np.array([task.agreement(a, b) for a, b in zip(found, truth, strict=True)], np.float32)


def confidence_edges(confidences: Sequence[NDArray[np.floating]]) -> tuple[float, ...]:
    """Inner edges of the bins of confidence, ascending, for the exits' confidences (N,) at each width."""
    shares = np.quantile(np.concatenate(confidences).astype(np.float64), np.arange(1, BINS) / BINS)
    return tuple(np.unique(shares.round(3)).tolist())


def evaluated(
    answers: Sequence[Answered],
    layer_bytes: NDArray[np.uint32],
    frames: BoxedFrames,
    boxes: Boxes,
    codec: CodecConfig,
) -> tuple[Evaluation, tuple[float, ...]]:
    """The points with what they are worth and the outcome table, of frames not trained on; and the edges of confidence."""
    found = [guesses(a.maps, frames, boxes) for a in answers]
    score = [_scores(row, frames, boxes) for row in found]
    confidence = [np.array([g.confidence for g in row], np.float32) for row in found]
    edges = confidence_edges([row for a, row in zip(answers, confidence, strict=True) if a.point.exit is not None])
    exits = {a.point.width: i for i, a in enumerate(answers) if a.point.exit is not None}
    points = tuple(
        msgspec.structs.replace(
            a.point,
            accuracy=round(float(row.mean()), 5),
            accuracy_given=(calibration.accuracy_by_confidence(confidence[exits[a.point.width]], row, edges),),
        )
        for a, row in zip(answers, score, strict=True)
    )
    height, width = frames.images.shape[1:3]
    outcomes = Outcomes(
        truth=np.array([truth_of(rows, (height, width)).label for rows in frames.boxes], np.uint8),
        label=np.array([[g.label for g in row] for row in found], np.uint8).T,
        confidence=np.stack(confidence, 1).astype(np.float16),
        layer_bytes=layer_bytes,
        score=np.stack(score, 1).astype(np.float16),
    )
    return Evaluation(codec, points, outcomes, (0.0,) * len(points), ()), edges
