"""The keypoints of one body. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.tasks.boxes import Floats, Size
from isthmus.proto.tasks.classification import ROUNDING
from isthmus.proto.tasks.task import Arrays, Packed
from isthmus.proto.vocabulary import Guess, Keypoint, Pose

SEEN = 0.3
"""Points less sure than this are taken for hidden, as in MoveNet's own examples."""
COCO = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""How far people differ about each of COCO's 17 keypoints, in shares of a body's size (Ronchi and Perona 2017)."""
ANY = 0.063
"""The same of keypoints that nobody has measured: the mean of COCO's."""
SMALLEST = 1e-3
"""A body has at least so much of the picture's area: all its points may lie in one place."""
FARTHEST = 100.0
"""Pictures away from the picture: what is farther is no place, and no float16 either."""
POINT_BYTES = 6
MOST_POINTS = 2000


class PoseEstimation:
    """Keypoints with their scores.

    `outputs` are (K, 3) of top, left and score, in shares of the picture (MoveNet); or heat maps (H, W, K) of logits with
    offsets (H, W, 2 K) in pixels, tops first (PoseNet, Papandreou et al. 2018); or heat maps alone, of probabilities, channels
    last or first.
    """

    def __init__(self, size: Size = (1, 1), *, classes: int | None = None) -> None:
        """`size` is the picture that the network takes; `classes` is how many keypoints there are."""
        self._size, self._points = size, classes

    def pack(self, outputs: Arrays) -> Packed:
        """Top, left and score of each point as float16. Raises ValueError when the outputs are of another form."""
        rows = keypoints(outputs, self._size)
        if not 2 <= len(rows) <= MOST_POINTS:
            raise ValueError(f"{len(rows)} keypoints; 2 to {MOST_POINTS} are expected")
        return np.clip(rows, -FARTHEST, FARTHEST).astype("<f2").tobytes()

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The pose, as sure as its points are on average."""
        if not isinstance(packed, bytes) or not packed or len(packed) % POINT_BYTES:
            raise ValueError("pose: not whole; compare the two halves' versions")
        rows = np.frombuffer(packed, "<f2").astype(np.float32).reshape(-1, 3)
        if len(rows) != (self._points or len(rows)) or len(rows) > MOST_POINTS:
            raise ValueError(
                f"pose: {len(rows)} points, {self._points or MOST_POINTS} are expected; compare the two halves' bundles"
            )
        if not np.isfinite(rows).all() or (abs(rows[:, 2] - 0.5) > 0.5 + ROUNDING).any():
            raise ValueError("pose: values that are not finite, or no scores; the model or its outputs are damaged")
        confidence = min(max(float(rows[:, 2].mean()), 0.0), 1.0)
        return Guess(0, confidence, Pose(tuple(Keypoint(*row) for row in rows.tolist())))

    def agreement(self, one: Guess, other: Guess) -> float:
        """COCO's object keypoint similarity (Lin et al. 2014) over the points that either sees; one that only one sees counts 0.

        The body's size is the square root of the area around the points that `other` sees. Two that see nothing agree.
        """
        a, b = _points(one), _points(other)
        if a.shape != b.shape:
            raise ValueError(f"poses: {len(a)} points against {len(b)}")
        seen_a, seen_b = a[:, 2] >= SEEN, b[:, 2] >= SEEN
        either, both = seen_a | seen_b, seen_a & seen_b
        if not either.any():
            return 1.0
        area = max(float(np.prod(np.ptp(b[seen_b, :2], axis=0))), SMALLEST) if seen_b.any() else SMALLEST
        differ = 2 * np.asarray(COCO if len(a) == len(COCO) else [ANY] * len(a))
        similar = np.exp(-((a[:, :2] - b[:, :2]) ** 2).sum(axis=1) / (2 * area * differ**2))
        return float((similar * both).sum() / either.sum())


def keypoints(outputs: Arrays, size: Size) -> Floats:
    """Rows (K, 3) of top, left, score in what a network gives for a picture of `size`. Raises ValueError for other forms."""
    first = np.asarray(outputs[0], np.float32)
    if first.ndim >= 2 and first.shape[-1] == 3 and first.size == 3 * first.shape[-2]:
        return first.reshape(-1, 3)
    if first.ndim != 3:
        raise ValueError(f"{first.shape}; (points, 3), or heat maps (rows, columns, points) are expected")
    offsets = [np.asarray(a, np.float32) for a in outputs[1:] if a.shape == (*first.shape[:2], 2 * first.shape[2])]
    return _with_offsets(first, offsets[0], size) if offsets else _of_heat(_channels_last(first, size))


def _with_offsets(heat: Floats, offsets: Floats, size: Size) -> Floats:
    rows, columns, count = heat.shape
    at, top = _hottest(heat)
    points = np.arange(count)
    y, x = at // columns, at % columns
    strides = (size[0] - 1) / max(rows - 1, 1), (size[1] - 1) / max(columns - 1, 1)
    tops = (y * strides[0] + offsets[y, x, points]) / size[0]
    lefts = (x * strides[1] + offsets[y, x, count + points]) / size[1]
    return np.column_stack([tops, lefts, 1 / (1 + np.exp(-np.clip(top, -50, 50)))]).astype(np.float32)


def _of_heat(heat: Floats) -> Floats:
    rows, columns, _ = heat.shape
    at, top = _hottest(heat)
    places = (at // columns + 0.5) / rows, (at % columns + 0.5) / columns
    return np.column_stack([*places, np.clip(top, 0, 1)]).astype(np.float32)


def _hottest(heat: Floats) -> tuple[NDArray[np.intp], Floats]:
    """By point: the number of its hottest cell, and the heat there."""
    flat = heat.reshape(-1, heat.shape[2])
    if not np.isfinite(flat).all():
        raise ValueError("values that are not finite")
    return flat.argmax(axis=0), flat.max(axis=0)


def _channels_last(heat: Floats, size: Size) -> Floats:
    """Heat maps (H, W, K), whichever way they come: their cells must be as the picture's own shape is."""
    last, first = (_fits(rows_columns, size) for rows_columns in (heat.shape[:2], heat.shape[1:]))
    if last == first:
        raise ValueError(f"{heat.shape}; cannot tell rows and columns from points, for a picture of {size}")
    return heat if last else heat.transpose(1, 2, 0)


def _fits(cells: tuple[int, ...], size: Size) -> bool:
    strides = [pixels / cell for pixels, cell in zip(size, cells, strict=True)]
    return min(strides) >= 1 and math.isclose(*strides, rel_tol=0.05)


def _points(guess: Guess) -> Floats:
    if not isinstance(guess.detail, Pose):
        raise ValueError("poses: an answer without one")
    return np.array([(p.top, p.left, p.score) for p in guess.detail.points], np.float32)
