"""A frame coded against one that both halves hold: what changed, and by how much. Pure: no clock, no IO, no randomness.

A symbol is kept while the value that it stands for has moved by less than a share of a step, and is rounded anew when it
has moved farther: hysteresis, and closed-loop, since the value is compared with what the server has. So noise about the
edge between two symbols costs nothing, and errors do not add up. What crosses are integers; the other half comes to the
same reconstruction, bit for bit. A frame at another step than its reference begins from the reference's symbols rounded to
that step, by one float32 multiplication that is the same everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.proto.bits.packing import LAYERS, Packing, limit
from isthmus.proto.errors import CodecError
from isthmus.proto.temporal.reconstruction import Reconstruction, Symbols
from isthmus.proto.temporal.sparse import Indices, SparseCode, letters

Floats = NDArray[np.float32]
COARSER = 3
"""A layer makes the step a third of what it was."""
_EVERY = np.arange(256).astype(np.uint8).view(np.int8)  # every symbol by its place in a table


class Deltas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How frames are coded against others; ships with the bundle."""

    keep: tuple[tuple[float, ...], ...]
    """[step][layers - 1]: a symbol is kept while its value is within so many steps of it, of the step that so many layers
    make; at least half a step, which keeps what would be rounded to it anyway."""
    tables: tuple[tuple[str, ...], ...]
    """[step][layers - 1]: code lengths of changes, one hex digit for each of 256."""


class Change(NamedTuple):
    """What one frame is against its reference."""

    symbols: Indices
    """Of the code of changes."""
    gaps: Indices
    places: Indices
    """Where symbols changed, in (H, W, C) row by row."""
    new: Symbols
    """What they are now, in units of the step that so many layers make."""


class DeltaCodec:
    """Encoder and decoder of one bottleneck's deltas. Keeps nothing of a frame."""

    def __init__(self, deltas: Deltas, packing: Packing, steps: tuple[float, ...]) -> None:
        """Raises CodecError if they do not fit each other."""
        if packing.layers != LAYERS:
            raise CodecError(f"config: deltas of {packing.layers} layers, there must be {LAYERS}")
        for name, rows in (("keep", deltas.keep), ("tables", deltas.tables)):
            if [len(row) for row in rows] != [LAYERS] * len(steps):
                raise CodecError(f"config: deltas.{name} must have {len(steps)} steps of {LAYERS} layers")
        if not all(0.5 <= share <= 1e3 for row in deltas.keep for share in row):
            raise CodecError("config: deltas.keep must be half a step or more")
        self.packing = packing
        self._keep = [[np.float32(share) for share in row] for row in deltas.keep]
        self._codes = [[SparseCode(_lengths(table)) for table in row] for row in deltas.tables]
        self._steps = np.array(steps, np.float32)
        self._units = [[step * np.float32(u) for u in UNITS] for step in self._steps]
        self._onto = [[_rounded(old / new) for new in self._steps] for old in self._steps]
        """[step of the reference][step][layers - 1]: by symbol, what it is rounded to."""

    def features(self, reconstruction: Reconstruction) -> Floats:
        """(H, W, C) float32: what the tail is given."""
        return self.packing.features(reconstruction.symbols, reconstruction.step)

    def whole(self, distances: Floats, step: int) -> Reconstruction:
        """What both halves hold of a frame whose layers all crossed as they are; `distances`: see `Packing`."""
        symbols = np.rint(distances / self._steps[step])
        np.clip(symbols, -limit(LAYERS), limit(LAYERS), out=symbols)
        return Reconstruction(step, symbols.astype(np.int8))

    def change(self, distances: Floats, step: int, layers: int, reference: Reconstruction) -> Change:
        """What a frame is against `reference`, at `step` and as fine as so many layers make it."""
        before, most = self._before(reference, step, layers), limit(layers)
        value = (distances / self._units[step][layers - 1]).ravel()
        far = value - before
        moved = np.flatnonzero(np.abs(far, out=far) > self._keep[step][layers - 1])
        new = np.minimum(np.maximum(np.rint(value.take(moved)), -most), most).astype(np.int8)
        old = before.take(moved)
        changed = np.flatnonzero(new != old)
        places, old, new = moved.take(changed), old.take(changed), new.take(changed)
        return Change(*letters(places, _outward(new, old, most)), places, new)

    def changed(self, change: Change, step: int, layers: int, reference: Reconstruction) -> Reconstruction:
        """What both halves hold after a change of `reference`."""
        after = self._before(reference, step, layers).copy()
        after[change.places] = change.new
        after *= np.int8(UNITS[layers - 1])
        return Reconstruction(step, after.reshape(self.packing.shape))

    def size_bytes(self, change: Change, step: int, layers: int) -> int:
        """What `encode` takes for it."""
        return self._codes[step][layers - 1].size_bytes(change.symbols)

    def encode(self, change: Change, step: int, layers: int) -> bytes:
        """The body of a change's payload."""
        return self._codes[step][layers - 1].encode(change.symbols, change.gaps)

    def decode(self, body: bytes, step: int, layers: int, reference: Reconstruction) -> Reconstruction:
        """What both halves hold after a change of `reference`. Raises CodecError when `body` is none."""
        before, most = self._before(reference, step, layers), limit(layers)
        places, changes = self._codes[step][layers - 1].decode(body, before.size)
        old = before.take(places)
        new = old + np.where(old < 0, -changes, changes)
        new = (new + most) % (2 * most + 1) - most
        none = np.zeros(0, np.intp)
        return self.changed(Change(none, none, places, new.astype(np.int8)), step, layers, reference)

    def _before(self, reference: Reconstruction, step: int, layers: int) -> Symbols:
        """(H * W * C,): the reference's symbols as they are at a step and so many layers."""
        table = self._onto[reference.step][step][layers - 1]
        return np.frombuffer(reference.symbols.tobytes().translate(table), np.int8)  # faster than arrays look up


UNITS = tuple(COARSER ** (LAYERS - layers) for layers in range(1, LAYERS + 1))
"""Symbols of the finest step that make one of so many layers."""


def upto(reconstruction: Reconstruction, layers: int) -> Reconstruction:
    """The same where only so many of its layers were used."""
    if layers >= LAYERS:
        return reconstruction
    return Reconstruction(reconstruction.step, _BASE.take(reconstruction.symbols.view(np.uint8)))


def _lengths(table: str) -> bytes:
    try:
        return bytes(int(digit, 16) for digit in table)
    except ValueError as error:
        raise CodecError("config: deltas.tables must be hex digits") from error


def _coarser(symbols: NDArray[np.int8]) -> NDArray[np.int8]:
    """The base's symbols: see `packing`."""
    return ((symbols.astype(np.intp) + 1) // COARSER).astype(np.int8)


_BASE = _coarser(_EVERY) * np.int8(COARSER)


def _rounded(ratio: np.float32) -> list[bytes]:
    """[layers - 1]: by symbol of a step, the nearest of another that is 1 / `ratio` as large."""
    most = limit(LAYERS)
    fine = np.clip(np.rint(_EVERY.astype(np.float32) * ratio), -most, most).astype(np.int8)
    return [_coarser(fine).tobytes(), fine.tobytes()]


def _outward(new: Symbols, old: Symbols, most: int) -> Indices:
    """Changes counted round the corner of what symbols can be, and away from zero where the old symbol was not zero."""
    changes = new.astype(np.intp) - old
    away = np.where(old < 0, -changes, changes)
    return (away + most) % (2 * most + 1) - most
