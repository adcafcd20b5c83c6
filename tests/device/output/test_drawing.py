"""Answers drawn onto pictures: what is where it should be, and nothing that an answer may hold stops a live page."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.device.output.drawing import LEAST, colour, drawn
from isthmus.proto.tasks.depth import DepthEstimation
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Box,
    Depth,
    Detail,
    Embedding,
    Keypoint,
    Mask,
    Pose,
    Reason,
    Values,
)

SIZE = 400
GREY = np.full((SIZE, SIZE, 3), 100, np.uint8)


def answer(detail: Detail | None = None, **changed: Any) -> Answer:
    known: dict[str, Any] = {
        "frame_id": 0,
        "label": 1,
        "confidence": 0.9,
        "source": AnswerSource.SERVER,
        "reason": Reason.RETURNED,
        "point": None,
        "answered_s": 1.0,
        "latency_s": 0.08,
        "on_time": True,
        "bytes_up": 100,
        "detail": detail,
    }
    return Answer(**{**known, **changed})


def changed(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the picture itself is no longer grey."""
    return np.asarray((picture[:SIZE] != GREY).any(axis=2), np.bool_)


def mask() -> Mask:
    classes = np.zeros((40, 40), np.uint8)
    classes[20:] = 3
    return Mask(40, 40, zlib.compress(classes.tobytes()), {0: 0.5, 3: 0.5})


def depth() -> Depth:
    packed = DepthEstimation().pack([np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)])
    detail = DepthEstimation().guess(packed, temperature=1.0, accuracy=0.9).detail
    assert isinstance(detail, Depth)
    return detail


def test_a_box_is_drawn_where_it_is_in_its_class_colour() -> None:
    before = GREY.copy()
    picture = drawn(before, answer((Box(2, 0.8, 0.25, 0.5, 0.75, 1.0),)), ("a", "b", "cup"))
    assert (before == GREY).all()  # the picture that was given is left alone
    assert picture.shape[0] > SIZE  # a caption stands below
    assert tuple(picture[SIZE // 2, SIZE // 2]) == colour(2)
    assert not changed(picture)[:50].any()
    assert not changed(picture)[:, : SIZE // 2 - 10].any()


def test_a_mask_covers_its_class_and_not_the_background() -> None:
    picture = changed(drawn(GREY, answer(mask(), label=3)))
    assert picture[SIZE // 2 + 5 :].all()
    assert not picture[100 : SIZE // 2 - 10, SIZE // 2 :].any()  # beside the legend


def test_depth_goes_from_dark_to_bright() -> None:
    picture = drawn(GREY, answer(depth()))
    assert picture[0].mean() + 30 < picture[SIZE - 1].mean()


def test_only_keypoints_that_are_seen_are_drawn() -> None:
    points = (Keypoint(0.25, 0.25, 0.9), Keypoint(0.75, 0.75, 0.1))
    picture = changed(drawn(GREY, answer(Pose(points))))
    assert picture[100, 100]
    assert not picture[SIZE // 2 :, SIZE // 2 :].any()


@pytest.mark.parametrize(
    "given",
    [
        answer(),
        answer(()),
        answer((Box(9, 0.4, -5.0, -5.0, 7.0, 1e30),)),
        answer(Pose(tuple(Keypoint(i / 17, -9e9, 1.0) for i in range(17)))),
        answer(Embedding(0.1, b"\1\2")),
        answer(Values(((3, 4),), (1.0,), b"")),
        answer(Mask(40, 40, b"no mask", {3: 1.0})),
        answer(label=None, source=AnswerSource.NONE, reason=Reason.DEADLINE),
        answer(source=AnswerSource.REPEAT, age_s=2.0),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (700, 600)])
def test_whatever_an_answer_holds_there_is_a_picture(given: Answer, shape: tuple[int, int]) -> None:
    picture = drawn(np.zeros((*shape, 3), np.uint8), given, ("a name " * 30,))
    assert picture.dtype == np.uint8
    assert max(picture.shape[:2]) >= LEAST


def test_neighbouring_classes_are_told_apart() -> None:
    colours = np.array([colour(k) for k in range(20)], int)
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 150
