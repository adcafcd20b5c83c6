"""A table of clips, frame by frame: what is there, what was found, where it went, and whether that is right. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.device.tracking.tracks import SAME_THING, Place
from isthmus.emulation.sequences.table import Sequences
from isthmus.proto.tasks.detection import SAME_PLACE, overlap
from isthmus.proto.vocabulary import Box

LEAST_SEEN = 0.25
"""Where there is nothing to be found, a box that is surer than this is a wrong answer."""


def found(boxes: Sequence[Box], truth: Sequence[Box]) -> bool:
    """Whether a frame is right: as many of the surest boxes as there are things, each of its class and over it by half.

    Where there is nothing, no box may be surer than `LEAST_SEEN`.
    """
    if not truth:
        return not boxes or boxes[0].score < LEAST_SEEN
    left = list(boxes[: len(truth)])
    for thing in truth:
        match = max((b for b in left if b.label == thing.label), key=lambda b: overlap(b, thing), default=None)
        if match is None or overlap(match, thing) < SAME_PLACE:
            return False
        left.remove(match)
    return True


class Rows:
    """A table's rows, frame by frame."""

    def __init__(self, table: Sequences) -> None:
        self._table, frames = table, np.arange(len(table.clip) + 1)
        self._truth = np.searchsorted(table.truth_frame, frames)
        self._points = int(table.box_point.max(initial=0)) + 1
        keys = table.box_frame.astype(np.int64) * self._points + table.box_point
        self._boxes = np.searchsorted(keys, np.arange(len(table.clip) * self._points + 1)).tolist()
        """[frame times point]: where its boxes begin."""
        self._things = np.searchsorted(table.thing_frame, frames)
        self._born, self._tracks = table.thing_frame.astype(np.int64), table.thing_place.astype(np.float32)

    def truth(self, sample: int) -> tuple[Box, ...]:
        """What is in a frame."""
        t, rows = self._table, range(self._truth[sample], self._truth[sample + 1])
        return tuple(Box(int(t.truth_label[i]), 1.0, *t.truth_place[i].tolist()) for i in rows)

    def boxes(self, sample: int, point: int) -> tuple[Box, ...]:
        """What a point found in a frame, surest first."""
        if point >= self._points:
            return ()
        t, place = self._table, sample * self._points + point
        here = slice(self._boxes[place], self._boxes[place + 1])
        rows = zip(t.box_label[here].tolist(), t.box_score[here].tolist(), t.box_place[here].tolist(), strict=True)
        return tuple(Box(label, score, *edges) for label, score, edges in rows)

    def things(self, first: int, last: int) -> slice:
        """The rows of what was found in frames `first` to `last`."""
        return slice(int(self._things[first]), int(self._things[last + 1]))

    def followed(self, samples: Sequence[int], places: Sequence[Place]) -> tuple[Place | None, ...]:
        """Where places in the first of these frames are in the last, as the tracker's flow went there when it was measured.

        A place moves as what was found nearest to it; one where nothing was found, and any across a cut, is lost.
        """
        first, last = samples[0], samples[-1]
        table, most = self._table, self._table.thing_place.shape[1] - 1
        if last < first or last - first > most or table.clip[first] != table.clip[last]:
            return (None,) * len(places)
        rows = self.things(max(0, last - most), first)
        born, tracks = self._born[rows], self._tracks[rows]
        index = np.arange(len(born))
        then, now = tracks[index, first - born], tracks[index, last - born]
        known = ~np.isnan(then[:, 0]) & (table.clip[born] == table.clip[first])
        then, now = then[known], now[known]
        return tuple(_moved(place, then, now) for place in places)


def _moved(place: Place, then: NDArray[np.float32], now: NDArray[np.float32]) -> Place | None:
    """A place moved and grown as that of (K, 4) which it overlaps most; None where there is none, or that one was lost."""
    if not len(then):
        return None
    edges = np.array(place, np.float32)
    high, wide = (
        np.maximum(0, np.minimum(then[:, k + 2], edges[k + 2]) - np.maximum(then[:, k], edges[k])) for k in (0, 1)
    )
    shared = high * wide
    areas = (then[:, 2] - then[:, 0]) * (then[:, 3] - then[:, 1])
    both = areas + (place.bottom - place.top) * (place.right - place.left) - shared
    share = shared / np.maximum(both, 1e-9)
    best = int(share.argmax())
    if share[best] < SAME_THING or np.isnan(now[best, 0]):
        return None
    top, left, bottom, right = then[best].tolist()
    to_top, to_left, to_bottom, to_right = now[best].tolist()
    growth = (to_bottom - to_top) / (bottom - top) if bottom > top else 1.0
    y = (place.top + place.bottom + to_top + to_bottom - top - bottom) / 2
    x = (place.left + place.right + to_left + to_right - left - right) / 2
    high_, wide_ = (place.bottom - place.top) * growth / 2, (place.right - place.left) * growth / 2
    return Place(y - high_, x - wide_, y + high_, x + wide_)
