"""A value for each pixel: depth, disparity, heat. Pure."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.tasks.inflation import inflated
from isthmus.proto.tasks.segmentation import MASK_ROOM_BYTES, MOST_PIXELS
from isthmus.proto.tasks.task import Arrays, Packed
from isthmus.proto.vocabulary import Depth, Guess

HEADER = struct.Struct("<HHff")
LEVELS = 255
"""A map crosses in so many levels between its least and its greatest value, and one more: an error of 0.2 % at most."""
EQUAL = 1 / LEVELS
"""Of a map's span: where nearly all pixels have one value, what they differ by counts for no less, which is rounding."""


class DepthEstimation:
    """A value for each pixel: `outputs` are (H, W) or (H, W, 1), in whatever unit the network has."""

    def __init__(self, *, classes: int | None = None) -> None:
        """A map has no classes, however many are named."""

    def pack(self, outputs: Arrays) -> Packed:
        """Height, width, the least and the greatest value, and the levels. Raises ValueError for what is no map."""
        a = np.asarray(outputs[0], np.float32)
        a = a[..., 0] if a.ndim == 3 and a.shape[-1] == 1 else a
        if a.ndim != 2 or len(outputs) != 1 or min(a.shape) < 2:
            raise ValueError(f"{a.shape}; one map (H, W) of values is expected")
        if not np.isfinite(a).all():
            raise ValueError("values that are not finite")
        while a.size > MOST_PIXELS or len(coded := _deflated(a)) > MASK_ROOM_BYTES:
            a = a[::2, ::2]
        return HEADER.pack(*a.shape, float(a.min()), float(a.max())) + coded

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The map; it has no class, and is as sure as its operating point is good."""
        if not isinstance(packed, bytes) or len(packed) < HEADER.size:
            raise ValueError("depth: not there; compare the two halves' versions")
        height, width, low, high = HEADER.unpack_from(packed)
        if height * width > MOST_PIXELS:
            raise ValueError(f"depth: {height} x {width} pixels, expected {MOST_PIXELS} at most")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError("depth: values that are not finite; the model or its outputs are damaged")
        coded = packed[HEADER.size :]
        inflated(coded, height * width, "depth")
        return Guess(0, accuracy, Depth(height, width, low, high, coded))

    def agreement(self, one: Guess, other: Guess) -> float:
        """One less the error in shares of what there is to know: 1 - sum |a - b| / sum |b - median(b)|, at least 0.

        It does not change when both maps are scaled or shifted, since many networks tell depth up to a scale and a shift. Of a
        map `b` that is flat, the error is in shares of its value.
        """
        a, b = values_of(one).astype(np.float64), values_of(other).astype(np.float64)
        if a.shape != b.shape:
            raise ValueError(f"depth: {a.shape} against {b.shape}")
        error, spread = float(np.abs(a - b).sum()), float(np.abs(b - np.median(b)).sum())
        spread = max(spread, EQUAL * float(np.ptp(b)) * b.size) or float(np.abs(b).sum())
        return max(0.0, 1 - error / spread) if spread else float(error == 0)


def values_of(guess: Guess) -> NDArray[np.float32]:
    """The values (H, W) of an answer. Raises ValueError when it holds no map."""
    if not isinstance(guess.detail, Depth):
        raise ValueError("depth: an answer without one")
    return values(guess.detail)


def values(depth: Depth) -> NDArray[np.float32]:
    """The value of each pixel: (H, W)."""
    return (depth.low + (depth.high - depth.low) / LEVELS * levels(depth)).astype(np.float32)


def levels(depth: Depth) -> NDArray[np.uint8]:
    """The level of each pixel, 0 for the least value and 255 for the greatest: (H, W)."""
    raw = inflated(depth.deflated, depth.height * depth.width, "depth")
    steps = np.frombuffer(raw, np.uint8).reshape(depth.height, depth.width)
    return np.add.accumulate(steps, axis=1, dtype=np.uint8)


def _deflated(a: NDArray[np.float32]) -> bytes:
    a = a.astype(
        np.float64
    )  # a span of float32 values can be as small, or as large, that they themselves can't be divided by it
    level = np.rint((a - a.min()) / (np.ptp(a) or 1.0) * LEVELS).astype(np.uint8)
    return zlib.compress(np.diff(level, axis=1, prepend=np.uint8(0)).tobytes(), 6)
