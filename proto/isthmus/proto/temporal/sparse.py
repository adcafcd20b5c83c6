"""The few symbols of a frame that changed, to bits and back. Pure: arrays and bytes in, arrays and bytes out.

Each change is one symbol of a static Huffman code: by how many powers of two the gap since the change before is long, and
by how much it changed. Behind all of them stand the gaps' lower bits as they are (Elias 1975). How many changes there are
comes first, as a varint. Places count along rows, a place's channels together.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.bits.huffman import SYMBOLS, block_header, canonical, complete, written
from isthmus.proto.errors import CodecError

LIMIT = 7
"""Changes are -7 to 7: of symbols of two layers, counted round the corner."""
VALUES = 2 * LIMIT
GAP_BITS = 16
"""A gap's length has so many bits at most: no frame that is coded so has more than 2^15 values."""
ALPHABET = GAP_BITS * VALUES
_MOST_VARINT = 3
_POWER = np.frombuffer(bytes((gap + 1).bit_length() - 1 for gap in range(1 << GAP_BITS - 1)), np.uint8)
"""By gap: floor(log2(gap + 1))."""

Indices = NDArray[np.intp]


def letters(places: Indices, changes: Indices) -> tuple[Indices, Indices]:
    """Symbols of the code, and gaps: of changes (not 0) at ascending places."""
    gaps = places.copy()
    gaps[1:] -= places[:-1] + 1
    value = np.where(changes < 0, changes + LIMIT, changes + LIMIT - 1)
    return _POWER.take(gaps) * np.intp(VALUES) + value, gaps


class SparseCode:
    """The code of one step and number of layers."""

    def __init__(self, lengths: bytes) -> None:
        """`lengths`: 256 code lengths, none beyond the alphabet. Raises CodecError on another table."""
        full = complete(lengths, ALPHABET)
        self._codes = np.array(canonical(full)[:SYMBOLS], np.float64)
        self._huffman = np.array(full[:SYMBOLS], np.intp)
        self._lower = np.arange(SYMBOLS) // VALUES
        self._bits = self._huffman + self._lower
        """What a change takes in all."""
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._inflater.decompress(block_header(full))

    def size_bytes(self, symbols: Indices) -> int:
        """What `encode` takes for these symbols."""
        return len(_varint(len(symbols))) + (int(self._bits.take(symbols).sum()) + 7 >> 3)

    def encode(self, symbols: Indices, gaps: Indices) -> bytes:
        """The changes that `letters` told of."""
        count = _varint(len(symbols))
        if not len(symbols):
            return count
        lower = self._lower.take(symbols)
        values = np.concatenate([self._codes.take(symbols), gaps + 1 - (1 << lower)])
        end = np.add.accumulate(lengths := np.concatenate([self._huffman.take(symbols), lower]))
        stop = int(end[-1])
        return count + written(values, end - lengths, stop)[: stop + 7 >> 3]

    def decode(self, body: bytes, elements: int) -> tuple[Indices, Indices]:
        """Places, ascending and below `elements`, and changes. Raises CodecError unless `body` is just such changes."""
        count, start = _read_varint(body)
        if count > elements:
            raise CodecError(f"{count} changes, a frame has {elements} values")
        body = body[start:]
        symbols = np.frombuffer(self._inflated(body, count), np.uint8).astype(np.intp)
        begin, lower = int(self._huffman.take(symbols).sum()), self._lower.take(symbols)
        stop = begin + int(lower.sum())
        if len(body) != stop + 7 >> 3:
            raise CodecError(f"{len(body)} bytes of changes, {count} of them take {stop + 7 >> 3}")
        gaps = (1 << lower) - 1 + _lower_bits(body, begin + np.add.accumulate(lower) - lower, lower)
        places = np.add.accumulate(gaps + 1) - 1
        if count and int(places[-1]) >= elements:
            raise CodecError(f"a change at place {int(places[-1])}, a frame has {elements} values")
        value = symbols % VALUES - LIMIT
        return places, value + (value >= 0)

    def _inflated(self, body: bytes, count: int) -> bytes:
        try:
            symbols = self._inflater.copy().decompress(body, count) if count else b""
        except zlib.error as error:
            raise CodecError(f"not changes in this bundle's code ({error})") from error
        if len(symbols) < count:
            raise CodecError(f"{len(symbols)} changes, expected {count}")
        return symbols


def _lower_bits(body: bytes, start: Indices, width: Indices) -> Indices:
    """So many bits from each place of `body` on, 15 at most, first bit lowest."""
    padded = np.frombuffer(body + bytes(_MOST_VARINT), np.uint8)
    byte = start >> 3
    window = sum(padded.take(byte + i).astype(np.intp) << 8 * i for i in range(3))
    return window >> (start & 7) & (1 << width) - 1


def _varint(value: int) -> bytes:
    """Seven bits to a byte, lowest first (as in protobuf)."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _read_varint(body: bytes) -> tuple[int, int]:
    """The value at the beginning, and where what follows starts."""
    value = 0
    for i, byte in enumerate(body[:_MOST_VARINT]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, i + 1
    raise CodecError("cut off, or no count of changes")
