"""What is in view: answers flicker, presence does not."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.device.output.presence import HOLD_S, Change, Presence, seen
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Box, Mask, Reason


def row(at_s: float, label: int | None = 1, *, boxes: tuple[int, ...] | None = None, **more: Any) -> FrameRecord:
    found = None if boxes is None else tuple(Box(b, 0.8, 0.1, 0.1, 0.5, 0.5) for b in boxes)
    told: dict[str, Any] = {
        "frame_id": 0, "captured_s": at_s, "deadline_s": at_s + 0.1, "label": label, "confidence": 0.9,
        "source": AnswerSource.EXIT, "reason": Reason.CONFIDENT, "answered_s": at_s, "latency_s": 0.0, "on_time": True,
        "answer": "thing", "boxes": found,
    }  # fmt: skip
    return FrameRecord(**(told | more))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (row(0, boxes=(3, 3, 5)), {3: 0.8, 5: 0.8}),
        (row(0, 0, boxes=()), {}),
        (row(0, 7), {7: 0.9}),
        (row(0, 7, answer="nothing"), {}),
        (row(0, 7, answer=None), {}),
        (row(0, 7, source=AnswerSource.FILTER), {}),
        (row(0, None, source=AnswerSource.NONE), {}),
        (row(0, 2, mask=Mask(1, 1, b"", {0: 0.9, 2: 0.1})), {2: 1.0}),
    ],
)
def test_what_an_answer_says_is_in_its_picture(answer: FrameRecord, expected: dict[int, float]) -> None:
    assert seen(answer) == expected


def test_what_blinks_stays_and_what_is_away_for_long_has_gone() -> None:
    presence = Presence()
    assert presence.due_at is None
    assert presence.answered(row(1.0, boxes=(2,))) == [Change(2, True, 1.0)]
    assert presence.answered(row(1.5, 0, boxes=())) == []
    assert presence.answered(row(2.0, boxes=(2, 4))) == [Change(4, True, 2.0)]
    assert presence.answered(row(3.0, boxes=(4,))) == []
    assert presence.due_at == 2.0 + HOLD_S
    assert presence.step(3.9) == []
    assert presence.step(4.0) == [Change(2, False, 4.0)]
    assert presence.labels == {4}


def test_an_answer_that_is_none_is_no_sign_of_absence() -> None:
    presence = Presence()
    presence.answered(row(1.0, boxes=(2,)))
    assert presence.answered(row(1.1, None, source=AnswerSource.NONE)) == []
    assert presence.labels == {2}


def test_it_takes_a_sure_answer_to_come_and_any_to_stay() -> None:
    presence = Presence()
    assert presence.answered(row(1.0, 7, confidence=0.4)) == []
    assert presence.answered(row(1.1, 7, confidence=0.6)) == [Change(7, True, 1.1)]
    presence.answered(row(3.0, 7, confidence=0.4))
    assert presence.step(4.0) == []
    assert presence.labels == {7}


def test_only_what_is_watched_comes() -> None:
    presence = Presence({4})
    assert presence.answered(row(1.0, boxes=(2, 4))) == [Change(4, True, 1.0)]
    assert not presence.watches(2)
