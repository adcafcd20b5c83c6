"""The tracker on paper: whoever follows is a script, and every order of events is allowed."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from isthmus.device.tracking.tracker import RECENT, Tracker
from isthmus.device.tracking.tracks import Place
from isthmus.proto.vocabulary import Box, Frame, Guess

BIRD, DRONE = 1, 2
SPEED = 0.01
"""Everything moves so far to the right from one frame to the next."""


def at(frame_id: int) -> Place:
    return Place(0.4, 0.1 + SPEED * frame_id, 0.5, 0.2 + SPEED * frame_id)


def frame(frame_id: int) -> Frame:
    return Frame(frame_id, frame_id / 30, frame_id / 30 + 0.1)


def seen(frame_id: int, label: int = BIRD, score: float = 0.8) -> Guess:
    box = Box(label, score, *at(frame_id))
    return Guess(label, score, (box,))


NOTHING = Guess(0, 0.7, ())


def follow(tracker: Tracker, lost: Callable[[Place], bool] = lambda _: False) -> int:
    """Do what is asked until nothing is; how many frames places were followed over."""
    steps = 0
    while (asked := tracker.asks()) is not None:
        assert list(asked.frame_ids) == sorted(set(asked.frame_ids))
        assert len(asked.frame_ids) > 1
        far = SPEED * (asked.frame_ids[-1] - asked.frame_ids[0])
        steps += len(asked.frame_ids) - 1
        tracker.on_followed(
            tuple(None if lost(p) else Place(p.top, p.left + far, p.bottom, p.right + far) for p in asked.places)
        )
    return steps


def places(guess: Guess | None) -> list[tuple[float, ...]]:
    assert guess is not None
    assert isinstance(guess.detail, tuple)
    return [tuple(round(edge, 6) for edge in (b.top, b.left, b.bottom, b.right)) for b in guess.detail]


def where(frame_id: int) -> tuple[float, ...]:
    return tuple(round(edge, 6) for edge in at(frame_id))


def test_before_any_detection_nothing_is_said() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    assert tracker.guess(0) is None
    assert tracker.asks() is None


def test_boxes_are_carried_from_frame_to_frame() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    assert tracker.detected(frame(0), seen(0)) == seen(0)
    for i in range(1, 10):
        tracker.on_frame(frame(i))
        assert follow(tracker) == 1
        assert places(tracker.guess(i)) == [where(i)]
    assert tracker.detected_s == 0.0


def test_a_late_detection_is_carried_on_to_now() -> None:
    tracker = Tracker()
    for i in range(7):
        tracker.on_frame(frame(i))
        follow(tracker)
    tracker.detected(frame(0), seen(0))
    assert follow(tracker) == 2  # three frames at a time
    assert places(tracker.guess(6)) == [where(6)]


def test_a_late_word_changes_what_a_tracked_thing_is_called_and_is_answered_where_it_was() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    tracker.detected(frame(0), seen(0, BIRD, 0.5))
    for i in range(1, 7):
        tracker.on_frame(frame(i))
        follow(tracker)
    told = tracker.detected(frame(2), seen(2, DRONE, 0.9))
    assert told.label == DRONE
    assert places(told)[0] == where(2)
    follow(tracker)
    now = tracker.guess(6)
    assert now is not None
    assert now.label == DRONE
    assert places(now)[0] == where(6)


def test_a_late_word_on_what_is_tracked_needs_nobody_to_follow_it() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    tracker.detected(frame(0), seen(0, BIRD, 0.5))
    for i in range(1, 9):
        tracker.on_frame(frame(i))
        if i % 4 == 0:
            assert follow(tracker) > 0
    for i in (1, 3, 6):  # frames that were passed by, too
        tracker.detected(frame(i), seen(i, DRONE, 0.9))
        assert follow(tracker) == 0
        assert places(tracker.guess(8))[0] == where(8)
    assert tracker.guess(8).label == DRONE  # type: ignore[union-attr]


def test_what_was_lost_meanwhile_is_not_brought_back_by_a_late_word_on_it() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    tracker.detected(frame(0), seen(0))
    for i in range(1, 3):
        tracker.on_frame(frame(i))
        follow(tracker)
    other = Guess(DRONE, 0.6, (Box(DRONE, 0.6, 0.7, 0.7, 0.8, 0.8),))
    tracker.detected(frame(2), other)
    tracker.on_frame(frame(3))
    follow(tracker, lost=lambda place: place.top < 0.6)
    tracker.detected(frame(1), seen(1))
    assert follow(tracker) == 0
    assert [box[0] for box in places(tracker.guess(3))] == [0.7]


def test_a_recent_frame_is_told_where_things_were_then() -> None:
    tracker = Tracker()
    for i in range(5):
        tracker.on_frame(frame(i))
        if i == 0:
            tracker.detected(frame(0), seen(0))
        follow(tracker)
    assert places(tracker.guess(3)) == [where(3)]


def test_what_is_lost_is_no_longer_told_and_an_empty_picture_is_an_answer() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    tracker.detected(frame(0), seen(0))
    tracker.on_frame(frame(1))
    follow(tracker, lost=lambda _: True)
    assert tracker.guess(1) == Guess(0, 0.0, ())
    tracker.detected(frame(1), NOTHING)
    assert tracker.guess(1) == NOTHING


def test_what_was_not_detected_this_time_is_told_less_surely() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    tracker.detected(frame(0), seen(0, BIRD, 0.8))
    tracker.on_frame(frame(1))
    follow(tracker)
    told = tracker.detected(frame(1), NOTHING)
    assert places(told) == [where(1)]
    assert told.confidence == 0.4


def test_a_detection_that_is_too_old_is_not_taken_up() -> None:
    tracker = Tracker()
    for i in range(RECENT + 5):
        tracker.on_frame(frame(i))
    tracker.detected(frame(2), seen(2))
    assert follow(tracker) == 0
    assert places(tracker.guess(RECENT + 4)) == []


def test_followers_that_fall_far_behind_lose_what_was_tracked() -> None:
    tracker = Tracker()
    tracker.on_frame(frame(0))
    tracker.detected(frame(0), seen(0))
    for i in range(1, RECENT + 5):
        tracker.on_frame(frame(i))  # and nobody follows
    assert tracker.asks() is None
    assert places(tracker.guess(RECENT + 4)) == []


EVENTS = st.lists(st.sampled_from(["frame", "follow", "exit", "late", "nothing", "gap"]), max_size=80)


@given(EVENTS, st.integers(0, 2**16))
def test_any_order_of_events(events: list[str], salt: int) -> None:
    """One job at a time, frames in order, and every answer well formed."""
    tracker, newest, asked = Tracker(), -1, None
    for n, event in enumerate(events):
        match event:
            case "frame" | "gap":
                newest += 1 if event == "frame" else 7
                tracker.on_frame(frame(newest))
            case "follow" if asked is not None:
                far = SPEED * (asked.frame_ids[-1] - asked.frame_ids[0])
                lost = (salt >> n % 16) & 1
                tracker.on_followed(
                    tuple(None if lost else Place(p.top, p.left + far, p.bottom, p.right + far) for p in asked.places)
                )
                asked = None
            case "exit" if newest >= 0:
                tracker.detected(frame(newest), seen(newest))
            case "late" if newest >= 0:
                tracker.detected(frame(max(0, newest - salt % 9)), seen(max(0, newest - salt % 9), DRONE, 0.4))
            case "nothing" if newest >= 0:
                tracker.detected(frame(newest), NOTHING)
        if asked is None and (asked := tracker.asks()) is not None:
            assert len(asked.frame_ids) > 1
            assert list(asked.frame_ids) == sorted(set(asked.frame_ids))
        else:
            assert tracker.asks() is None
        told = tracker.guess(newest)
        assert told is None or isinstance(told.detail, tuple)
