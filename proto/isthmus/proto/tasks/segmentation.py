"""A class for each pixel. Pure."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.tasks.inflation import inflated
from isthmus.proto.tasks.task import Arrays, Packed
from isthmus.proto.vocabulary import Guess, Mask

HALF = 0.5
"""A pixel that is likelier class 1 than not is of class 1."""
MASK_ROOM_BYTES = 60_000
"""A mask that does not shrink to this crosses at half its size, as often as it takes."""
MOST_PIXELS = 4_000_000
"""A mask of more crosses at half its size: counting its classes takes eight bytes for each pixel."""


def _classes(scores: NDArray[Any]) -> NDArray[Any]:
    """The class of each pixel. Raises ValueError when a single channel holds no probabilities."""
    if scores.ndim != 3 or scores.shape[-1] > 1:
        return scores.argmax(axis=-1) if scores.ndim == 3 else scores
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("a mask of one channel must hold probabilities; end the model with a sigmoid")
    return scores[..., 0] > HALF


class Segmentation:
    """A class for each pixel: `outputs` are classes (H, W), scores (H, W, K), or the probability of class 1 (H, W, 1)."""

    def __init__(self, *, classes: int | None = None) -> None:
        self._classes = classes

    def pack(self, outputs: Arrays) -> Packed:
        """Height, width, and the mask deflated."""
        mask = _classes(outputs[0]).astype(np.uint8)
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
        counts = np.bincount(np.frombuffer(inflated(packed[4:], height * width, "mask"), np.uint8)).tolist()
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
    return np.frombuffer(inflated(mask.deflated, mask.height * mask.width, "mask"), np.uint8).reshape(
        mask.height, mask.width
    )
