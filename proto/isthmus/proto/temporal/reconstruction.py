"""What both halves hold of a frame that crossed, and the newest of them for each stream. Pure: integers only.

A reconstruction is a frame's symbols after what crossed, layers that are missing read as zero. Device and server come to
the same one from the same payloads, bit for bit, whatever their processors: so it can be what a later frame is coded
against.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

HELD = 16
"""Reconstructions that each half keeps of a stream: a server's eight credits of frames under way, twice."""

Symbols = NDArray[np.int8]


class Reconstruction(Struct, frozen=True, eq=False):
    """One frame as both halves have it."""

    step: int
    symbols: Symbols
    """(H, W, C), in units of the step."""

    @property
    def seal(self) -> int:
        """What the checksum of a layer begins with that is coded against this: no other reconstruction passes for it."""
        return zlib.crc32(self.symbols.tobytes(), self.step + 1)


class References:
    """The newest reconstructions of one stream by frame; the oldest goes when there are too many."""

    def __init__(self, most: int = HELD) -> None:
        self._most = most
        self._held: OrderedDict[int, Reconstruction] = OrderedDict()

    def keep(self, frame_id: int, reconstruction: Reconstruction) -> None:
        """Both halves will have this of a frame; what was held of the same frame before is replaced."""
        self._held.pop(frame_id, None)
        self._held[frame_id] = reconstruction
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def of(self, frame_id: int) -> Reconstruction | None:
        """What is held of a frame; None where nothing is."""
        return self._held.get(frame_id)
