"""What a network's outputs mean: packed for the wire on the server, read as an answer on the device. Pure.

A task is one class with three verbs, and one line of registration: `pack` outputs -> what crosses, `guess` what crossed ->
an answer, `agreement` of two answers, 0 to 1. Nobody else knows classes from masks from boxes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.vocabulary import Box, Guess, Mask

Packed = tuple[float, ...] | bytes
"""What crosses for one frame: plain numbers, or bytes that only the task can read."""
Arrays = Sequence[NDArray[Any]]
"""A network's outputs for one frame, without the batch, in the network's own order."""

FEW = 64
"""Up to so many classes all logits cross; of more, the `TOP` greatest and the weight of the rest."""
TOP = 16
"""The greatest logits that cross then, each with its class: 100 bytes with the rest, against 4 a class."""
LEAST = np.float32(1e-5)
"""What a probability of zero may have been before an 8-bit softmax rounded it."""
MASK_ROOM_BYTES = 60_000
"""A mask that does not shrink to this crosses at half its size, as often as it takes."""
BOXES = 128
"""The most boxes that cross for one picture: the surest ones."""
SEEN = 0.5
"""Boxes less sure than this are not counted when two answers are compared."""
SAME_PLACE = 0.5
"""Boxes that overlap so much (intersection over union) are of one thing (Everingham et al. 2010)."""
MOST_PIXELS = 4_000_000
"""A mask of more crosses at half its size: counting its classes takes eight bytes for each pixel."""
MOST_CLASSES = 65_536
"""Labels cross in 16 bits."""
ROUNDING = 0.01
"""By so much may a score lie outside 0 to 1, and the rest above what it can be: the outputs may have been 8-bit."""


class Task(Protocol):
    """One kind of answer. `temperature` calibrates logits; `accuracy` is what an answer of this kind is worth on average.

    A task that knows how many `classes` there are refuses answers of any other.
    """

    def pack(self, outputs: Arrays) -> Packed:
        """What crosses."""

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The answer. Raises ValueError when it cannot be read or holds numbers that are not finite."""

    def agreement(self, one: Guess, other: Guess) -> float:
        """How well two answers to one picture agree, 0 to 1."""


class Classification:
    """One class of K: `outputs` are logits (K,), or probabilities where the network ends in a softmax."""

    def __init__(self, *, classes: int | None = None, probabilities: bool = False) -> None:
        self._classes, self._probabilities = classes, probabilities

    def logits(self, outputs: Arrays) -> NDArray[np.float32]:
        """(K,) logits, up to a constant: softmax(log p) = p."""
        z = np.asarray(outputs[0], np.float32).ravel()
        return np.log(np.maximum(z, LEAST)) if self._probabilities else z

    def pack(self, outputs: Arrays) -> Packed:
        """Logits; of many classes only the greatest, and log Σ exp of the rest."""
        z = self.logits(outputs)
        if len(z) <= FEW:
            return tuple(z.tolist())
        order = np.argpartition(-z, TOP)
        top, rest = order[:TOP], z[order[TOP:]].astype(np.float64)
        most = float(rest.max())
        rest_sum = most + math.log(float(np.exp(rest - most).sum()))
        return struct.pack(f"<{TOP}H{TOP}ff", *top.tolist(), *z[top].tolist(), rest_sum)

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The class of the greatest logit; softmax(logits / temperature) is its calibrated probability (Guo et al. 2017)."""
        labels, logits = self._greatest(packed) if isinstance(packed, bytes) else self._all(packed)
        if not logits or not all(map(math.isfinite, logits)):
            raise ValueError(f"logits: {len(logits)} values, not all finite; the model or its outputs are damaged")
        named = logits[: len(labels)]  # behind them, the rest as one
        if len(logits) > len(labels) and logits[-1] > min(named) + math.log(self._classes or MOST_CLASSES) + ROUNDING:
            raise ValueError(
                f"classes: a rest of {logits[-1]:g}, each of it at most {min(named):g}; its tail is damaged"
            )
        best, top = max(named), max(logits)
        total = sum(math.exp((x - top) / temperature) for x in logits)  # at least 1, and nothing can overflow
        return Guess(labels[named.index(best)], math.exp((best - top) / temperature) / total)

    def _all(self, packed: tuple[float, ...]) -> tuple[Sequence[int], Sequence[float]]:
        if self._classes is not None and len(packed) != self._classes:
            raise ValueError(
                f"logits: {len(packed)} values for {self._classes} classes; compare the two halves' bundles"
            )
        return range(len(packed)), packed

    def _greatest(self, packed: bytes) -> tuple[Sequence[int], Sequence[float]]:
        if len(packed) != struct.calcsize(f"<{TOP}H{TOP}ff") or (self._classes is not None and self._classes <= FEW):
            raise ValueError(f"classes: {len(packed)} bytes; compare the two halves' versions")
        values = struct.unpack(f"<{TOP}H{TOP}ff", packed)
        labels, logits = values[:TOP], values[TOP:]
        if len(set(labels)) < TOP or (self._classes is not None and max(labels) >= self._classes):
            raise ValueError(
                f"classes: {sorted(labels)}, expected {TOP} different ones of {self._classes or MOST_CLASSES}"
            )
        return labels, logits

    def agreement(self, one: Guess, other: Guess) -> float:
        """1 where both answers are the same class, else 0."""
        return float(one.label == other.label)


class Segmentation:
    """A class for each pixel: `outputs` are classes (H, W), or scores (H, W, K)."""

    def __init__(self, *, classes: int | None = None) -> None:
        self._classes = classes

    def pack(self, outputs: Arrays) -> Packed:
        """Height, width, and the mask deflated."""
        mask = outputs[0].argmax(axis=-1) if outputs[0].ndim == 3 else outputs[0]
        mask = mask.astype(np.uint8)
        while mask.size > MOST_PIXELS or len(coded := zlib.compress(mask.tobytes(), 6)) > MASK_ROOM_BYTES:
            mask = mask[::2, ::2]
        return struct.pack("<HH", *mask.shape) + coded

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The mask; its label is the class that covers most, background (0) only where there is nothing else."""
        if not isinstance(packed, bytes) or len(packed) < 4:
            raise ValueError("mask: not there; compare the two halves' versions")
        height, width = struct.unpack("<HH", packed[:4])
        if height * width > MOST_PIXELS:
            raise ValueError(f"mask: {height} x {width} pixels, expected {MOST_PIXELS} at most")
        counts = np.bincount(np.frombuffer(_inflated(packed[4:], height * width), np.uint8)).tolist()
        if self._classes is not None and len(counts) > self._classes:
            raise ValueError(
                f"mask: class {len(counts) - 1}, there are {self._classes}; compare the two halves' bundles"
            )
        covered = {label: count / (height * width) for label, count in enumerate(counts) if count}
        label = max((label for label in covered if label), key=lambda k: covered[k], default=0)
        return Guess(label, accuracy, Mask(height, width, packed[4:], covered))

    def agreement(self, one: Guess, other: Guess) -> float:
        """Mean intersection over union of the classes that either mask has."""
        both = overlap(one, other)
        return float(np.mean([shared / either for shared, either in both.values()]))


def overlap(one: Guess, other: Guess) -> dict[int, tuple[int, int]]:
    """Pixels in the intersection and in the union of two masks, by class. ValueError without two masks of one size."""
    if not isinstance(one.detail, Mask) or not isinstance(other.detail, Mask):
        raise ValueError("masks: an answer without one")
    a, b = pixels(one.detail).astype(np.intp), pixels(other.detail).astype(np.intp)
    if a.shape != b.shape:
        raise ValueError(f"masks: {a.shape} against {b.shape}")
    classes = 1 + max(int(a.max()), int(b.max()))
    shared = np.bincount(a[a == b], minlength=classes)
    either = np.bincount(a.ravel(), minlength=classes) + np.bincount(b.ravel(), minlength=classes) - shared
    return {k: (int(shared[k]), int(either[k])) for k in range(classes) if either[k]}


def pixels(mask: Mask) -> NDArray[np.uint8]:
    """The class of each pixel: (H, W)."""
    return np.frombuffer(_inflated(mask.deflated, mask.height * mask.width), np.uint8).reshape(mask.height, mask.width)


def _inflated(coded: bytes, size: int) -> bytes:
    """Exactly `size` bytes, whatever is in `coded`."""
    try:
        raw = zlib.decompressobj().decompress(coded, size + 1)
    except zlib.error as error:
        raise ValueError(f"mask: damaged ({error})") from error
    if not size or len(raw) != size:
        raise ValueError(f"mask: {len(raw)} pixels, expected {size}")
    return raw


class Detection:
    """Boxes: `outputs` are places (N, 4) as top, left, bottom, right in shares of the picture, classes (N,), scores (N,),
    and, optionally, how many of them count.
    """

    def __init__(self, *, classes: int | None = None) -> None:
        self._classes = MOST_CLASSES if classes is None else classes

    def pack(self, outputs: Arrays) -> Packed:
        """Class, score and place of the surest boxes."""
        places, classes, scores = (np.asarray(array, np.float32) for array in outputs[:3])
        count = int(outputs[3].ravel()[0]) if len(outputs) > 3 else len(scores)
        order = np.argsort(-scores[:count], kind="stable")[:BOXES]
        rows = np.column_stack([classes[order], scores[order], places[order]])
        return rows.astype("<f4").tobytes()

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The boxes, surest first; label and confidence are the first one's, or 0 and what an empty picture is worth."""
        packed = packed or b""  # of no boxes nothing crosses
        if not isinstance(packed, bytes) or len(packed) % 24 or len(packed) > 24 * BOXES:
            raise ValueError("boxes: not whole; compare the two halves' versions")
        rows = np.frombuffer(packed, "<f4").reshape(-1, 6)
        if not np.isfinite(rows).all():
            raise ValueError("boxes: values that are not finite; the model or its outputs are damaged")
        classes, scores = rows[:, 0], rows[:, 1]
        if ((classes < 0) | (classes >= self._classes)).any():
            raise ValueError(
                f"boxes: class {classes.max():g}, there are {self._classes}; compare the two halves' bundles"
            )
        if (abs(scores - 0.5) > 0.5 + ROUNDING).any() or (np.diff(scores) > 0).any():
            raise ValueError(
                "boxes: scores that are not shares, the surest first; the model or its outputs are damaged"
            )
        boxes = tuple(Box(int(row[0]), *row[1:]) for row in rows.tolist())
        return Guess(boxes[0].label, boxes[0].score, boxes) if boxes else Guess(0, accuracy, boxes)

    def agreement(self, one: Guess, other: Guess) -> float:
        """F1 of one answer's boxes against the other's: same class, same place, each matched once."""
        a, b = _seen(one), _seen(other)
        if not a and not b:
            return 1.0
        left, matched = list(b), 0
        for box in a:
            match = max((c for c in left if c.label == box.label), key=lambda c: _iou(box, c), default=None)
            if match is not None and _iou(box, match) >= SAME_PLACE:
                left.remove(match)
                matched += 1
        return 2 * matched / (len(a) + len(b))


def _seen(guess: Guess) -> list[Box]:
    return [box for box in guess.detail if box.score >= SEEN] if isinstance(guess.detail, tuple) else []


def _iou(a: Box, b: Box) -> float:
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    shared = max(0.0, height) * max(0.0, width)
    both = (a.bottom - a.top) * (a.right - a.left) + (b.bottom - b.top) * (b.right - b.left) - shared
    return shared / both if both > 0 else 0.0


TASKS: dict[str, Callable[..., Task]] = {
    "classification": Classification,
    "classification-probabilities": partial(Classification, probabilities=True),
    "segmentation": Segmentation,
    "detection": Detection,
}
"""Every task, by the name that a bundle gives it; each takes `classes`, how many there are."""
