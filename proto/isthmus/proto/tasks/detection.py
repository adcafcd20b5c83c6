"""Things in a picture, and where. Pure."""

from __future__ import annotations

import numpy as np

from isthmus.proto.tasks import boxes as reading
from isthmus.proto.tasks.boxes import Boxes, Size
from isthmus.proto.tasks.classification import MOST_CLASSES, ROUNDING
from isthmus.proto.tasks.task import Arrays, Packed
from isthmus.proto.vocabulary import Box, Guess

SAME_PLACE = 0.5
"""Boxes that overlap so much (intersection over union) are of one thing (Everingham et al. 2010)."""
ROW_BYTES = 24


class Detection:
    """Boxes, class-wise free of doubles, surest first."""

    def __init__(self, boxes: Boxes | None = None, size: Size = (1, 1), *, classes: int | None = None) -> None:
        """`size` is the picture that the network takes, for outputs in pixels or cells of it."""
        self.boxes, self.size = boxes or Boxes(), size
        self._classes = MOST_CLASSES if classes is None else classes

    def pack(self, outputs: Arrays) -> Packed:
        """Class, score and place of the answer's boxes. Raises ValueError when the outputs are of another form."""
        rows = reading.decoded(outputs, self.boxes, self.size)
        return reading.suppressed(rows, self.boxes.overlap, self.boxes.most).astype("<f4").tobytes()

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The boxes, surest first; label and confidence are the first one's, or 0 and what an empty picture is worth."""
        packed = packed or b""  # of no boxes nothing crosses
        if not isinstance(packed, bytes) or len(packed) % ROW_BYTES or len(packed) > ROW_BYTES * self.boxes.most:
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
        found = tuple(Box(int(row[0]), *row[1:]) for row in rows.tolist())
        return Guess(found[0].label, found[0].score, found) if found else Guess(0, accuracy, found)

    def agreement(self, one: Guess, other: Guess) -> float:
        """F1 of one answer's boxes against the other's: same class, same place, each matched once."""
        a, b = _boxes(one), _boxes(other)
        if not a and not b:
            return 1.0
        left, matched = list(b), 0
        for box in a:
            match = max((c for c in left if c.label == box.label), key=lambda c: overlap(box, c), default=None)
            if match is not None and overlap(box, match) >= SAME_PLACE:
                left.remove(match)
                matched += 1
        return 2 * matched / (len(a) + len(b))


def _boxes(guess: Guess) -> tuple[Box, ...]:
    return guess.detail if isinstance(guess.detail, tuple) else ()


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    shared = max(0.0, height) * max(0.0, width)
    both = (a.bottom - a.top) * (a.right - a.left) + (b.bottom - b.top) * (b.right - b.left) - shared
    return shared / both if both > 0 else 0.0
