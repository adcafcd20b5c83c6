"""Things in view, on paper: born, voted on, missed, moved, dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.device.tracking.tracks import (
    LEAST_SCORE,
    MOST_MISSED,
    MOST_THINGS,
    Place,
    Tracks,
    between,
    boxes_of,
    carried,
    overlap,
    things_in,
)
from isthmus.proto.vocabulary import Box

HERE, THERE = Place(0.1, 0.1, 0.2, 0.2), Place(0.6, 0.6, 0.7, 0.7)
BIRD, DRONE = 1, 2


def told(tracks: Tracks) -> tuple[Box, ...]:
    return boxes_of([(thing.place, thing.scores) for thing in tracks.things])


def test_a_detection_is_answered_as_it_is() -> None:
    tracks = Tracks()
    tracks.detect([(HERE, {BIRD: 0.8, DRONE: 0.3}), (THERE, {DRONE: 0.5})], 0)
    assert told(tracks) == (Box(BIRD, 0.8, *HERE), Box(DRONE, 0.5, *THERE), Box(DRONE, 0.3, *HERE))


def test_a_class_that_flickers_is_outvoted() -> None:
    tracks = Tracks()
    for frame, scores in enumerate([{DRONE: 0.6}, {BIRD: 0.7}, {DRONE: 0.6}, {DRONE: 0.6}, {BIRD: 0.7}]):
        tracks.detect([(HERE, dict(scores))], frame)
    assert told(tracks)[0].label == DRONE
    assert told(tracks)[0].score == pytest.approx(0.6 * 3 / 5)


def test_what_was_seen_once_by_mistake_fades() -> None:
    tracks = Tracks()
    tracks.detect([(HERE, {BIRD: 0.12}), (THERE, {DRONE: 0.9})], 0)
    for frame in range(1, 3):
        tracks.detect([(THERE, {DRONE: 0.9})], frame)
    assert [box.label for box in told(tracks)] == [DRONE]


def test_what_is_missed_too_often_in_a_row_is_gone_however_sure_it_was() -> None:
    tracks = Tracks()
    for frame in range(20):
        tracks.detect([(HERE, {BIRD: 1.0})], frame)
    for frame in range(20, 20 + MOST_MISSED):
        assert tracks.things, "still there"
        tracks.detect([], frame)
    assert not tracks.things


def test_what_is_seen_again_was_not_missed() -> None:
    tracks = Tracks()
    for frame in range(40):
        tracks.detect([(HERE, {BIRD: 0.9})] if frame % 3 == 0 else [], frame)
    assert len(tracks.things) == 1


def test_a_late_detection_has_its_word_on_what_was_in_view_by_then() -> None:
    """And misses nothing that was found first in a newer frame."""
    tracks, beside = Tracks(), Place(0.12, 0.12, 0.22, 0.22)
    tracks.detect([(HERE, {BIRD: 0.6})], 2)
    tracks.detect([(HERE, {BIRD: 0.6}), (THERE, {BIRD: 0.6})], 5)
    old, new = tracks.things
    tracks.detect([], 3)
    assert (old.missed, new.missed) == (1, 0)
    assert old.scores[BIRD] == pytest.approx(0.4)
    tracks.detect([(beside, {DRONE: 0.9})], 4)
    assert old.missed == new.missed == 0
    assert new.place == THERE
    assert new.scores == {BIRD: 0.6}


def test_a_place_is_the_mean_of_those_that_were_found() -> None:
    tracks = Tracks()
    for frame, off in enumerate((0.0, 0.02, -0.02, 0.01, -0.01)):
        tracks.detect([(Place(*(edge + off for edge in HERE)), {BIRD: 0.6})], frame)
    assert tracks.places[0] == pytest.approx(HERE)
    for frame in range(5, 40):
        tracks.detect([(Place(*(edge + 0.02 for edge in HERE)), {BIRD: 0.6})], frame)
    assert tracks.places[0] == pytest.approx([edge + 0.02 for edge in HERE], abs=1e-3), "old ones fade"


def test_what_lies_beside_a_thing_goes_where_it_went_and_grows_as_it_did() -> None:
    grown = Place(0.5, 0.5, 0.7, 0.7)
    assert carried(HERE, HERE, grown) == pytest.approx(grown)
    assert carried(Place(0.15, 0.1, 0.2, 0.2), HERE, grown) == pytest.approx((0.6, 0.5, 0.7, 0.7))
    assert between(HERE, THERE, 0.5) == pytest.approx((0.35, 0.35, 0.45, 0.45))


def test_things_move_and_what_is_lost_is_dropped() -> None:
    tracks = Tracks()
    tracks.detect([(HERE, {BIRD: 0.6}), (THERE, {DRONE: 0.5})], 0)
    bird, drone = tracks.things
    tracks.move({bird: THERE, drone: None})
    assert tracks.places == (THERE,)
    tracks.move({})
    assert tracks.places == (THERE,)


def test_boxes_of_one_place_are_one_thing() -> None:
    boxes = (Box(BIRD, 0.8, *HERE), Box(DRONE, 0.5, 0.1, 0.1, 0.2, 0.19), Box(BIRD, 0.3, *THERE))
    assert things_in(boxes) == [(HERE, {BIRD: 0.8, DRONE: 0.5}), (THERE, {BIRD: 0.3})]


def test_only_the_surest_are_kept() -> None:
    tracks = Tracks()
    places = [Place(i / 100, 0.0, i / 100 + 0.009, 0.1) for i in range(50)]
    tracks.detect([(place, {BIRD: 0.9 - i / 100}) for i, place in enumerate(places)], 0)
    assert tracks.places == tuple(places[:MOST_THINGS])


places = st.builds(
    lambda y, x, h, w: Place(y, x, y + h, x + w),
    st.floats(0, 0.8),
    st.floats(0, 0.8),
    st.floats(0.01, 0.2),
    st.floats(0.01, 0.2),
)
detections = st.lists(st.tuples(places, st.dictionaries(st.integers(0, 3), st.floats(0.01, 1), min_size=1)), max_size=5)


@given(st.lists(st.tuples(st.integers(0, 20), detections), max_size=12))
def test_whatever_is_detected_scores_stay_shares_and_boxes_within_the_picture(
    history: list[tuple[int, list[tuple[Place, dict[int, float]]]]],
) -> None:
    tracks = Tracks()
    for frame, found in history:
        tracks.detect(found, frame)
        assert len(tracks.things) <= MOST_THINGS
        for box in told(tracks):
            assert LEAST_SCORE <= box.score <= 1
            assert 0 <= box.top <= box.bottom <= 1
            assert 0 <= box.left <= box.right <= 1


@given(places, places)
def test_overlap_is_a_share_and_the_same_both_ways(a: Place, b: Place) -> None:
    assert 0 <= overlap(a, b) <= 1 + 1e-9
    assert overlap(a, b) == pytest.approx(overlap(b, a))
    assert overlap(a, a) == pytest.approx(1)
