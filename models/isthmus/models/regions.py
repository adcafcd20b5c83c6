"""The part of a picture where the device's own answer says something is, and where that lies in the whole. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import PictureLadder, Region, View
from isthmus.models.pictures import placing, sendable
from isthmus.proto.tasks import segmentation
from isthmus.proto.tasks.pose import SEEN
from isthmus.proto.vocabulary import Box, Guess, Mask, Placing, Pose

Place = tuple[float, float, float, float]
"""Top, left, bottom, right, in shares of the picture."""
WHOLE: Place = (0.0, 0.0, 1.0, 1.0)


def region_of(guess: Guess | None, rule: Region) -> Place:
    """The part around an answer's boxes, or around what its mask covers; the whole picture where it found nothing."""
    found = _extent(guess)
    if found is None:
        return WHOLE
    top, left, bottom, right = found
    side = min(1.0, max(rule.least, max(bottom - top, right - left) * (1 + 2 * rule.margin)))
    top, left = (min(max((a + b - side) / 2, 0.0), 1 - side) for a, b in ((top, bottom), (left, right)))
    return top, left, top + side, left + side


def _extent(guess: Guess | None) -> Place | None:
    if guess is None or not guess.detail:
        return None
    if isinstance(guess.detail, Mask):
        rows, columns = np.nonzero(segmentation.pixels(guess.detail))
        if not len(rows):
            return None
        height, width = guess.detail.height, guess.detail.width
        return rows.min() / height, columns.min() / width, (rows.max() + 1) / height, (columns.max() + 1) / width
    if isinstance(guess.detail, Pose):
        seen = [p for p in guess.detail.points if p.score >= SEEN]
        boxes = tuple(Box(0, p.score, p.top, p.left, p.top, p.left) for p in seen)
    else:
        boxes = guess.detail if isinstance(guess.detail, tuple) else ()
    if not boxes:
        return None
    return (
        min(b.top for b in boxes),
        min(b.left for b in boxes),
        max(b.bottom for b in boxes),
        max(b.right for b in boxes),
    )


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
