"""The neural filter before the head, in virtual time: dismissed frames cost the head and the link nothing."""

from __future__ import annotations

import numpy as np

from isthmus.device.capture.gate import Gate
from isthmus.proto.vocabulary import AnswerSource, FilterResult, Guess, Reason
from pair import LABEL_LOCAL, LABEL_SERVER, Pair

FILTER_S = 0.001
NOTHING = Guess(3, 0.98)


def every_third(frame_id: int) -> FilterResult:
    dismissed = frame_id % 3 != 0
    return FilterResult(frame_id, dismissed, NOTHING if dismissed else None, FILTER_S)


def test_dismissed_frames_are_answered_at_once_and_never_sent() -> None:
    pair = Pair(filter_frame=every_third).connected().run(20)
    answers = pair.between(1, 19)
    dismissed = [a for a in answers if a.frame_id % 3]
    assert {(a.source, a.reason, a.label) for a in dismissed} == {(AnswerSource.FILTER, Reason.NOTHING, 3)}
    assert all(a.bytes_up == 0 and abs(a.latency_s - FILTER_S) < 1e-9 for a in dismissed)
    assert {frame for frame, _, _ in pair.head.sent} <= {a.frame_id for _, a in pair.answers if a.frame_id % 3 == 0}
    kept = [a for a in answers if a.frame_id % 3 == 0]
    assert {a.label for a in kept if a.source is AnswerSource.SERVER} == {LABEL_SERVER}
    assert all(a.on_time for a in answers)


def test_what_the_filter_costs_is_counted_to_the_head() -> None:
    plain, filtered = Pair(policy="local-only").run(5), Pair(policy="local-only", filter_frame=every_third).run(5)
    head_s = {a.frame_id: a.timings.head_s for _, a in plain.answers}
    for _, a in filtered.answers:
        expected_s = FILTER_S if a.frame_id % 3 else FILTER_S + head_s[a.frame_id]
        assert abs(a.timings.head_s - expected_s) < 1e-9


def test_a_bundle_without_a_word_for_nothing_answers_without_a_label() -> None:
    pair = Pair(filter_frame=lambda i: FilterResult(i, True, None, FILTER_S)).connected().run(5)
    assert {(a.source, a.label) for _, a in pair.answers} == {(AnswerSource.FILTER, None)}


def test_a_filter_that_is_slower_than_the_deadline_costs_no_answer() -> None:
    pair = Pair(filter_frame=lambda i: FilterResult(i, False, None, 0.2), fps=15).connected().run(5)
    answers = pair.between(0, 4.5)
    assert len(answers) > 60
    assert {a.reason for a in answers} == {Reason.OVERLOADED}


def test_more_frames_than_the_filter_can_take() -> None:
    pair = Pair(filter_frame=every_third, fps=2000, deadline_s=0.05, policy="local-only").run(1)
    answers = pair.between(0, 0.9)
    assert all(a.on_time for a in answers)
    assert {a.label for a in answers if a.source is AnswerSource.EXIT} == {LABEL_LOCAL}
    assert sum(a.source is AnswerSource.NONE for a in answers) < len(answers)


def test_the_gate_repeats_what_the_filter_said() -> None:
    sketch = np.zeros((1, 1), np.float32)
    pair = Pair(
        gate=Gate(10, 2.0), sketch=lambda _: sketch, filter_frame=lambda i: FilterResult(i, True, NOTHING, FILTER_S)
    ).run(5)
    sources = [a.source for _, a in pair.answers]
    assert sources.count(AnswerSource.FILTER) < 5
    assert {a.label for _, a in pair.answers} == {3}
    assert set(sources) == {AnswerSource.FILTER, AnswerSource.REPEAT}
