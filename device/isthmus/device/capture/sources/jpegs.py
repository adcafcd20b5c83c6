"""JPEG pictures one after the other, as MJPEG is written into a pipe. Pure.

A picture is told from what lies between two (a multipart boundary, garbage) by its markers; lengths inside it are
followed, so that a thumbnail in its header ends nothing (ITU-T T.81, annex B).
"""

from __future__ import annotations

MOST_BYTES = 1 << 25
"""A picture of more, 32 MB, is none: whatever began it is passed over."""
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
"""Markers without a length: a stuffed byte, TEM, restarts."""


class JpegSplitter:
    """Takes bytes as they come, gives whole pictures."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0
        """How far the picture that `_held` begins with is understood; 0 while none has begun."""
        self._in_scan = False
        self.passed_over = 0
        """Bytes that belonged to no picture."""

    def feed(self, content: bytes) -> list[bytes]:
        """The pictures that are whole now, oldest first."""
        self._held += content
        found = []
        while (picture := self._next()) is not None:
            found.append(picture)
        return found

    def _next(self) -> bytes | None:
        while self._at or self._begin():
            marker = self._marker()
            if marker == EOI:
                picture = bytes(self._held[: self._at])
                del self._held[: self._at]
                self._at, self._in_scan = 0, False
                return picture
            if marker is None and self._at:  # more is needed
                if len(self._held) <= MOST_BYTES:
                    return None
                self._drop(2)
        return None

    def _begin(self) -> bool:
        """Pass over what comes before a picture."""
        start = self._held.find(b"\xff\xd8\xff")
        self._drop(max(0, len(self._held) - 2) if start < 0 else start)
        if start >= 0:
            self._at, self._in_scan = 2, False
        return start >= 0

    def _marker(self) -> int | None:
        """Go over the next marker and its segment: which one; None when more is needed, or this is no picture."""
        held = self._held
        if self._in_scan:
            self._at = self._scanned()
        if len(held) < self._at + 2:
            return None
        marker = held[self._at + 1]
        if held[self._at] != 0xFF or marker == SOI:
            self._drop(2)  # damaged: look for another beginning behind this one
            return None
        if marker in (EOI, 0xFF) or marker in ALONE:
            self._at += 1 if marker == 0xFF else 2
            return marker
        if len(held) < self._at + 4:
            return None
        end = self._at + 2 + int.from_bytes(held[self._at + 2 : self._at + 4], "big")
        if len(held) < end:
            return None
        self._at, self._in_scan = end, marker == SOS
        return marker

    def _scanned(self) -> int:
        """Where entropy-coded data ends, or how far it is known to go on."""
        at = self._at
        while 0 <= (at := self._held.find(0xFF, at)) < len(self._held) - 1:
            if self._held[at + 1] not in ALONE:
                self._in_scan = False
                return at
            at += 2
        return len(self._held) if at < 0 else at

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self.passed_over += count
        self._at, self._in_scan = 0, False
