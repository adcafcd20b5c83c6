"""Where the boxes stand in a detector's outputs: one decoder for each family of them. Pure.

A decoder takes a network's outputs for one picture and gives rows of (class, score, top, left, bottom, right), places in
shares of the network's own picture. Which decoder, and the rest of what it must know, is `[boxes]` in `bundle.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Arrays = Sequence[NDArray[Any]]
Size = tuple[int, int]
"""(height, width) in pixels of the picture that a network takes."""
Family = Literal["places", "rows", "cells", "yolov5", "yolov8", "yolox", "fastestdet", "nanodet", "blazeface"]
STRIDES = (8, 16, 32)
"""Pixels between the cells of the levels that these families predict at."""
BINS = 8
"""NanoDet tells each side's distance as a distribution over so many strides (generalised focal loss, Li et al. 2020)."""
FACE = 16
"""BlazeFace tells a place and six points of each face, in pixels from its cell's middle."""
SURELY, LONGEST = 80.0, 5.0
"""Logits beyond this are as sure as numbers can be; and the logarithm of a box's side in cells, as in training."""
OBJECTNESS, CLASS = 0.6, 0.4
"""FastestDet's score is objectness^0.6 * class^0.4, as its authors evaluate it."""


class Boxes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a detector's outputs are read."""

    decoder: Family = "places"
    """`places`: places (N, 4), classes (N,), scores (N,) and maybe their count; `rows`: (N, 6) of place, score, class, as a
    graph gives it that suppresses by itself; `cells`: one map, as Isthmus trains it; the others: what networks of this
    family give raw."""
    form: Literal["tlbr", "ltrb", "center"] = "tlbr"
    """Of `places` and `rows`: top, left, bottom, right; left, top, right, bottom; or center x, center y, width, height."""
    unit: Literal["shares", "pixels"] = "shares"
    """Of places that the network computes to the end: shares of its picture, or pixels."""
    order: tuple[int, ...] = (0, 1, 2, 3)
    """Of `places`: which outputs are places, classes, scores and their count."""
    score: float = 0.3
    """Boxes less sure than this are not part of an answer."""
    overlap: float = 0.5
    """Of two boxes of one class that overlap more (intersection over union), the surer stays; 1 keeps all."""
    most: int = 100
    """The surest so many boxes make an answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1 or not 0 < self.overlap <= 1 or self.most < 1:
            raise ValueError("score and overlap are shares of 1, most is 1 at least")
        if len(self.order) not in (3, 4) or sorted(set(self.order)) != sorted(self.order) or min(self.order) < 0:
            raise ValueError("order numbers three or four outputs from 0, each once")


def decoded(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """Rows (N, 6) of every box that is sure enough, none suppressed yet, for a network that takes pictures of `size`.

    Raises ValueError when the outputs are of another form.
    """
    rows = DECODERS[boxes.decoder](outputs, boxes, size)
    return rows[rows[:, 1] >= boxes.score]


def suppressed(rows: Floats, overlap: float, most: int) -> Floats:
    """The surest rows first, without those that lie over a surer one of their own class (greedy non-maximum suppression)."""
    rows = rows[np.argsort(-rows[:, 1], kind="stable")]
    kept: list[int] = []
    if overlap == 1:
        return rows[:most]
    left = np.arange(len(rows))
    while len(left) and len(kept) < most:
        first, rest = left[0], left[1:]
        kept.append(int(first))
        same = rows[rest, 0] == rows[first, 0]
        left = rest[~(same & (overlaps(rows[first, 2:], rows[rest, 2:]) > overlap))]
    return rows[kept]


def overlaps(place: Floats, places: Floats) -> Floats:
    """Intersection over union of one place (4,) with each of (N, 4)."""
    top_left, bottom_right = np.maximum(place[:2], places[:, :2]), np.minimum(place[2:], places[:, 2:])
    shared = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
    areas = np.prod(places[:, 2:] - places[:, :2], axis=1) + np.prod(place[2:] - place[:2])
    both = areas - shared
    return np.asarray(np.divide(shared, both, out=np.zeros_like(shared), where=both > 0), np.float32)


def _rows(classes: NDArray[Any], scores: NDArray[Any], places: NDArray[Any]) -> Floats:
    return np.column_stack([classes, scores, places]).astype(np.float32)


def _surest(scores: NDArray[Any], boxes: Boxes) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Of class scores (N, K): which rows are sure enough, their classes, and their scores."""
    best = scores.max(axis=1)
    sure = np.flatnonzero(best >= boxes.score)
    return sure, scores[sure].argmax(axis=1), best[sure]


def _corners(places: NDArray[Any], form: str, of: Size = (1, 1)) -> Floats:
    """Places (N, 4) of a form, in shares or pixels `of` a picture, as top, left, bottom, right in shares."""
    a = np.asarray(places, np.float32)
    if form == "center":
        a = np.column_stack(
            [a[:, 1] - a[:, 3] / 2, a[:, 0] - a[:, 2] / 2, a[:, 1] + a[:, 3] / 2, a[:, 0] + a[:, 2] / 2]
        )
    elif form == "ltrb":
        a = a[:, [1, 0, 3, 2]]
    return np.asarray(a / np.array([*of, *of], np.float32), np.float32)


def _unit(boxes: Boxes, size: Size) -> Size:
    return size if boxes.unit == "pixels" else (1, 1)


def _places(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """Places, classes, scores, and how many of them count: TensorFlow's SSD, or a graph that ends before suppression."""
    if len(outputs) < 3:
        raise ValueError(f"{len(outputs)} outputs; places, classes and scores are expected")
    places, classes, scores = (np.asarray(outputs[i], np.float32) for i in boxes.order[:3])
    count = len(boxes.order) > 3 and boxes.order[3] < len(outputs)
    n = int(np.ravel(outputs[boxes.order[3]])[0]) if count else scores.size
    if places.ndim != 2 or places.shape[1] != 4 or classes.size != len(places) or scores.size != len(places):
        raise ValueError(
            f"places {places.shape}, classes {classes.shape}, scores {scores.shape}; (N, 4), (N,), (N,) expected"
        )
    n = min(max(n, 0), len(places))
    return _rows(classes.ravel()[:n], scores.ravel()[:n], _corners(places[:n], boxes.form, _unit(boxes, size)))


def _suppressing(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(N, 6) of place, score, class, or (N, 7) with the picture's number in front: a graph that suppresses by itself."""
    a = _matrix(outputs, 6)[:, -6:]
    return _rows(a[:, 5], a[:, 4], _corners(a[:, :4], boxes.form, _unit(boxes, size)))


def _yolov5(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(N, 5 + K): center, size, objectness, classes (YOLOv5, v6, v7)."""
    a = _matrix(outputs, 6)
    sure, classes, scores = _surest(a[:, 5:] * a[:, 4:5], boxes)
    return _rows(classes, scores, _corners(a[sure, :4], "center", _unit(boxes, size)))


def _yolov8(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(4 + K, N): center, size, classes (YOLOv8 and later, and what Ultralytics exports of them)."""
    a = _matrix(outputs, 1).T
    sure, classes, scores = _surest(a[:, 4:], boxes)
    return _rows(classes, scores, _corners(a[sure, :4], "center", _unit(boxes, size)))


def _yolox(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(N, 5 + K): center and logarithm of size in cells, objectness, classes (YOLOX, Ge et al. 2021)."""
    a = _matrix(outputs, 6)
    cells, stride = cells_of(size, STRIDES, len(a))
    sure, classes, scores = _surest(a[:, 5:] * a[:, 4:5], boxes)
    center, extent = (a[sure, :2] + cells[sure]) * stride[sure], np.exp(a[sure, 2:4]) * stride[sure]
    return _rows(classes, scores, _corners(np.hstack([center, extent]), "center", size))


def _fastestdet(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(5 + K, H, W): objectness, offset and size before tanh and sigmoid, classes; or the same with channels last."""
    a = np.asarray(outputs[0], np.float32)
    if a.ndim != 3:
        raise ValueError(f"{a.shape}; (5 + classes, rows, columns) expected")
    if a.shape[0] == a.shape[1]:  # rows and columns are as many: channels come last
        a = a.transpose(2, 0, 1)
    height, width = a.shape[1:]
    a = a.reshape(len(a), -1)  # (5 + K, cells)
    sure, classes, scores = _surest((a[0] ** OBJECTNESS * a[5:] ** CLASS).T, boxes)
    at = np.column_stack([sure % width, sure // width])
    center = (at + np.tanh(a[1:3, sure].T)) / (width, height)
    extent = 1 / (1 + np.exp(-a[3:5, sure].T))
    return _rows(classes, scores, _corners(np.hstack([center, extent]), "center"))


def _nanodet(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(N, K + 4 * BINS): classes, and the distance of each side as a distribution over strides (NanoDet, NanoDet-Plus)."""
    levels = sorted(outputs, key=len, reverse=True)
    if len(outputs) > 1:  # a pair of matrices for each level
        pairs = [sorted(levels[i : i + 2], key=lambda m: m.shape[-1] == 4 * BINS) for i in range(0, len(levels), 2)]
        outputs = [np.concatenate([np.hstack(pair) for pair in pairs])]
    a = _matrix(outputs, 4 * BINS + 1)
    plus = len(a) == cell_count(size, (*STRIDES, 64))
    cells, stride = cells_of(size, (*STRIDES, 64) if plus else STRIDES, len(a))
    sure, classes, scores = _surest(a[:, : -4 * BINS], boxes)
    weight = np.exp(a[sure, -4 * BINS :].reshape(-1, 4, BINS))
    sides = (weight * np.arange(BINS)).sum(2) / weight.sum(2) * stride[sure]  # left, top, right, bottom
    at = (cells[sure] + (0.0 if plus else 0.5)) * stride[sure]
    return _rows(classes, scores, _corners(np.hstack([at - sides[:, :2], at + sides[:, 2:]]), "ltrb", size))


def _blazeface(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(N, 16) of center, size and six points in pixels from the cell's middle, and logits (N, 1): MediaPipe's faces."""
    if len(outputs) != 2:
        raise ValueError(f"{len(outputs)} outputs; places (N, {FACE}) and logits (N, 1) are expected")
    places, logits = sorted((np.asarray(a, np.float32) for a in outputs), key=lambda a: -a.shape[-1])
    if places.ndim != 2 or places.shape[1] != FACE or logits.size != len(places):
        raise ValueError(f"{places.shape} and {logits.shape}; (N, {FACE}) and (N, 1) are expected")
    anchors = face_anchors(size)
    if len(places) not in anchors:
        raise ValueError(
            f"{len(places)} cells; a picture of {size[0]} x {size[1]} pixels has {' or '.join(map(str, anchors))}"
        )
    scores = 1 / (1 + np.exp(-np.clip(logits.ravel(), -SURELY, SURELY)))
    center = places[:, :2] + anchors[len(places)]
    return _rows(np.zeros(len(places)), scores, _corners(np.hstack([center, places[:, 2:4]]), "center", size))


def face_anchors(size: Size) -> dict[int, Floats]:
    """The middles (x, y) of BlazeFace's cells in pixels, by how many there are: the full range's, and the short range's."""

    def middles(stride: int, times: int) -> Floats:
        cells, _ = cells_of(size, (stride,), cell_count(size, (stride,)))
        return np.repeat((cells + 0.5) * np.float32(stride), times, axis=0)

    ranges = middles(4, 1), np.concatenate([middles(8, 2), middles(16, 6)])
    return {len(anchors): anchors for anchors in ranges}


def cell_count(size: Size, strides: Sequence[int]) -> int:
    """How many cells all levels together have on a picture of (height, width) pixels."""
    return sum(-(-size[0] // s) * -(-size[1] // s) for s in strides)


def cells_of(size: Size, strides: Sequence[int], expected: int) -> tuple[Floats, Floats]:
    """Each cell's (x, y) within its level, and its stride (N, 1). ValueError unless there are as many as expected."""
    if (n := cell_count(size, strides)) != expected:
        raise ValueError(f"{expected} cells; a picture of {size[0]} x {size[1]} pixels has {n} at strides {strides}")
    at, stride = [], []
    for s in strides:
        rows, columns = -(-size[0] // s), -(-size[1] // s)
        y, x = np.mgrid[:rows, :columns]
        at.append(np.column_stack([x.ravel(), y.ravel()]))
        stride.append(np.full((rows * columns, 1), s))
    return np.concatenate(at).astype(np.float32), np.concatenate(stride).astype(np.float32)


def _matrix(outputs: Arrays, columns: int) -> Floats:
    a = np.asarray(outputs[0], np.float32)
    if a.ndim != 2 or a.shape[1] < columns:
        raise ValueError(f"{a.shape}; a matrix of {columns} columns or more is expected")
    return a


def _cells(outputs: Arrays, boxes: Boxes, size: Size) -> Floats:
    """(rows, columns, K + 4): class logits, then centre from the cell's middle and logarithm of the size, in cells.

    One level, as the detectors give it that Isthmus trains.
    """
    a = np.asarray(outputs[0], np.float32)
    if a.ndim != 3 or a.shape[2] < 5:
        raise ValueError(f"{a.shape}; (rows, columns, classes + 4) expected")
    rows, columns, values = a.shape
    a = a.reshape(-1, values)
    sure, classes, scores = _surest(1 / (1 + np.exp(-np.clip(a[:, :-4], -SURELY, SURELY))), boxes)
    at = np.column_stack([sure % columns, sure // columns]) + 0.5
    extent = np.exp(np.clip(a[sure, -2:], -LONGEST, LONGEST))
    return _rows(classes, scores, _corners(np.hstack([at + a[sure, -4:-2], extent]), "center", (rows, columns)))


DECODERS: dict[Family, Callable[[Arrays, Boxes, Size], Floats]] = {
    "places": _places,
    "rows": _suppressing,
    "cells": _cells,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolox": _yolox,
    "fastestdet": _fastestdet,
    "nanodet": _nanodet,
    "blazeface": _blazeface,
}
"""By the name that `[boxes]` gives them."""
