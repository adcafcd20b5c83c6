"""Static Huffman codes that the standard library's zlib can read back. Pure: arrays and bytes in, arrays and bytes out.

Both halves hold the code lengths, so the header of a DEFLATE dynamic block, which is nothing but code lengths, is a
constant: the encoder emits only the bits behind it, and the decoder is an inflater that has already read it (RFC 1951).
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import CodecError

SYMBOLS = 256
"""Bytes; DEFLATE's end of block is symbol 256, has a code, and is never sent."""
MAX_BITS = 15
"""The longest code that DEFLATE allows (RFC 1951, 3.2.7)."""
WORD_BITS = 32
MAX_SLACK = 7
"""The zero bits that fill the last byte may read as so many further symbols; they are cut off."""
# As arrays: numpy takes longer to make one of a Python number than to add it to a frame's symbols.
_WITHIN, _WORD = np.array(WORD_BITS - 1), np.array(WORD_BITS.bit_length() - 1)
_SHIFT = np.exp2(np.arange(WORD_BITS))  # a code moved to its place in a word stays below 2^47: exact in float64
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
"""The order in which DEFLATE sends the lengths of the code for lengths (RFC 1951, 3.2.7)."""


def code_lengths(weights: NDArray[np.float64]) -> bytes:
    """Lengths of a complete code for the bytes of positive weight, with room left for the end of block.

    `weights`: (256,), not all zero. Returns 256 lengths of 0 (no code) to 15.
    """
    used = np.flatnonzero(weights).tolist()
    total, floor = float(weights.sum()), 0.0
    while True:
        depths = _depths([max(float(weights[s]), floor) for s in used] + [floor])
        if max(depths) <= MAX_BITS:
            break
        floor = max(2 * floor, total / 2**MAX_BITS)  # no symbol much rarer than this sits deeper than 15
    lengths = dict(zip(used, depths, strict=False))
    return bytes(lengths.get(s, 0) for s in range(SYMBOLS))


def _depths(weights: Sequence[float]) -> list[int]:
    """Depth of each leaf in a Huffman tree (Huffman 1952); ties fall in order, so the result is reproducible."""
    parent = [0] * (2 * len(weights) - 1)
    heap = [(weight, node) for node, weight in enumerate(weights)]
    heapq.heapify(heap)
    for node in range(len(weights), len(parent)):
        (w1, a), (w2, b) = heapq.heappop(heap), heapq.heappop(heap)
        parent[a] = parent[b] = node
        heapq.heappush(heap, (w1 + w2, node))
    depth = [0] * len(parent)
    for node in reversed(range(len(parent) - 1)):
        depth[node] = depth[parent[node]] + 1
    return depth[: len(weights)]


def complete(lengths: bytes, alphabet: int) -> list[int]:
    """The 257 lengths of a complete DEFLATE code: the end of block takes the room that the bytes leave."""
    if len(lengths) != SYMBOLS or max(lengths) > MAX_BITS or not all(lengths[:alphabet]) or any(lengths[alphabet:]):
        raise CodecError(f"table: must hold {SYMBOLS} lengths, 1 to {MAX_BITS} for the first {alphabet}, then 0")
    room = (1 << MAX_BITS) - sum(1 << (MAX_BITS - length) for length in lengths if length)
    if room <= 0 or room & (room - 1):
        raise CodecError("table: not a complete code with room for an end of block; fit the codec again")
    return [*lengths, MAX_BITS - (room.bit_length() - 1)]


def canonical(lengths: Sequence[int]) -> list[int]:
    """Canonical codes (RFC 1951, 3.2.2), first bit lowest."""
    codes, code = [0] * len(lengths), 0
    for bits in range(1, MAX_BITS + 1):
        code <<= 1
        for symbol in (s for s, length in enumerate(lengths) if length == bits):
            codes[symbol] = int(f"{code:0{bits}b}"[::-1], 2)
            code += 1
    return codes


def block_header(lengths: Sequence[int]) -> bytes:
    """The constant in front of every body: 257 code lengths as the header of a last dynamic block.

    Three empty fixed blocks come first: 30 bits that make the whole a multiple of 8, so that bodies start on a byte.
    """
    bits = [0, 1, 0, *[0] * 7] * 3  # not last, fixed code, end of block
    fields = [(1, 1), (2, 2), (0, 5), (0, 5), (len(_ORDER) - 4, 4)]  # last, dynamic, 257 symbols, 1 distance
    fields += [(4 if symbol < 16 else 0, 3) for symbol in _ORDER]  # each length is written in 4 plain bits
    bits += [value >> i & 1 for value, width in fields for i in range(width)]
    bits += [length >> i & 1 for length in [*lengths, 0] for i in (3, 2, 1, 0)]
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def written(codes: NDArray[np.float64], start: NDArray[np.intp], stop: int) -> bytes:
    """Codes of up to 15 bits, each from its own bit on, as whole words of 32 bits that hold `stop` bits, 1 at least."""
    moved = codes * _SHIFT.take(start & _WITHIN)
    pairs = np.bincount(start >> _WORD, moved, minlength=-(-stop // WORD_BITS)).astype("<u8").view("<u4")
    words = pairs[::2].copy()
    words[1:] |= pairs[1:-1:2]  # what runs over into the next word
    return words.tobytes()


class StaticCode:
    """A static code for each layer, encoded in one pass and decoded one by one."""

    def __init__(self, tables: Sequence[bytes], alphabets: Sequence[int]) -> None:
        """`tables`: 256 code lengths for each layer, none beyond its alphabet. Raises CodecError on another table."""
        full = [complete(lengths, size) for lengths, size in zip(tables, alphabets, strict=True)]
        self._bits = np.array([lengths[:SYMBOLS] for lengths in full], np.intp).ravel()
        self._codes = np.array([canonical(lengths)[:SYMBOLS] for lengths in full], np.float64).ravel()
        self._offsets = [np.array(SYMBOLS * layer) for layer in range(1, len(full))]
        self._inflaters = [zlib.decompressobj(-zlib.MAX_WBITS) for _ in full]
        for inflater, lengths in zip(self._inflaters, full, strict=True):
            inflater.decompress(block_header(lengths))

    def encode(self, layers: Sequence[bytes]) -> list[bytes]:
        """The bodies of all layers."""
        symbols = np.frombuffer(b"".join(layers), np.uint8).astype(np.intp)
        split = len(layers[0])
        for layer, offset in zip(layers[1:], self._offsets, strict=True):
            own = symbols[split : (split := split + len(layer))]
            own += offset
        bits = self._bits.take(symbols)
        end = np.add.accumulate(bits)
        start = end - bits
        bodies, split, before, stop = [], 0, 0, 0
        for layer in layers:  # each starts on a word of its own
            first, split = split, split + len(layer)
            shift = stop + -stop % WORD_BITS - before
            if shift:
                own = start[first:split]
                own += shift
            begin, before = before + shift, int(end[split - 1])
            stop = before + shift
            bodies.append((begin >> 3, (stop + 7) >> 3))
        body = written(self._codes.take(symbols), start, stop)
        return [body[begin:end_] for begin, end_ in bodies]

    def decode(self, layer: int, body: bytes, most: int) -> bytes:
        """The bytes in `body` and at most 7 more of its padding. Raises CodecError when they would exceed `most`."""
        try:
            symbols = self._inflaters[layer].copy().decompress(body, most + MAX_SLACK + 1)
        except zlib.error as error:
            raise CodecError(f"not a body of this bundle's code ({error})") from error
        if len(symbols) > most + MAX_SLACK:
            raise CodecError(f"more than {most} packed bytes")
        return symbols
