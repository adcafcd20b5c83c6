"""Keypoints: read from each family's outputs, packed small, compared by what a body's size makes of a distance."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from isthmus.proto.tasks import task_called
from isthmus.proto.tasks.pose import COCO, SEEN, PoseEstimation, keypoints
from isthmus.proto.vocabulary import Guess, Keypoint, Placing, Pose

SIZE = (129, 257)
STRIDE = 16


def body(shift: float = 0.0, score: float = 0.9) -> NDArray[np.float32]:
    """17 points (1, 17, 3) from 0.2 to 0.8 of the picture."""
    at = np.linspace(0.2, 0.8, 17)
    return np.column_stack([at + shift, at[::-1], np.full(17, score)]).astype(np.float32)[None]


def told(*outputs: NDArray[np.float32], size: tuple[int, int] = (1, 1)) -> Guess:
    task = PoseEstimation(size, classes=None)
    return task.guess(task.pack(outputs), temperature=1.0, accuracy=0.5)


def points(guess: Guess) -> tuple[Keypoint, ...]:
    assert isinstance(guess.detail, Pose)
    return guess.detail.points


def test_a_pose_crosses_in_a_hundred_bytes() -> None:
    packed = PoseEstimation().pack([body()])
    assert len(packed) == 102
    guess = told(body())
    assert len(points(guess)) == 17
    assert guess.confidence == pytest.approx(0.9, abs=1e-3)
    np.testing.assert_allclose([(p.top, p.left, p.score) for p in points(guess)], body()[0], atol=5e-4)


def test_heat_maps_with_offsets_give_places_between_cells() -> None:
    """PoseNet: the hottest cell times the stride, and the offset there; tops before lefts."""
    heat = np.full((9, 17, 2), -5.0, np.float32)
    offsets = np.zeros((9, 17, 4), np.float32)
    heat[3, 8, 0], heat[8, 16, 1] = 2.0, 0.0
    offsets[3, 8] = 4.5, 99, -7.25, 99  # of point 1 nothing is read here
    rows = keypoints([heat, offsets], SIZE)
    np.testing.assert_allclose(rows[0], [(3 * STRIDE + 4.5) / 129, (8 * STRIDE - 7.25) / 257, 1 / (1 + np.exp(-2))])
    np.testing.assert_allclose(rows[1], [8 * STRIDE / 129, 16 * STRIDE / 257, 0.5])


@pytest.mark.parametrize("layout", ["last", "first"])
def test_heat_maps_alone_give_the_middle_of_the_hottest_cell(layout: str) -> None:
    heat = np.zeros((8, 6, 5), np.float32)
    heat[2, 4] = 0.75
    given = heat if layout == "last" else np.moveaxis(heat, 2, 0)
    np.testing.assert_allclose(keypoints([given], (256, 192)), [[2.5 / 8, 4.5 / 6, 0.75]] * 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "size"),
    [
        ([np.zeros((8, 8, 8), np.float32)], (64, 64)),  # which of the three are the points?
        ([np.zeros((4, 6, 9), np.float32)], (64, 64)),
        ([np.zeros(51, np.float32)], (64, 64)),
        ([np.zeros((1, 1, 3), np.float32)], (64, 64)),  # one point is no pose
        ([np.full((8, 8, 5), np.nan, np.float32)], (64, 64)),
    ],
)
def test_outputs_of_no_pose_are_refused(outputs: list[NDArray[np.float32]], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"expected|cannot tell|not finite"):
        PoseEstimation(size).pack(outputs)


def test_a_body_that_moved_a_little_agrees_and_one_elsewhere_does_not() -> None:
    task = PoseEstimation()
    here = told(body())
    assert task.agreement(here, here) == 1.0
    assert 0.9 < task.agreement(told(body(0.01)), here) < 1.0
    assert task.agreement(told(body(0.4)), here) < 0.05


def test_similarity_is_cocos_own_formula() -> None:
    a, b = told(body(0.03)), told(body())
    area = 0.6 * 0.6
    expected = np.exp(-(0.03**2) / (2 * area * (2 * np.array(COCO)) ** 2)).mean()
    assert PoseEstimation().agreement(a, b) == pytest.approx(float(expected), rel=0.02)  # places are rounded


def test_points_that_only_one_sees_count_nothing() -> None:
    task = PoseEstimation()
    half = body()
    half[0, :8, 2] = SEEN / 2
    assert task.agreement(told(half), told(body())) == pytest.approx(9 / 17)
    assert task.agreement(told(body()), told(half)) == pytest.approx(9 / 17)
    assert task.agreement(told(body(score=0.1)), told(body(0.4, score=0.1))) == 1.0  # nobody is there
    assert task.agreement(told(body(score=0.1)), told(body())) == 0.0


def test_points_come_back_in_shares_of_the_whole_picture() -> None:
    """A letterbox of a wide picture: what is at its upper edge there is at the picture's own."""
    guess = Placing(top=0.25, height=0.5).outward(told(np.array([[[0.25, 0.5, 0.9], [0.75, 1.0, 0.9]]], np.float32)))
    assert [(p.top, p.left) for p in points(guess)] == [(0.0, 0.5), (1.0, 1.0)]


@pytest.mark.parametrize(
    "packed",
    [(), (0.5,) * 51, b"", b"short", struct.pack("<3e", 0.5, 0.5, 2.0), struct.pack("<3e", float("nan"), 0, 0.5)],
)
def test_what_is_no_pose_is_refused(packed: tuple[float, ...] | bytes) -> None:
    with pytest.raises(ValueError, match=r"^pose: "):
        PoseEstimation().guess(packed, temperature=1.0, accuracy=0.5)
    with pytest.raises(ValueError, match=r"^pose: 17 points, 3 are expected"):
        task_called("pose", None, (8, 8), 3).guess(PoseEstimation().pack([body()]), temperature=1.0, accuracy=0.5)


@given(st.binary(max_size=200))
def test_whatever_crosses_is_a_pose_or_is_refused(packed: bytes) -> None:
    try:
        guess = PoseEstimation().guess(packed, temperature=1.0, accuracy=0.5)
    except ValueError:
        return
    assert 0 <= guess.confidence <= 1
    assert 0 <= PoseEstimation().agreement(guess, guess) <= 1
