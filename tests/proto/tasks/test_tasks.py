"""Tasks: what is packed is what is read, two answers agree as they should, and damaged outputs are refused."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.detection import Detection
from isthmus.proto.tasks.segmentation import MASK_ROOM_BYTES, Segmentation, pixels
from isthmus.proto.tasks.task import Arrays, Packed, Task
from isthmus.proto.vocabulary import Box, Guess, Mask

HUGE_REST = bytes.fromhex("".join(f"{k:02x}00" for k in range(16)) + "0000803f" * 16 + "00000060")
"""Sixteen logits of 1 and a rest of 3.7e19: found by a fuzzer, it ended the device with an OverflowError."""


def greatest(*labels: int) -> bytes:
    return struct.pack("<16H16ff", *labels, *[1.0] * 16, 0.0)


def told(task: Task, outputs: Arrays, *, temperature: float = 1.0, accuracy: float = 0.5) -> Guess:
    return task.guess(task.pack(outputs), temperature=temperature, accuracy=accuracy)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=300), st.floats(0.3, 3))
def test_classes_many_or_few_are_read_as_the_softmax_says(logits: list[float], temperature: float) -> None:
    guess = told(Classification(), [np.array(logits, np.float32)], temperature=temperature)
    z = np.array(logits) / temperature
    assert logits[guess.label] == max(logits)
    if len(logits) <= 64 or temperature == 1:
        assert guess.confidence == pytest.approx(1 / np.exp(z - z.max()).sum(), rel=1e-4)
    assert 0 < guess.confidence <= 1


def test_of_a_thousand_classes_a_hundred_bytes_cross() -> None:
    logits = np.random.default_rng(0).normal(0, 3, 1001).astype(np.float32)
    packed = Classification().pack([logits])
    assert isinstance(packed, bytes)
    assert len(packed) == 100
    guess = Classification().guess(packed, temperature=1.0, accuracy=0.0)
    assert guess.label == logits.argmax()
    assert guess.confidence == pytest.approx(float(np.exp(logits.max()) / np.exp(logits).sum()), rel=1e-4)


def test_a_softmax_keeps_its_probability() -> None:
    p = np.array([0.0, 0.2, 0.7, 0.1], np.float32)
    assert told(Classification(probabilities=True), [p]).confidence == pytest.approx(0.7, abs=1e-4)


def deflated(mask: np.ndarray) -> bytes:
    packed = Segmentation().pack([mask])
    assert isinstance(packed, bytes)
    return packed


@pytest.mark.parametrize(
    ("task", "packed"),
    [
        (Classification(), ()),
        (Classification(), (0.0, math.nan)),
        (Classification(), b"short"),
        (Classification(), bytes(96) + struct.pack("<f", math.inf)),
        (Segmentation(), (0.0,)),
        (Segmentation(), b"\x02\x00\x02\x00not deflated"),
        (Segmentation(), deflated(np.zeros((8, 8), np.int64))[:-6]),
        (Segmentation(), struct.pack("<HH", 4, 4) + deflated(np.zeros((8, 8), np.int64))[4:]),
        (Segmentation(), bytes(8)),
        (Detection(), b"x" * 23),
        (Detection(), struct.pack("<6f", 1, math.nan, 0, 0, 1, 1)),
        # What a server that lies may send:
        (Classification(), HUGE_REST),
        (Classification(classes=25), (0.0,) * 20),
        (Classification(classes=25), (0.0,) * 3001),
        (Classification(classes=25), greatest(*range(16))),
        (Classification(classes=1000), greatest(*range(15), 60_000)),
        (Classification(classes=1000), greatest(*[7] * 16)),
        (Segmentation(classes=21), Segmentation().pack([np.full((4, 4), 21)])),
        (Segmentation(), struct.pack("<HH", 65535, 65535) + zlib.compress(bytes(1000))),
        (Detection(classes=90), struct.pack("<6f", 90, 0.5, 0, 0, 1, 1)),
        (Detection(), struct.pack("<6f", -1, 0.5, 0, 0, 1, 1)),
        (Detection(), struct.pack("<6f", 3e38, 0.5, 0, 0, 1, 1)),
        (Detection(), struct.pack("<6f", 1, 7.0, 0, 0, 1, 1)),
        (Detection(), struct.pack("<12f", 1, 0.2, 0, 0, 1, 1, 1, 0.9, 0, 0, 1, 1)),
        (Detection(), bytes(24 * (Boxes().most + 1))),
    ],
)
def test_what_cannot_be_read_is_refused(task: Task, packed: tuple[float, ...] | bytes) -> None:
    with pytest.raises(ValueError, match=r"^(logits|classes|mask|boxes): "):
        task.guess(packed, temperature=1.0, accuracy=0.5)


TASKS_OF_21 = st.sampled_from([Classification(classes=21), Segmentation(classes=21), Detection(classes=21)])


@settings(deadline=None)
@given(
    st.one_of(TASKS_OF_21, st.sampled_from([Classification(), Segmentation(), Detection()])),
    st.one_of(
        st.binary(max_size=120),
        st.binary(min_size=100, max_size=100),
        st.lists(st.floats(width=32), max_size=70).map(tuple),
        st.binary(max_size=64).map(lambda raw: struct.pack("<HH", 4, 4) + zlib.compress(raw)),
        st.lists(st.floats(width=32), min_size=6, max_size=6).map(lambda row: struct.pack("<6f", *row)),
    ),
    st.floats(0.01, 100),
)
def test_whatever_crosses_is_an_answer_or_is_refused(task: Task, packed: Packed, temperature: float) -> None:
    try:
        guess = task.guess(packed, temperature=temperature, accuracy=0.5)
    except ValueError:
        return
    assert 0 <= guess.label < 65_536
    assert -0.02 <= guess.confidence <= 1.02


def test_of_a_picture_without_boxes_nothing_crosses_and_that_is_an_answer() -> None:
    assert Detection().guess((), temperature=1.0, accuracy=0.8) == Guess(0, 0.8, ())


def test_a_mask_crosses_whole_and_names_what_covers_most() -> None:
    mask = np.zeros((6, 10), np.int64)
    mask[:2], mask[5, 3:] = 7, 3
    guess = told(Segmentation(), [mask], accuracy=0.9)
    assert isinstance(guess.detail, Mask)
    np.testing.assert_array_equal(pixels(guess.detail), mask)
    assert (guess.label, guess.confidence) == (7, 0.9)
    assert guess.detail.covered == {0: 33 / 60, 3: 7 / 60, 7: 20 / 60}


def test_scores_are_a_mask_too() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    guess = told(Segmentation(), [scores])
    assert isinstance(guess.detail, Mask)
    np.testing.assert_array_equal(pixels(guess.detail), scores.argmax(-1))


def test_a_mask_of_one_channel_is_the_probability_of_its_class() -> None:
    """It once was the greatest of one channel: class 0 everywhere, in whatever picture, and agreed with itself."""
    probability = np.array([[[0.9], [0.2]], [[0.6], [0.5]]], np.float32)
    guess = told(Segmentation(), [probability])
    assert isinstance(guess.detail, Mask)
    assert pixels(guess.detail).tolist() == [[1, 0], [1, 0]]
    with pytest.raises(ValueError, match="must hold probabilities"):
        Segmentation().pack([probability * 8])


def test_a_mask_of_noise_still_fits() -> None:
    packed = Segmentation().pack([np.random.default_rng(0).integers(0, 256, (513, 513))])
    assert len(packed) < MASK_ROOM_BYTES + 4
    assert Segmentation().guess(packed, temperature=1.0, accuracy=1.0).label >= 0


def test_masks_agree_by_mean_intersection_over_union() -> None:
    one, other = np.zeros((4, 4), np.int64), np.zeros((4, 4), np.int64)
    one[:2], other[:1] = 1, 1
    task = Segmentation()
    assert task.agreement(told(task, [one]), told(task, [one])) == 1.0
    assert task.agreement(told(task, [one]), told(task, [other])) == pytest.approx((4 / 8 + 8 / 12) / 2)
    with pytest.raises(ValueError, match=r"masks: \(4, 4\) against \(2, 2\)"):
        task.agreement(told(task, [one]), told(task, [one[:2, :2]]))


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Arrays:
    """Of (top, left, bottom, right, class, score)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return [table[:, :4], table[:, 4], table[:, 5], np.array([len(rows)], np.float32)]


def test_boxes_cross_surest_first() -> None:
    outputs = boxes((0, 0, 0.5, 0.5, 2, 0.35), (0.1, 0.2, 0.3, 0.4, 1, 0.75))
    guess = told(Detection(), outputs)
    assert guess.detail is not None
    assert guess.detail[0] == Box(1, 0.75, *map(float, np.array([0.1, 0.2, 0.3, 0.4], np.float32)))  # type: ignore[index]
    assert (guess.label, guess.confidence) == (1, 0.75)
    assert told(Detection(), boxes(), accuracy=0.8) == Guess(0, 0.8, ())
    assert told(Detection(), boxes(*[(0, 0, 1, 1, 1, 0.5)] * 200)).detail == (Box(1, 0.5, 0.0, 0.0, 1.0, 1.0),)


def test_boxes_agree_by_class_and_place() -> None:
    task = Detection()
    here, there = (0.0, 0.0, 0.5, 0.5, 1, 0.9), (0.5, 0.5, 1.0, 1.0, 1, 0.9)
    moved, unsure = (0.0, 0.05, 0.5, 0.55, 1, 0.8), (0.5, 0.5, 1.0, 1.0, 1, 0.2)
    other_class = (0.0, 0.0, 0.5, 0.5, 2, 0.9)
    one = told(task, boxes(here, there))
    assert task.agreement(one, one) == 1.0
    assert task.agreement(one, told(task, boxes(moved, there))) == 1.0
    assert task.agreement(one, told(task, boxes(here, unsure))) == pytest.approx(2 / 3)
    assert task.agreement(told(task, boxes(here)), told(task, boxes(other_class))) == 0.0
    assert task.agreement(told(task, boxes()), told(task, boxes())) == 1.0
