"""The similar-frame gate: what counts as the same picture, and answers that are repeated for a while, in virtual time."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.device.capture.gate import COLUMNS, ROWS, Gate, Sketch, change, sketched
from isthmus.proto.vocabulary import AnswerSource, Reason
from pair import LABEL_SERVER, Pair

EMPTY = np.full((ROWS, COLUMNS), 90, np.float32)


def shows(*cells: tuple[int, int]) -> Sketch:
    sketch = EMPTY.copy()
    for cell in cells:
        sketch[cell] += 60
    return sketch


def street() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 180, (432, 768, 3)).astype(np.uint8)


def test_a_small_thing_in_a_large_picture_changes_it_and_noise_does_not() -> None:
    rng, before = np.random.default_rng(1), street()
    noisy = np.clip(before + rng.normal(0, 6, before.shape), 0, 255).astype(np.uint8)
    person = noisy.copy()
    person[200:260, 300:325] = 20
    assert change(sketched(noisy), sketched(before)) < 10
    assert change(sketched(person), sketched(before)) > 40


def test_light_that_falls_on_everything_is_no_change() -> None:
    brighter = street() + np.uint8(25)
    assert change(sketched(brighter), sketched(street())) < 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 31, 3), (96, 128, 3), (1080, 1920, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_any_picture_has_a_sketch(shape: tuple[int, ...], dtype: type) -> None:
    grey = sketched(np.full(shape, 80, dtype))
    assert grey.shape == (ROWS, COLUMNS)
    assert grey == pytest.approx(80, abs=0.01)


def test_answers_are_repeated_no_longer_than_they_may_and_say_their_age() -> None:
    pair = Pair(gate=Gate(10, 2.0), sketch=lambda _: EMPTY).connected().run(20)
    answers = pair.between(2, 19)
    repeats = [a for a in answers if a.source is AnswerSource.REPEAT]
    assert len(repeats) > 0.9 * len(answers)
    assert {a.reason for a in repeats} == {Reason.UNCHANGED}
    assert all(0 < a.age_s <= 2 and a.bytes_up == 0 and a.latency_s == 0 for a in repeats)
    assert max(a.age_s for a in repeats) > 1.8
    assert {a.label for a in repeats} == {LABEL_SERVER}
    assert all(a.age_s == 0 for a in answers if a.source is not AnswerSource.REPEAT)


def test_a_change_is_seen_in_the_frame_that_shows_it() -> None:
    pair = Pair(gate=Gate(10, 60.0), sketch=lambda i: shows((4, 7)) if 100 <= i < 130 else EMPTY).connected().run(12)
    own = [a.frame_id for _, a in pair.answers if a.source is not AnswerSource.REPEAT]
    assert 100 in own
    assert 130 in own
    assert len(own) < 20


def test_a_slow_change_adds_up() -> None:
    """One grey level a frame: no frame differs from the one before, yet the picture is another after ten."""
    pair = Pair(gate=Gate(10, 60.0), sketch=lambda i: EMPTY + np.eye(ROWS, COLUMNS, dtype=np.float32) * i).run(10)
    own = [a.frame_id for _, a in pair.answers if a.source is not AnswerSource.REPEAT]
    assert np.diff(own[1:]).max() <= 10


def test_no_answer_is_none_to_repeat() -> None:
    pair = Pair(gate=Gate(10, 60.0), sketch=lambda _: EMPTY, fps=400, deadline_s=0.001, policy="local-only").run(1)
    assert {a.source for _, a in pair.answers} == {AnswerSource.NONE}


def test_without_a_sketch_every_frame_is_answered_for_itself() -> None:
    pair = Pair(gate=Gate(10, 60.0)).run(5)
    assert AnswerSource.REPEAT not in {a.source for _, a in pair.answers}
