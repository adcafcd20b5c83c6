"""A part of the picture crosses: which one, and that answers about it come back in the whole picture's coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.models.picture_ladder import Input, PictureLadder, Region, TailPart, View
from isthmus.models.regions import WHOLE, region_of, seen
from isthmus.proto.vocabulary import Box, Guess, Keypoint, Pose

GREY = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def boxes(*places: tuple[float, float, float, float]) -> Guess:
    return Guess(0, 0.9, tuple(Box(0, 0.9, *place) for place in places))


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        (None, WHOLE),
        (Guess(3, 0.9), WHOLE),
        (boxes(), WHOLE),
        (boxes((0.4, 0.4, 0.6, 0.6)), (0.3, 0.3, 0.7, 0.7)),
        (boxes((0.4, 0.4, 0.45, 0.45)), (0.325, 0.325, 0.525, 0.525)),  # no smaller than the least
        (boxes((0.0, 0.7, 0.2, 0.9)), (0.0, 0.6, 0.4, 1.0)),  # moved, not cut
        (boxes((0.0, 0.0, 0.1, 0.1), (0.8, 0.8, 0.9, 0.9)), WHOLE),
    ],
)
def test_the_part_is_around_all_that_was_found(
    guess: Guess | None, expected: tuple[float, float, float, float]
) -> None:
    assert region_of(guess, Region(margin=0.5, least=0.2)) == pytest.approx(expected)


def test_a_pose_tells_a_part_by_the_points_that_are_sure_to_be_there() -> None:
    points = tuple(Keypoint(*p) for p in ((0.2, 0.5, 0.9), (0.4, 0.7, 0.8), (0.9, 0.0, 0.01)))
    assert region_of(Guess(0, 0.9, Pose(points)), Region(margin=0.0, least=0.01)) == pytest.approx((0.2, 0.5, 0.4, 0.7))
    assert region_of(Guess(0, 0.9, Pose(points[2:])), Region()) == WHOLE


SHARES = st.floats(0, 1)


@given(
    st.tuples(st.integers(30, 200), st.integers(30, 200)),
    st.sampled_from(["stretch", "letterbox"]),
    st.tuples(SHARES, SHARES, SHARES, SHARES),
)
def test_what_is_seen_in_a_part_is_where_it_was(
    shape: tuple[int, int], fit: str, corners: tuple[float, float, float, float]
) -> None:
    """A bright block in a dark picture: found in the part, brought outward, it lies where it was to within a pixel or two."""
    (a, b, c, d), (height, width) = corners, shape
    top, bottom = sorted((int(a * (height - 12)), int(b * (height - 12))))
    left, right = sorted((int(c * (width - 12)), int(d * (width - 12))))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : bottom + 12, left : right + 12] = 255
    taken = Input(96, *GREY, width=64, fit=fit)  # type: ignore[arg-type]
    view = View((96, 64), (50,), ((0.0, 0.0, 0.0),), Region())
    ladder = PictureLadder(taken, "webp", (50,), ((0.0, 0.0, 0.0),), (TailPart("x", "onnx"),), 1, more=(view,))
    place = top / height, left / width, (bottom + 12) / height, (right + 12) / width
    (_, whole), (part, where) = seen(pixels, ladder, boxes(place))
    assert part.shape == (96, 64, 3)
    rows, columns = np.nonzero(part[..., 1] > 200)
    shown = rows.min() / 96, columns.min() / 64, (rows.max() + 1) / 96, (columns.max() + 1) / 64
    found = where.outward(boxes(shown)).detail
    assert isinstance(found, tuple)
    (box,) = found
    slack = 2.5 * max(1 / 96 / whole.height, 1 / 64 / whole.width, 1 / height, 1 / width)
    assert (box.top, box.left, box.bottom, box.right) == pytest.approx(place, abs=slack)
