"""Answers that are numbers: an embedding, whose direction counts, and any outputs as they are. Pure."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.tasks.inflation import inflated
from isthmus.proto.tasks.task import Arrays, Packed
from isthmus.proto.vocabulary import Embedding, Guess, Values

ROOM_BYTES = 60_000
"""What may cross for one answer."""
MOST_VALUES = 1 << 20
"""More are not unfolded, whoever sends them."""
MOST_OUTPUTS, MOST_DIMENSIONS = 64, 8
COUNTS, SCALE = struct.Struct("<BB"), struct.Struct("<f")
LEVELS = 127


class Embeddings:
    """A vector whose direction tells what a picture shows: `outputs` are D values in any shape, in one output."""

    def __init__(self, *, classes: int | None = None) -> None:
        """There are no classes, however many are named."""

    def pack(self, outputs: Arrays) -> Packed:
        """A scale and D signed bytes: of a direction they keep all but a ten-thousandth. Raises ValueError for what is none."""
        vector = np.asarray(outputs[0], np.float32).ravel()
        if len(outputs) != 1 or not 2 <= len(vector) <= ROOM_BYTES:
            raise ValueError(
                f"{len(outputs)} outputs, {len(vector)} values; one of 2 to {ROOM_BYTES} values is expected"
            )
        greatest = float(np.abs(vector).max())
        if not math.isfinite(greatest):
            raise ValueError("values that are not finite")
        scale = greatest / LEVELS
        directions = np.rint(vector / (scale or 1)).astype(np.int8)
        return SCALE.pack(scale) + bytes(directions.tobytes())

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The vector; as sure as its operating point is good."""
        if not isinstance(packed, bytes) or not SCALE.size < len(packed) <= SCALE.size + ROOM_BYTES:
            raise ValueError("embedding: not there; compare the two halves' versions")
        (scale,) = SCALE.unpack_from(packed)
        if not 0 <= scale < math.inf:
            raise ValueError("embedding: values that are not finite; the model or its outputs are damaged")
        return Guess(0, accuracy, Embedding(scale, packed[SCALE.size :]))

    def agreement(self, one: Guess, other: Guess) -> float:
        """The cosine of the angle between two vectors, at least 0."""
        a, b = _direction(one), _direction(other)
        if a.shape != b.shape:
            raise ValueError(f"embeddings: {len(a)} values against {len(b)}")
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        return min(max(0.0, float(a @ b) / length), 1.0) if length else float(not a.any() and not b.any())


class Tensors:
    """Any outputs, of any shapes: numbers for a program of one's own."""

    def __init__(self, *, classes: int | None = None) -> None:
        """There are no classes, however many are named."""

    def pack(self, outputs: Arrays) -> Packed:
        """Shapes and scales, then all values as float16, deflated. Raises ValueError when that is too much to send back."""
        arrays = [np.asarray(a, np.float32) for a in outputs]
        shapes = [a.shape for a in arrays]
        if not 1 <= len(arrays) <= MOST_OUTPUTS or max(map(len, shapes)) > MOST_DIMENSIONS:
            raise ValueError(f"{len(arrays)} outputs; 1 to {MOST_OUTPUTS} of {MOST_DIMENSIONS} dimensions are expected")
        scales = [float(np.abs(a).max(initial=0)) for a in arrays]
        if not all(map(math.isfinite, scales)):
            raise ValueError("values that are not finite")
        whole = np.concatenate([(a / (s or 1)).ravel() for a, s in zip(arrays, scales, strict=True)])
        coded = zlib.compress(whole.astype("<f2").tobytes(), 6)
        if len(coded) > ROOM_BYTES or len(whole) > MOST_VALUES:
            raise ValueError(f"{len(whole):,} values take {len(coded):,} bytes, an answer may have {ROOM_BYTES:,}")
        heads = [
            COUNTS.pack(len(arrays), len(shape)) + struct.pack(f"<{len(shape)}If", *shape, scale)
            for shape, scale in zip(shapes, scales, strict=True)
        ]
        return b"".join([*heads, coded])

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The outputs; as sure as their operating point is good."""
        try:
            values = _read(packed if isinstance(packed, bytes) else b"")
        except struct.error as error:
            raise ValueError("values: not whole; compare the two halves' versions") from error
        arrays_of(values)
        return Guess(0, accuracy, values)

    def agreement(self, one: Guess, other: Guess) -> float:
        """One less the relative error |a - b| / |b| of each output (Euclidean lengths), at least 0; their mean.

        An output of another shape than before agrees in nothing.
        """
        if not isinstance(one.detail, Values) or not isinstance(other.detail, Values):
            raise ValueError("values: an answer without any")
        a, b = arrays_of(one.detail), arrays_of(other.detail)
        if len(a) != len(b):
            raise ValueError(f"values: {len(a)} outputs against {len(b)}")
        return float(np.mean([_alike(x, y) for x, y in zip(a, b, strict=True)]))


def vector_of(embedding: Embedding) -> NDArray[np.float32]:
    """The values (D,) of an embedding."""
    return np.frombuffer(embedding.values, np.int8).astype(np.float32) * np.float32(embedding.scale)


def arrays_of(values: Values) -> list[NDArray[np.float32]]:
    """The outputs, in their shapes. Raises ValueError when they are damaged."""
    counts = [math.prod(shape) for shape in values.shapes]
    if sum(counts) > MOST_VALUES:
        raise ValueError(f"values: {sum(counts)} of them, expected {MOST_VALUES} at most")
    raw = inflated(values.deflated, 2 * sum(counts), "values") if sum(counts) else b""
    whole = np.frombuffer(raw, "<f2").astype(np.float32)
    if not np.isfinite(whole).all():
        raise ValueError("values: some are not finite; the model or its outputs are damaged")
    parts = np.split(whole, np.cumsum(counts)[:-1])
    return [
        part.reshape(shape) * np.float32(scale)
        for part, shape, scale in zip(parts, values.shapes, values.scales, strict=True)
    ]


def _read(packed: bytes) -> Values:
    """Raises ValueError or struct.error for bytes that hold no outputs."""
    shapes: list[tuple[int, ...]] = []
    scales: list[float] = []
    at, left = 0, 1
    while left:
        count, dimensions = COUNTS.unpack_from(packed, at)
        if not 1 <= count <= MOST_OUTPUTS or dimensions > MOST_DIMENSIONS:
            raise ValueError("values: not whole; compare the two halves' versions")
        *shape, scale = struct.unpack_from(f"<{dimensions}If", packed, at + COUNTS.size)
        if not 0 <= scale < math.inf:
            raise ValueError("values: some are not finite; the model or its outputs are damaged")
        shapes.append(tuple(shape))
        scales.append(scale)
        at += COUNTS.size + SCALE.size + 4 * dimensions
        left = count - len(shapes)
    return Values(tuple(shapes), tuple(scales), packed[at:])


def _direction(guess: Guess) -> NDArray[np.float32]:
    if not isinstance(guess.detail, Embedding):
        raise ValueError("embeddings: an answer without one")
    return np.frombuffer(guess.detail.values, np.int8).astype(np.float32)


def _alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    if a.shape != b.shape:
        return 0.0
    length, error = float(np.linalg.norm(b)), float(np.linalg.norm(a - b))
    return max(0.0, 1 - error / length) if length else float(error == 0)
