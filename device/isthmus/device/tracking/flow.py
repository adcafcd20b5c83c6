"""Median flow: where boxes of one small grey picture lie in the next (Kalal, Mikolajczyk and Matas 2010). No state, no clock.

Points on a grid within a box are followed by pyramidal Lucas-Kanade (Bouguet 2001, OpenCV's) there and back; those that
do not come back to where they began are left out, the others' median is how the box moved and grew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.device.tracking.tracks import Place

Grey = NDArray[np.uint8]

LONGEST_PX = 320
"""The longest side of the pictures that are followed: a step takes under a millisecond of a fast core, and a bird is still
a dozen pixels wide."""
GRID = 6
"""Points along each side of a box: on 19 training clips eight do no better and take half as long again, five lose 2 points."""
INNER = 0.8
"""Points lie within so much of a box's height and width: its edges are background, which moves otherwise."""
WINDOW_PX, LEVELS = 11, 3
"""About a small object's own size (21 loses 5 points in a second of following); three levels above follow 30 pixels."""
ENOUGH = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
"""A point is found when a step moves it by less than 0.03 pixels, or after 10 steps: a median of many needs no more."""
BACK_PX = 1.0
"""A point that comes back so far from where it began was lost on the way."""
FEWEST = 6
"""Points that must come back for a box to be followed: chance brings some back from anywhere."""
MOST_SCATTER = 0.25
"""Points whose moves differ (median distance from the median) by more than this share of the box's shorter side follow
different things: the box's own is hidden or gone. A pixel is always allowed."""
MOST_GROWTH = 1.15
"""From one picture to the next no object grows or shrinks by more; what is measured above is its neighbours' motion."""


def small_grey(pixels: NDArray[Any]) -> Grey:
    """A picture (H, W, 3) RGB as what is followed: grey, its longest side `LONGEST_PX` or less."""
    shrink = LONGEST_PX / max(pixels.shape[:2])
    if pixels.dtype != np.uint8:
        pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def follow(before: Grey, after: Grey, places: Sequence[Place]) -> tuple[Place | None, ...]:
    """Where each of `places` in the picture `before` lies in the picture `after`; None for one that was lost.

    Pictures of different sizes have nothing in common: all are lost.
    """
    if not places or before.shape != after.shape:
        return (None,) * len(places)
    points = np.concatenate([_grid(place, before.shape) for place in places])  # (places * GRID * GRID, 2) x, y
    there, back, arrived = _there_and_back(before, after, points)
    by_place = (len(places), GRID * GRID)
    strayed = np.linalg.norm(back - points, axis=1)
    kept = (arrived & (strayed <= BACK_PX)).reshape(by_place)
    points, there = points.reshape(*by_place, 2), there.reshape(*by_place, 2)
    return tuple(
        _moved(place, points[i][kept[i]], there[i][kept[i]], before.shape) if kept[i].sum() >= FEWEST else None
        for i, place in enumerate(places)
    )


def _grid(place: Place, size: tuple[int, ...]) -> NDArray[np.float32]:
    height, width = size[:2]
    at = (np.arange(GRID) + 0.5) / GRID * INNER + (1 - INNER) / 2
    y = (place.top + at * (place.bottom - place.top)) * height
    x = (place.left + at * (place.right - place.left)) * width
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def _there_and_back(
    before: Grey, after: Grey, points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Where the points went, where they came back to, and which of them were found both ways."""
    flow: Any = cv2.calcOpticalFlowPyrLK  # whose stubs do not know that it may choose where to put its results
    options = {"winSize": (WINDOW_PX, WINDOW_PX), "maxLevel": LEVELS, "criteria": ENOUGH}
    there, found, _ = flow(before, after, points, None, **options)
    back, found_back, _ = flow(after, before, there, None, **options)
    return there, back, (found.ravel() == 1) & (found_back.ravel() == 1)


def _moved(
    place: Place, points: NDArray[np.float32], there: NDArray[np.float32], size: tuple[int, ...]
) -> Place | None:
    """The box moved by its points' median, and grown as their distances did; None where it left the picture or is hidden."""
    height, width = size[:2]
    moves = there - points
    dx, dy = np.median(moves, axis=0)
    shorter_px = min((place.bottom - place.top) * height, (place.right - place.left) * width)
    if np.median(np.linalg.norm(moves - (dx, dy), axis=1)) > max(1.0, MOST_SCATTER * shorter_px):
        return None
    growth = min(max(_growth(points, there), 1 / MOST_GROWTH), MOST_GROWTH)
    y = (place.top + place.bottom) / 2 + float(dy) / height
    x = (place.left + place.right) / 2 + float(dx) / width
    if not (0 <= y <= 1 and 0 <= x <= 1):
        return None
    high, wide = (place.bottom - place.top) * growth / 2, (place.right - place.left) * growth / 2
    return Place(y - high, x - wide, y + high, x + wide)


def _growth(points: NDArray[np.float32], there: NDArray[np.float32]) -> float:
    """The median by which distances between pairs of points grew."""
    first, second = np.triu_indices(len(points), 1)
    before = np.linalg.norm(points[first] - points[second], axis=1)
    after = np.linalg.norm(there[first] - there[second], axis=1)
    return float(np.median(after / before))
