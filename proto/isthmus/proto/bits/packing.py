"""Features to packed bytes and back: quantise, split into nested layers, several symbols to a byte.

The base has 5 levels, 3 to a byte; a run of bytes that are all zero is one byte of its own. A refinement has 3 levels,
5 to a byte, first those of what is not zero so far, then the rest, since the two differ; it makes the step a third of
what it was. Bytes run along rows, channel by channel, so that each holds neighbours: a byte-wise Huffman code behind it
then goes below one bit for a symbol and sees their correlation. Every operation is one IEEE float32 or integer
operation: the same bytes on every CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import CodecError

LIMIT = 7
"""Symbols of two layers are clipped to -7..7."""
LAYERS = 2
"""The layers of a bundle that was trained for its codec. Features that were not may need finer steps without a nearer clip."""
MAX_LAYERS = 5
"""Symbols of five layers go to 202 on either side: to all that eight bits can hold about their median."""
MAX_STEPS = 1e12
"""Features as far out as this many steps are refused like infinite ones."""
MAX_RUN = 128
"""Every so many bytes, counted from the last, a base byte stands for itself; runs reach up to it."""
ALPHABET = (5**3 + MAX_RUN - 2, *(3**5,) * (MAX_LAYERS - 1))
"""Bytes that occur, by layer: the base's 125 and its runs of 2 to 127, a refinement's 243."""

_LEVELS = (5, *(3,) * (MAX_LAYERS - 1))
_PER_BYTE = (3, *(5,) * (MAX_LAYERS - 1))
_GROUP = 15  # elements that fill whole bytes in both layers
_PLACES = tuple(np.array([v**i for i in range(n)], np.float32) for v, n in zip(_LEVELS, _PER_BYTE, strict=True))
_ZERO = (5**3 - 1) // 2  # the base byte of three zeros
_NOTHING = 255  # stands for no byte, while there is room for one
_RUN = np.array([0, _NOTHING, _ZERO, *range(5**3, ALPHABET[0])], np.uint8)  # by run length + 1: the run's byte
_RUN_LENGTH = np.array([1] * 5**3 + list(range(2, MAX_RUN)) + [0] * (256 - ALPHABET[0]))
_ZERO_BASE = 2  # the base's digit for zero
_STILL_ZERO = 3  # marks, on a refinement's digit, a symbol that is zero so far
_DIGIT_OF = bytes(mark % _STILL_ZERO for mark in range(256))
_ZERO_MARKS, _OTHER_MARKS = bytes(range(_STILL_ZERO, 2 * _STILL_ZERO)), bytes(range(_STILL_ZERO))


def limit(layers: int) -> int:
    """Symbols of so many layers are clipped to this, on either side of zero."""
    levels: int = 5 * 3 ** (layers - 1)
    return (levels - 1) // 2


def _away(symbols: NDArray[np.intp]) -> NDArray[np.intp]:
    """The direction that is away from zero; up, from zero itself."""
    return np.where(symbols < 0, -1, 1)


def _tables(layers: int) -> list[NDArray[np.uint8]]:
    """Tables by symbol + limit: the base's digit 0..4, then each refinement's 0..2, counted away from zero, with its mark."""
    symbols = np.arange(-limit(layers), limit(layers) + 1)
    marked = []
    for _ in range(layers - 1):
        coarser = (symbols + 1) // 3
        marked.append((symbols - 3 * coarser) * _away(coarser) + 1 + _STILL_ZERO * (coarser == 0))
        symbols = coarser
    return [table.astype(np.uint8) for table in (symbols + _ZERO_BASE, *reversed(marked))]


def _by_int8(table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256,): what `table` says of each symbol that is a byte of int8, clipped to the limit."""
    symbols = np.arange(256).astype(np.int8).astype(np.intp)
    return table.take(symbols + len(table) // 2, mode="clip")


def _apart(marked: NDArray[np.uint8]) -> tuple[bytes, bytes, bytes]:
    """A refinement's digits by byte, the bytes of what is zero so far, and all others."""
    zero = marked >= _STILL_ZERO
    zeros, others = (np.flatnonzero(which).astype(np.uint8).tobytes() for which in (zero, ~zero))
    return (marked % _STILL_ZERO).tobytes(), zeros, others


def packed_bytes(elements: int, layer: int) -> int:
    """Bytes of one layer before its entropy stage."""
    return -(-elements // _PER_BYTE[layer])


def _digits(layer: int) -> NDArray[np.uint8]:
    """(256, n): the digits of each byte; the base's times 3, so that the two layers' digits add up to 0..14."""
    places = _PLACES[layer].astype(np.intp)
    digits = np.arange(256)[:, None] // places % _LEVELS[layer]
    if layer == 0:
        digits[5**3 :] = digits[_ZERO]  # runs
    return (digits * (3 if layer == 0 else 1)).astype(np.uint8)


_DIGITS = tuple(_digits(layer) for layer in range(MAX_LAYERS))
_BASE_OF = np.arange(15) // 3 - 2  # of the first two layers together
_SYMBOLS: tuple[NDArray[np.intp], ...] = (
    3 * _BASE_OF,
    (3 * _BASE_OF + np.where(_BASE_OF < 0, -1, 1) * (np.arange(15) % 3 - 1)).astype(np.intp),
)
"""The symbol that a sum of digits stands for: of the base alone, and of both layers."""


def _quiet() -> np.errstate:
    """Comparisons find what is not finite; and BLAS, on small matrices, warns of lanes that it never uses."""
    return np.errstate(over="ignore", invalid="ignore")


class Packing:
    """Quantiser and packer of one bottleneck. Holds scratch memory: one thread at a time."""

    def __init__(
        self, shape: tuple[int, int, int], zero_point: Sequence[float], steps: Sequence[float], layers: int = LAYERS
    ) -> None:
        """`shape` is (H, W, C), with a zero point for each channel. Raises CodecError if they do not fit."""
        height, width, channels = shape
        if min(shape) < 1 or len(zero_point) != channels:
            raise CodecError(f"config: {len(zero_point)} zero points for a bottleneck of {shape}")
        if not steps or not all(0 < step < math.inf for step in steps):
            raise CodecError(f"config: steps {tuple(steps)} must be positive, and at least one")
        if not LAYERS <= layers <= MAX_LAYERS:
            raise CodecError(f"config: {layers} layers, there may be {LAYERS} to {MAX_LAYERS}")
        self.shape, self.layers = shape, layers
        self._limit = np.array(limit(layers), np.float32)  # numpy takes longer to make one of a Python number
        self.elements = height * width * channels
        self._layer_bytes = tuple(packed_bytes(self.elements, layer) for layer in range(layers))
        self.packed_bytes = [self._layer_bytes] * len(steps)
        """[step][layer], before the entropy stage."""
        self.alphabets = [ALPHABET[:layers]] * len(steps)
        """[step][layer]: bytes that occur."""
        self._zero = np.array(zero_point, np.float32)
        self._steps = [np.array(step, np.float32) for step in steps]
        coarse = np.float32(3 ** (layers - LAYERS))
        self._values = [[s.astype(np.float32) * coarse * step for s in _SYMBOLS] for step in self._steps]
        self._tables = _tables(layers)
        base, *refinements = map(_by_int8, self._tables)
        self._fits_int8 = len(self._tables[0]) <= 256
        self._base, self._refinements = base.tobytes(), [_apart(marked) for marked in refinements]
        self._calm = max(0.0, 100 * min(steps) - max(map(abs, zero_point))) ** 2
        self._most = min((min(steps) * MAX_STEPS) ** 2, 1e38)
        self._zeros = np.zeros(-(-self.elements // _GROUP) * _GROUP, np.float32)  # channel by channel, as `_symbols`
        self._zeros[: self.elements] = self._zero.repeat(height * width)
        self._symbols = np.zeros_like(self._zeros)
        self._planar = self._symbols[: self.elements].reshape(channels, height, width).transpose(1, 2, 0)
        self._bytes = np.zeros(1 + self._layer_bytes[0], np.uint8)  # one in front, which the first run follows
        self._expected = np.full(len(self._bytes), _ZERO, np.uint8)
        self._expected[0] = self._expected[::-MAX_RUN] = _NOTHING
        self._ones = np.ones(self.elements, np.float32)

    def magnitude(self, features: NDArray[np.float32]) -> float:
        """Mean |x - zero point| of features (H, W, C) float32. Raises CodecError as `pack` does."""
        with _quiet():
            self._check(features)
            distance = np.abs(features - self._zero).ravel()
            return float(np.dot(distance, self._ones)) / self.elements

    def _check(self, features: NDArray[np.float32]) -> float:
        """The features' squared norm, once they are known to be finite."""
        if features.shape != self.shape or features.dtype != np.float32:
            raise CodecError(f"features: {features.dtype} {features.shape}, the bundle's are float32 {self.shape}")
        flat = features.ravel()
        if not (square := np.dot(flat, flat)) <= self._most:
            raise CodecError(f"features: NaN, infinite or beyond {MAX_STEPS:g} steps; check the head and its input")
        return float(square)

    def pack(self, features: NDArray[np.float32], step: int) -> tuple[bytes, ...]:
        """Packed bytes of base and refinements of features (H, W, C) float32.

        Raises CodecError on another shape or type, NaN, infinity, or a value beyond `MAX_STEPS`.
        """
        with _quiet():
            square, q = self._check(features), self._symbols
            np.copyto(self._planar, features)
            np.subtract(q, self._zeros, out=q)
            np.divide(q, self._steps[step], out=q)
            np.rint(q, out=q)
            digits = np.frombuffer(self._digits(q, square), np.uint8).astype(np.float32)  # BLAS knows no integers
            base, *refinements = [
                np.dot(own.reshape(-1, per_byte), places)[:size]
                for own, per_byte, places, size in zip(
                    digits.reshape(self.layers, -1), _PER_BYTE, _PLACES, self._layer_bytes, strict=False
                )
            ]
        return self._shortened(base), *[layer.astype(np.uint8).tobytes() for layer in refinements]

    def _digits(self, q: NDArray[np.float32], square: float) -> bytes:
        """The digits of symbols (whole float32), layer after layer; a refinement's first where not all is zero so far.

        Bytes are left out several times faster than arrays are sorted.
        """
        if not self._fits_int8:
            index = (q + self._limit).astype(np.intp)
            digits, *refinements = [table.take(index, mode="clip").tobytes() for table in self._tables]
            for marked in refinements:
                digits += marked.translate(_DIGIT_OF, _ZERO_MARKS) + marked.translate(_DIGIT_OF, _OTHER_MARKS)
            return digits
        if square > self._calm:  # or nothing is beyond an int8
            np.clip(q, -self._limit, self._limit, out=q)
        symbols = q.astype(np.int8).tobytes()
        digits = symbols.translate(self._base)
        for table, zeros, others in self._refinements:
            digits += symbols.translate(table, zeros) + symbols.translate(table, others)
        return digits

    def _shortened(self, packed: NDArray[np.float32]) -> bytes:
        """Base bytes with each run of zeros as one byte; the last byte always stands for itself."""
        self._bytes[1:] = packed
        kept = (self._bytes != self._expected).nonzero()[0]  # the byte in front of all is one of them
        pairs = np.empty((len(kept) - 1, 2), np.uint8)  # the run before each kept byte, and the byte
        pairs[:, 0] = _RUN.take(kept[1:] - kept[:-1])
        pairs[:, 1] = self._bytes.take(kept[1:])
        return pairs.tobytes().translate(None, bytes((_NOTHING,)))

    def expand(self, layer: int, packed: NDArray[np.uint8], step: int = 0) -> NDArray[np.uint8]:
        """One byte for each group of symbols: runs written out, what follows the last group cut off.

        Every step packs alike. Raises CodecError when there are fewer than a frame has.
        """
        full = packed.repeat(_RUN_LENGTH.take(packed)) if layer == 0 else packed
        if len(full) < self._layer_bytes[layer]:
            raise CodecError(f"{len(full)} packed bytes, expected {self._layer_bytes[layer]}")
        return full[: self._layer_bytes[layer]]

    def unpack(self, packed: Sequence[NDArray[np.uint8]], step: int) -> NDArray[np.float32]:
        """(H, W, C) float32 from the expanded bytes of the base, or of the base and its next refinements."""
        height, width, channels = self.shape
        digits = _DIGITS[0].take(packed[0], axis=0).ravel()[: self.elements]
        if len(packed) > 1:
            digits += self._unordered(1, digits == 3 * _ZERO_BASE, packed[1])
        if len(packed) <= LAYERS:
            planar: NDArray[np.float32] = self._values[step][len(packed) - 1].take(digits)
        else:
            planar = self._finer(_SYMBOLS[1].take(digits), packed[LAYERS:], step)
        planar += self._zeros[: self.elements]
        return planar.reshape(channels, height, width).transpose(1, 2, 0).copy()

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W, C): x - zero point. Raises CodecError as `pack` does."""
        with _quiet():
            self._check(features)
            return features - self._zero

    def symbols(self, packed: Sequence[NDArray[np.uint8]]) -> NDArray[np.int8]:
        """(H, W, C): what `unpack` multiplies by the step, of the base or of the base and its refinement; of two layers."""
        height, width, channels = self.shape
        digits = _DIGITS[0].take(packed[0], axis=0).ravel()[: self.elements]
        if len(packed) > 1:
            digits += self._unordered(1, digits == 3 * _ZERO_BASE, packed[1])
        planar = _SYMBOLS[len(packed) - 1].astype(np.int8).take(digits)
        return np.ascontiguousarray(planar.reshape(channels, height, width).transpose(1, 2, 0))

    def features(self, symbols: NDArray[np.int8], step: int) -> NDArray[np.float32]:
        """(H, W, C) float32 from symbols (H, W, C): the very values that `unpack` gives for them."""
        return symbols.astype(np.float32) * self._steps[step] + self._zero

    def _unordered(self, layer: int, zero: NDArray[np.bool_], packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The digits of one refinement, where they belong; `zero` is what is zero before it."""
        ordered = _DIGITS[layer].take(packed, axis=0).ravel()[: self.elements]
        other = ~zero
        others = np.count_nonzero(other)
        digits = np.empty(self.elements, np.uint8)
        digits[other], digits[zero] = ordered[:others], ordered[others:]
        return digits

    def _finer(self, symbols: NDArray[np.intp], packed: Sequence[NDArray[np.uint8]], step: int) -> NDArray[np.float32]:
        """Values of symbols that further layers refine."""
        for layer, body in enumerate(packed, start=LAYERS):
            digits = self._unordered(layer, symbols == 0, body).astype(np.intp)
            symbols = 3 * symbols + _away(symbols) * (digits - 1)
        coarse = np.float32(3 ** (self.layers - LAYERS - len(packed)))
        values: NDArray[np.float32] = symbols.astype(np.float32) * coarse * self._steps[step]
        return values
