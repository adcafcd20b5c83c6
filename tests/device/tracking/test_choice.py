"""Interval, width and offload as one choice, on paper: `pair.catalogue()`'s points, and answers that age as a table says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from isthmus.device.link_estimator import Outlook
from isthmus.device.scheduler import STOP, ExpectedUtility, LocalOnly, Offload, Situation
from isthmus.device.stage_times import StageTimes
from isthmus.device.tracking.choice import TrackedUtility, policy_called, share_left
from isthmus.models.bundle import Ageing
from isthmus.proto.errors import ConfigError
from isthmus.proto.vocabulary import Frame
from pair import catalogue
from situations import after_stage, link

PERIOD_S = 1 / 30
LASTING = Ageing((0.0, 1.0), ((0.7, 0.7), (0.9, 0.9)), ((0.95, 0.95),) * 2)
"""Answers do not age at all."""
FADING = Ageing((0.0, 0.2), ((0.7, 0.1), (0.9, 0.1)), ((0.95, 0.1),) * 2)


def policy(ageing: Ageing, wide: float = 0.9) -> TrackedUtility:
    """Exits right 70 % of the time when narrow, so often when `wide`."""
    known = catalogue()
    rows = tuple(
        tuple(replace(exit_, accuracy=accuracy, given=((accuracy,) * 3,) * 2) for exit_ in row)
        for accuracy, row in zip((0.7, wide), known.exits, strict=True)
    )
    return TrackedUtility(replace(known, exits=rows, ageing=ageing))


def situation(
    outlook: Outlook | None = None,
    *,
    deadline_s: float = 0.1,
    detected_s: float | None = None,
    slow: float = 1.0,
    past_s: float = 0.0,
) -> Situation:
    """A frame captured `past_s` ago; the head takes 10 ms narrow and 40 ms wide, times `slow`."""
    times = StageTimes(((0.005 * slow, 0.02 * slow), (0.005 * slow, 0.02 * slow)))
    frame = Frame(30, 1.0, 1.0 + deadline_s)
    known = Situation(deadline_s - past_s, outlook, times, PERIOD_S)
    return known.tracked(frame, frame.deadline_s, None if detected_s is None else 1.0 - detected_s)


def test_a_wide_head_that_is_late_serves_the_frames_after_it() -> None:
    """It takes 120 ms; its own frame is due after 100, and is answered from what is tracked."""
    assert policy(LASTING).width(situation(slow=3.0)) == 1
    assert ExpectedUtility(policy(LASTING)._catalogue).width(situation(slow=3.0)) == 0


def test_where_answers_fade_a_narrow_head_in_time_is_worth_more() -> None:
    assert policy(FADING).width(situation(slow=3.0)) == 0
    assert policy(FADING).width(situation()) == 1


def test_load_makes_heads_narrower() -> None:
    asked = (policy(FADING).width(situation(slow=slow)) for slow in (0.5, 1.0, 2.0, 4.0, 8.0))
    chosen = [-1 if width is None else width for width in asked]
    assert chosen == sorted(chosen, reverse=True)
    assert set(chosen) == {0, 1}


@pytest.mark.parametrize("frames", [0, 1, 30])
def test_the_head_runs_whenever_it_is_free(frames: int) -> None:
    """Every detection is a vote."""
    assert policy(LASTING).width(situation(detected_s=frames * PERIOD_S)) is not None


def test_a_late_answer_of_the_server_is_worth_sending_for() -> None:
    """A link on which hardly anything is back within 100 ms: of no use to its own frame, of some to those after it."""
    far, result = link(round_trip_s=2.0), after_stage(1)
    asked = policy(LASTING, wide=0.7)
    assert asked.width(situation(far, slow=0.5)) is not None
    asked._interval = 15
    assert isinstance(asked.after_exit(result, situation(far)), Offload)
    assert ExpectedUtility(catalogue()).after_exit(result, situation(far)) == STOP


def test_not_where_it_has_faded_by_then() -> None:
    asked = policy(FADING, wide=0.7)
    asked._interval = 15
    assert asked.after_exit(after_stage(1), situation(link(round_trip_s=2.0))) == STOP


def test_a_frame_that_has_its_answer_is_still_worth_sending() -> None:
    """Its head was late itself."""
    asked = policy(LASTING, wide=0.7)
    asked._interval = 8
    late = situation(link(), past_s=0.15)
    assert late.late_s == pytest.approx(0.05)
    assert isinstance(asked.after_exit(after_stage(1), late), Offload)


def test_the_server_s_word_is_worth_its_lead_however_late_it_comes() -> None:
    """It is no matter how many frames the detection itself serves."""
    asked, far = policy(LASTING, wide=0.7), link(round_trip_s=0.4)
    decision = asked.after_exit(after_stage(1), situation(far, deadline_s=0.033))
    assert isinstance(decision, Offload)
    assert decision.promised is not None
    assert decision.promised < 0.1
    level = Ageing((0.0, 1.0), ((0.7, 0.7), (0.7, 0.7)), ((0.7, 0.7),) * 2)
    assert policy(level, wide=0.7).after_exit(after_stage(1), situation(far)) == STOP


def test_where_a_share_is_to_be_in_time_nothing_is_sent_to_be_late() -> None:
    asked = policy(LASTING, wide=0.7)
    strict = structs.replace(situation(link(round_trip_s=0.4), deadline_s=0.033), least=0.5)
    assert asked.after_exit(after_stage(1), strict) == STOP
    near = structs.replace(situation(link(round_trip_s=0.005)), least=0.5)
    assert isinstance(asked.after_exit(after_stage(1), near), Offload)


def test_a_narrow_link_is_used_for_every_third_frame_or_so() -> None:
    """A message that keeps it for two periods is sent; one that would keep it for a second is not."""
    asked = policy(LASTING, wide=0.7)
    assert isinstance(asked.after_exit(after_stage(1), situation(link(5e3))), Offload)
    assert asked.after_exit(after_stage(1), situation(link(3e2))) == STOP


def test_a_narrower_head_must_promise_more_than_validation_can_tell() -> None:
    close = Ageing((0.0, 1.0), ((0.7, 0.7), (0.695, 0.695)), ((0.7, 0.7),) * 2)
    apart = Ageing((0.0, 1.0), ((0.7, 0.7), (0.65, 0.65)), ((0.7, 0.7),) * 2)
    assert policy(close).width(situation()) == 1
    assert policy(apart).width(situation()) == 0


def test_without_a_server_the_exit_answers() -> None:
    assert policy(LASTING).after_exit(after_stage(1), situation()) == STOP


def test_where_nothing_is_tracked_it_is_the_policy_as_it_was() -> None:
    known = catalogue()
    plain, aged = ExpectedUtility(known), TrackedUtility(replace(known, ageing=LASTING))
    for outlook in (None, link(), link(5e3), link(round_trip_s=0.3)):
        for budget_s in (0.02, 0.1, 0.3):
            where = Situation(budget_s, outlook, StageTimes(((0.01, 0.04), (0.01, 0.04))), PERIOD_S)
            assert aged.width(where) == plain.width(where)
            assert aged.after_exit(after_stage(1), where) == plain.after_exit(after_stage(1), where)


def test_what_is_left_of_an_answer() -> None:
    ageing = Ageing((0.0, 0.1, 0.3), (), ())
    row = (0.8, 0.6, 0.4)
    found = [share_left(ageing, row, age_s) for age_s in (0.0, 0.05, 0.1, 0.2, 0.3, 9.0)]
    assert found == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5, 0.5])
    assert share_left(ageing, (0.0, 0.0, 0.0), 0.1) == 1.0


def test_the_shipped_policy_minds_ageing_where_the_bundle_tells() -> None:
    known = catalogue()
    assert type(policy_called("expected-utility", known)) is ExpectedUtility
    assert type(policy_called("expected-utility", replace(known, ageing=LASTING))) is TrackedUtility
    assert type(policy_called("local-only", replace(known, ageing=LASTING))) is LocalOnly
    with pytest.raises(ConfigError, match="'none' is not one of"):
        policy_called("none", known)
