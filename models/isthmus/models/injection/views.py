"""What an injected network learns from: pictures alone, parts of them, and mosaics of several; seeded, without end."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.distillation.views import Album
from isthmus.models.pictures import BORDER, fitted

Image = NDArray[np.uint8]
ALONE = 0.4
"""The share of views that show one picture; the others show four, or nine where the view is large."""
WHOLE = 0.5
"""The share of views that show a picture whole, in the middle of grey, as a detector is asked; else a part fills its tile."""
LARGE = 400
"""From so many pixels on, a view may show nine."""
ENLARGED = 2.5
"""Pictures are enlarged to at most so many times themselves where they fill a tile: a detector sees sharp ones."""
REDUCED = 0.4
STRETCH = 0.2
"""The largest logarithm of a part's aspect, either way."""
LIGHT = 0.25
"""The largest change of contrast and brightness, as a share, and of the gamma's logarithm."""


def view(album: Album, index: NDArray[np.int64], size: int, rng: np.random.Generator) -> Image:
    """One view (size, size, 3) of pictures of `album` whose numbers are among `index`."""
    tiles = 1 if rng.random() < ALONE else 3 if size >= LARGE and rng.random() < 0.35 else 2
    edges = np.linspace(0, size, tiles + 1).astype(int)
    whole = np.full((size, size, 3), BORDER, np.uint8)
    for row in range(tiles):
        for column in range(tiles):
            (top, bottom), (left, right) = edges[row : row + 2], edges[column : column + 2]
            picture = album[int(index[rng.integers(len(index))])]
            whole[top:bottom, left:right] = _tile(picture, (int(bottom - top), int(right - left)), rng)
    return whole


def _tile(picture: Image, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    whole = rng.random() < WHOLE
    shown = fitted(picture, shape, "letterbox") if whole else _part(picture, shape, rng)
    if rng.random() < 0.5:
        shown = shown[:, ::-1]
    return _lit(np.ascontiguousarray(shown), rng)


def _part(picture: Image, shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """A part of a picture that fills the tile, or as much of it as sharpness allows."""
    scale = float(np.exp(rng.uniform(np.log(REDUCED), np.log(ENLARGED))))
    aspect = float(np.exp(rng.uniform(-STRETCH, STRETCH)))
    sides = zip(shape, picture.shape[:2], (aspect**0.5, aspect**-0.5), strict=True)
    high, wide = (max(1, min(own, round(of / scale * by))) for of, own, by in sides)
    top, left = int(rng.integers(picture.shape[0] - high + 1)), int(rng.integers(picture.shape[1] - wide + 1))
    part = picture[top : top + high, left : left + wide]
    return fitted(part, shape, "stretch" if max(shape[0] / high, shape[1] / wide) <= ENLARGED else "letterbox")


def _lit(x: Image, rng: np.random.Generator) -> Image:
    contrast, brightness, gamma = rng.uniform(-LIGHT, LIGHT, 3)
    levels = np.linspace(0, 1, 256) ** np.exp(gamma)
    table = ((levels - 0.5) * (1 + contrast) + 0.5 + brightness / 2).clip(0, 1) * 255
    return np.asarray(cv2.LUT(x, table.astype(np.uint8)), np.uint8)
