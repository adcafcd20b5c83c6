"""How often answers are right that are carried on, by age: counted from a table of clips. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from isthmus.device.tracking.tracks import Place
from isthmus.emulation.sequences.rows import Rows, found
from isthmus.emulation.sequences.table import Sequences
from isthmus.models.bundle import Ageing, Manifest, Point
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Box

AGES = (0, 1, 2, 4, 8, 15, 30)
"""Frames: close where boxes are still fresh, up to a second at 30 a second."""
EVERY = 3
"""Every so many frames begin: neighbours say nearly the same."""


def counted(table: Sequences, manifest: Manifest) -> Ageing:
    """The ageing of a bundle's answers on the clips of a table. Each answer alone: nothing is voted, nothing found anew.

    Raises DataError when clips differ in pace or none is long enough.
    """
    if len(set(table.fps.tolist())) != 1:
        raise DataError(
            f"clips of {sorted(set(table.fps.tolist()))} frames a second; count ageing on clips of one pace"
        )
    rows, starts = Rows(table), _starts(table)
    if not starts:
        raise DataError(f"no clip has more than {AGES[-1]} frames; count ageing on longer ones")
    points = manifest.points

    def row(point: Point) -> tuple[float, ...]:
        column = points.index(point)
        return tuple(round(_right(rows, starts, column, age), 4) for age in AGES)

    widths, last = sorted(manifest.widths), len(manifest.stages) - 1
    exits = [next(p for p in points if (p.width, p.exit) == (w, last)) for w in widths]
    sent = [max((p for p in points if p.width == w and p.step is not None), key=lambda p: p.accuracy) for w in widths]
    return Ageing(
        ages_s=tuple(round(age / float(table.fps[0]), 5) for age in AGES),
        exit=tuple(map(row, exits)),
        server=tuple(map(row, sent)),
    )


def aged(manifest: Manifest, ageing: Ageing) -> Manifest:
    """A manifest that says how its answers age."""
    return structs.replace(manifest, ageing=ageing)


def _starts(table: Sequences) -> list[int]:
    """The frames that answers are of: those that have as many after them as the greatest age."""
    clip, longest = table.clip.tolist(), AGES[-1]
    return [n for n in range(0, len(clip) - longest, EVERY) if clip[n] == clip[n + longest]]


def _right(rows: Rows, starts: Sequence[int], column: int, age: int) -> float:
    right = 0
    for n in starts:
        boxes = rows.boxes(n, column)
        if age:
            places = rows.followed((n, n + age), [Place(b.top, b.left, b.bottom, b.right) for b in boxes])
            moved = zip(boxes, places, strict=True)
            boxes = tuple(Box(b.label, b.score, *place) for b, place in moved if place is not None)
        right += found(boxes, rows.truth(n + age))
    return right / len(starts)
