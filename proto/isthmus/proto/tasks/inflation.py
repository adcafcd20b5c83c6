"""Bytes that crossed deflated, unfolded to exactly the size that they must have. Pure."""

from __future__ import annotations

import zlib


def inflated(coded: bytes, size: int, what: str) -> bytes:
    """Exactly `size` bytes, whatever is in `coded`. Raises ValueError naming `what` where there are more, fewer or none."""
    try:
        raw = zlib.decompressobj().decompress(coded, size + 1)
    except zlib.error as error:
        raise ValueError(f"{what}: damaged ({error})") from error
    if not size or len(raw) != size:
        raise ValueError(f"{what}: {len(raw)} bytes, expected {size}")
    return raw
