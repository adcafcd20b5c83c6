"""The small grey pictures of recent frames, kept so that late answers can be carried on through them. No clock."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from isthmus.device.tracking.flow import Grey, follow, small_grey
from isthmus.device.tracking.tracker import RECENT
from isthmus.device.tracking.tracks import Place

Followed = tuple[Place | None, ...]


class Pictures:
    """As many as a tracker remembers frames; the oldest are let go."""

    def __init__(self) -> None:
        self._greys: OrderedDict[int, Grey] = OrderedDict()

    def keep(self, frame_id: int, pixels: NDArray[Any]) -> None:
        """Take a frame's picture (H, W, 3) RGB."""
        self._greys[frame_id] = small_grey(pixels)
        if len(self._greys) > RECENT:
            self._greys.popitem(last=False)

    def job(self, frame_ids: Sequence[int], places: Sequence[Place]) -> Callable[[], Followed]:
        """The work of following places through these frames, to be called in a worker thread; it outlives the pictures."""
        return partial(follow_through, [self._greys.get(frame_id) for frame_id in frame_ids], tuple(places))


def follow_through(greys: Sequence[Grey | None], places: Sequence[Place]) -> Followed:
    """Where places in the first picture are in the last, followed from each to the next; None for what was lost.

    From a picture that is missing nothing is followed.
    """
    now: list[Place | None] = list(places)
    for before, after in itertools.pairwise(greys):
        alive = [i for i, place in enumerate(now) if place is not None]
        moved: Sequence[Place | None] = (None,) * len(alive)
        if before is not None and after is not None:
            moved = follow(before, after, [place for place in now if place is not None])
        for i, place in zip(alive, moved, strict=True):
            now[i] = place
    return tuple(now)
