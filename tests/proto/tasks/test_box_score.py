"""Average precision: what is right, missed, doubled or named wrong counts as COCO's rules say."""

from __future__ import annotations

import pytest

from isthmus.proto.tasks.box_score import Judged, scored
from isthmus.proto.vocabulary import Box

pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
LABELS = ("apple", "banana", "car")
TRUTH = (("apple", (10.0, 20.0, 50.0, 80.0)), ("banana", (60.0, 0.0, 100.0, 40.0)))


def picture(*found: Box) -> Judged:
    return Judged(100, 200, TRUTH, found)


def box(name: str, score: float = 0.9, place: tuple[float, ...] | None = None) -> Box:
    top, left, bottom, right = place or dict(TRUTH)[name]
    return Box(LABELS.index(name), score, top / 100, left / 200, bottom / 100, right / 200)


def test_what_is_found_where_it_is_scores_one() -> None:
    score = scored([picture(box("apple"), box("banana"))] * 3, LABELS)
    assert [score.ap50, score.ap50_95, score.agnostic50] == pytest.approx([1, 1, 1])
    assert score.by_class == {"apple": pytest.approx(1), "banana": pytest.approx(1)}


def test_what_is_missed_costs_its_class() -> None:
    score = scored([picture(box("apple"))], LABELS)
    assert score.by_class == {"apple": pytest.approx(1), "banana": pytest.approx(0)}
    assert score.ap50 == pytest.approx(0.5)


def test_a_wrong_name_costs_the_class_and_not_the_place() -> None:
    found = box("apple", place=dict(TRUTH)["banana"]), box("banana", place=dict(TRUTH)["apple"])
    score = scored([picture(*found)], LABELS)
    assert [score.ap50, score.agnostic50] == pytest.approx([0, 1])


def test_a_place_that_is_roughly_right_counts_at_a_half_only() -> None:
    score = scored([picture(box("apple", place=(10, 20, 50, 98)), box("banana", place=(60, 0, 100, 52)))], LABELS)
    assert score.ap50 == pytest.approx(1)
    assert 0.3 < score.ap50_95 < 0.7


def test_classes_that_no_picture_shows_do_not_count() -> None:
    score = scored(
        [picture(box("apple"), box("banana"), box("car", place=(0, 0, 9, 9)), Box(77, 0.9, 0, 0, 1, 1))], LABELS
    )
    assert score.ap50 == pytest.approx(1)


def test_nothing_found_is_nothing() -> None:
    assert scored([picture()], LABELS).ap50 == 0
