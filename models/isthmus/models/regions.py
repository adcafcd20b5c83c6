"""The part of a picture where the device's own answer says something is, and where that lies in the whole. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.picture_ladder import PictureLadder, Region, View
from isthmus.models.pictures import placing, sendable
from isthmus.proto.tasks.pose import SEEN
from isthmus.proto.vocabulary import Guess, Placing, Pose

Place = tuple[float, float, float, float]
"""Top, left, bottom, right, in shares of the picture."""
PLACED = frozenset({"detection", "pose"})
"""Tasks whose answers have places, so that those about a part are brought into the whole picture."""
WHOLE: Place = (0.0, 0.0, 1.0, 1.0)


def region_of(guess: Guess | None, rule: Region) -> Place:
    """The part around an answer's boxes, or around the points of its pose; the whole picture where it found nothing."""
    found = _extent(guess)
    if found is None:
        return WHOLE
    top, left, bottom, right = found
    side = min(1.0, max(rule.least, max(bottom - top, right - left) * (1 + 2 * rule.margin)))
    top, left = (min(max((a + b - side) / 2, 0.0), 1 - side) for a, b in ((top, bottom), (left, right)))
    return top, left, top + side, left + side


def _extent(guess: Guess | None) -> Place | None:
    places: list[Place] = []
    if guess is not None and isinstance(guess.detail, tuple):
        places = [(box.top, box.left, box.bottom, box.right) for box in guess.detail]
    elif guess is not None and isinstance(guess.detail, Pose):
        places = [(p.top, p.left, p.top, p.left) for p in guess.detail.points if p.score >= SEEN]
    if not places:
        return None
    top, left, bottom, right = zip(*places, strict=True)
    return max(min(top), 0.0), max(min(left), 0.0), min(max(bottom), 1.0), min(max(right), 1.0)


def seen(
    pixels: NDArray[Any], ladder: PictureLadder, guess: Guess | None
) -> tuple[tuple[NDArray[np.uint8], Placing], ...]:
    """Each view of (H, W, 3) pixels as it may cross, and where the whole picture lies in it; `guess` is the device's own."""
    return tuple(_view(pixels, ladder, view, guess) for view in ladder.views)


def _view(
    pixels: NDArray[Any], ladder: PictureLadder, view: View, guess: Guess | None
) -> tuple[NDArray[np.uint8], Placing]:
    taken = ladder.taken(view)
    if view.region is None:
        return sendable(pixels, taken), placing(pixels.shape, taken)
    top, left, bottom, right = region_of(guess, view.region)
    height, width = pixels.shape[:2]
    rows = slice(int(top * height), max(int(top * height) + 1, round(bottom * height)))
    columns = slice(int(left * width), max(int(left * width) + 1, round(right * width)))
    part = pixels[rows, columns]
    return sendable(part, taken), _around(
        placing(part.shape, taken), part.shape, rows.start, columns.start, pixels.shape
    )


def _around(inner: Placing, part: tuple[int, ...], top: int, left: int, whole: tuple[int, ...]) -> Placing:
    """Where the whole picture lies in what is given, of which a part of it that begins at (top, left) lies at `inner`."""
    height, width = inner.height * whole[0] / part[0], inner.width * whole[1] / part[1]
    return Placing(inner.top - top / whole[0] * height, inner.left - left / whole[1] * width, height, width)
