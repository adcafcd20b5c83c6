"""The plan of greatest value against whoever tries every plan: on small instances, none is worth more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.emulation import capacity
from isthmus.emulation.clairvoyant import schedule
from isthmus.emulation.clairvoyant.schedule import GRACE_S, Course, PlannedFrame, best
from isthmus.emulation.timetable import Timetable

Plan = Sequence[int | None]


def link_of(rates_Bps: Sequence[float], delays_s: Sequence[float]) -> Timetable:
    """One rate and one delay for each tenth of a second, over and over."""
    carrying = capacity.RateCapacity([i / 10 for i in range(len(rates_Bps))], rates_Bps, len(rates_Bps) / 10)
    times, bytes_ = carrying.corners(0.0, 20.0)
    return Timetable(times, bytes_, np.arange(200) / 10, np.resize(np.asarray(delays_s), 200))


def worth(frames: Sequence[PlannedFrame], plan: Plan, up: Timetable, down: Timetable) -> float | None:
    """What a plan is worth, played message by message on one head and two FIFO links; None where a frame is late."""
    free_s = sent = down_position = 0.0
    value = 0.0

    def at(table: Timetable, time_s: float) -> float:
        return float(table.carried(np.array([time_s]))[0])

    def over(table: Timetable, position: float) -> float:
        return float(table.arrival(table.when(np.array([position])))[0])

    for frame, chosen in zip(frames, plan, strict=True):
        if chosen is None:
            continue
        course = frame.courses[chosen]
        free_s = over_s = max(free_s, frame.captured_s) + course.head_s
        if course.up_bytes:
            sent = max(sent, at(up, free_s)) + course.up_bytes
            arrived_s = over(up, sent)
            acks = round(course.acks_bytes / course.answer_bytes)
            down_position = max(down_position + (acks - 1) * course.answer_bytes, at(down, arrived_s))
            down_position += course.answer_bytes
            down_position = max(down_position, at(down, arrived_s + frame.tail_s)) + course.answer_bytes
            over_s = over(down, down_position)
        if over_s > frame.due_s + GRACE_S:
            return None
        value += course.value
    return value


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[PlannedFrame], Timetable, Timetable]:
    """Up to four frames with up to three courses each; times and bytes on a grid, so that ties happen."""
    delays = st.lists(st.sampled_from([0.01, 0.04, 0.15]), min_size=1, max_size=3)
    rates = st.lists(st.sampled_from([0.0, 100.0, 300.0, 1000.0]), min_size=1, max_size=6).filter(any)
    up, down = link_of(draw(rates), draw(delays)), link_of(draw(rates), draw(delays))
    period_s, budget_s = draw(st.sampled_from([0.05, 0.1])), draw(st.sampled_from([0.15, 0.25, 0.4]))
    tail_s = draw(st.sampled_from([0.0, 0.03]))
    head_s, value = st.sampled_from([0.02, 0.06, 0.13]), st.sampled_from([0.2, 0.5, 0.6, 0.9])
    exits = st.builds(Course, head_s, value)
    sends = st.builds(
        lambda head_s, value, size, layers: Course(head_s, value, size, 5.0 * layers, 5.0),
        head_s, value, st.sampled_from([10.0, 20.0, 45.0]), st.integers(1, 2),
    )  # fmt: skip
    courses = st.lists(st.one_of(exits, sends), max_size=3).map(tuple)
    times = [i * period_s for i in range(draw(st.integers(1, 4)))]
    return [PlannedFrame(t, t + budget_s, draw(courses), tail_s) for t in times], up, down


@settings(max_examples=150, deadline=None)
@given(instances())
def test_no_plan_is_worth_more_and_the_plan_is_worth_what_it_says(
    instance: tuple[list[PlannedFrame], Timetable, Timetable],
) -> None:
    frames, up, down = instance
    found = best(frames, up, down)
    tried = product(*((None, *range(len(frame.courses))) for frame in frames))
    most = max(value for plan in tried if (value := worth(frames, plan, up, down)) is not None)
    assert found.value == pytest.approx(most)
    assert worth(frames, found.chosen, up, down) == pytest.approx(most)


def test_early_acknowledgements_are_not_behind_what_the_link_has_carried_since() -> None:
    """The first of two is out before the downlink falls silent; counted behind that, the frame was given up."""
    course = Course(0.02, 0.2, 10.0, 10.0, 5.0)
    frames = [PlannedFrame(0.0, 0.25, (), 0.0), PlannedFrame(0.1, 0.35, (course,), 0.0)]
    up, down = link_of([0.0, 0.0, 300.0], [0.01]), link_of([0.0, 300.0], [0.01])
    assert best(frames, up, down).value == worth(frames, (None, 0), up, down) == 0.2


def test_a_frame_that_is_given_up_is_not_what_the_downlink_waits_for() -> None:
    """The second would be back late; the third takes less, and is in time if nothing is taken for granted of the second."""
    large, small = Course(0.02, 0.2, 45.0, 5.0, 5.0), Course(0.02, 0.2, 10.0, 5.0, 5.0)
    frames = [PlannedFrame(0.0, 0.15, ()), PlannedFrame(0.05, 0.2, (large,)), PlannedFrame(0.1, 0.25, (small,))]
    up, down = link_of([300.0], [0.01]), link_of([0.0, 300.0, 100.0, 0.0], [0.01])
    tried = [worth(frames, (None, *rest), up, down) for rest in product((None, 0), repeat=2)]
    assert best(frames, up, down).value == max(value for value in tried if value is not None) == 0.2


def test_where_plans_are_too_many_the_value_is_too_high_if_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    up, down = link_of([400.0, 100.0], [0.02]), link_of([300.0], [0.02])
    drawn = rng.uniform(0.01, 1.0, (30, 3, 2))

    def courses(i: int) -> tuple[Course, ...]:
        sizes = (0.0, 12.0, 25.0)
        return tuple(Course(0.06 * h, value, size, 5.0, 5.0) for size, (h, value) in zip(sizes, drawn[i], strict=True))

    frames = [PlannedFrame(i / 20, i / 20 + 0.3, courses(i)) for i in range(30)]
    exact = best(frames, up, down).value
    monkeypatch.setattr(schedule, "MOST", 40)
    rounded = best(frames, up, down).value
    assert exact <= rounded + 1e-9
    assert rounded <= 1.05 * exact


def test_a_head_of_its_own_for_each_frame_is_worth_more_than_one_for_all() -> None:
    link = link_of([1e6], [0.01])
    frames = [PlannedFrame(i / 10, i / 10 + 0.3, (Course(0.2, 1.0),)) for i in range(10)]
    assert best(frames, link, link, one_head=False).value == 10
    assert best(frames, link, link).value == 6  # in the 1.2 s until the last is due
