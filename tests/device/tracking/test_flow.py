"""Median flow on pictures that are moved by a known amount."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.device.tracking.flow import LONGEST_PX, follow, small_grey
from isthmus.device.tracking.pictures import Pictures, follow_through
from isthmus.device.tracking.tracks import Place, overlap

HEIGHT, WIDTH = 120, 160
BOX = Place(0.4, 0.3, 0.6, 0.5)


def scene(dx: float = 0.0, dy: float = 0.0, scale: float = 1.0) -> NDArray[np.uint8]:
    """A soft sky, and a textured thing in `BOX`, moved by pixels and grown about its middle."""
    rng = np.random.default_rng(1)
    sky = cv2.GaussianBlur(rng.normal(128, 20, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 6)
    thing = cv2.GaussianBlur(rng.normal(128, 300, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 1.5)
    inside = np.zeros((HEIGHT, WIDTH), np.float32)
    inside[int(BOX.top * HEIGHT) : int(BOX.bottom * HEIGHT), int(BOX.left * WIDTH) : int(BOX.right * WIDTH)] = 1
    y, x = (BOX.top + BOX.bottom) / 2 * HEIGHT, (BOX.left + BOX.right) / 2 * WIDTH
    move = np.array([[scale, 0, x - scale * x + dx], [0, scale, y - scale * y + dy]], np.float32)
    there, shape = (cv2.warpAffine(a, move, (WIDTH, HEIGHT)) for a in (thing, inside))
    return np.clip(np.where(shape > 0.5, there, sky), 0, 255).astype(np.uint8)


def moved(dx: float = 0.0, dy: float = 0.0, scale: float = 1.0) -> Place:
    y, x = (BOX.top + BOX.bottom) / 2 + dy / HEIGHT, (BOX.left + BOX.right) / 2 + dx / WIDTH
    high, wide = (BOX.bottom - BOX.top) / 2 * scale, (BOX.right - BOX.left) / 2 * scale
    return Place(y - high, x - wide, y + high, x + wide)


@pytest.mark.parametrize("change", [(0, 0, 1), (5.5, -3.2, 1), (-9, 4, 1), (1, 0.5, 1.08), (0, 0, 0.93)])
def test_a_box_moves_and_grows_as_its_thing_does(change: tuple[float, float, float]) -> None:
    (found,) = follow(scene(), scene(*change), [BOX])
    assert found is not None
    assert overlap(found, moved(*change)) > 0.9


def test_what_vanishes_is_lost() -> None:
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    assert follow(scene(), noise, [BOX]) == (None,)


def test_what_leaves_the_picture_is_lost() -> None:
    edge = Place(0.4, 0.9, 0.6, 1.1)
    greys = [np.roll(scene(), 70 + 4 * i, axis=1) for i in range(12)]
    assert follow_through(greys, [edge]) == (None,)


def test_pictures_of_another_size_have_nothing_in_common() -> None:
    assert follow(scene(), scene()[:60, :80], [BOX]) == (None,)
    assert follow(scene(), scene(), []) == ()


def test_through_several_pictures() -> None:
    greys = [scene(3 * i, -2 * i) for i in range(6)]
    (found,) = follow_through(greys, [BOX])
    assert found is not None
    assert overlap(found, moved(15, -10)) > 0.85
    assert follow_through([greys[0], None, greys[2]], [BOX]) == (None,)


def test_pictures_are_kept_small_and_not_for_ever() -> None:
    pictures = Pictures()
    for i in range(60):
        pictures.keep(i, np.zeros((240, 2 * LONGEST_PX, 3), np.uint8))
    assert len(pictures._greys) == 32
    assert pictures._greys[59].shape == (120, LONGEST_PX)
    assert pictures.job([1, 2], [BOX])() == (None,)


def test_grey_of_floats_and_of_small_pictures() -> None:
    pixels = np.full((20, 30, 3), 300.0, np.float32)
    assert small_grey(pixels).shape == (20, 30)
    assert small_grey(pixels).max() == 255
