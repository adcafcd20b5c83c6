"""A mode by table before the head: no round trip, no queue, no contention, no confidence; then it is sent."""

from __future__ import annotations

import pytest

from isthmus.device.scheduler import GO_ON, STOP, Offload
from isthmus.device.stage_times import StageTimes
from isthmus.emulation.policies.slimmable import Slimmable
from pair import WIDTHS, catalogue
from situations import STAGES_S, after_stage, link, situation


@pytest.mark.parametrize(
    ("budget_s", "width", "decision"),
    [
        (0.150, 1, Offload(0, 2)),
        (0.115, 0, Offload(0, 2)),  # 0.93 at either width: the narrower
        (0.065, 0, Offload(0, 2)),
        (0.057, 0, Offload(1, 2)),
        (0.045, 0, Offload(0, 1)),
        (0.001, 0, Offload(1, 1)),  # nothing is in time: the quickest
    ],
)
def test_the_most_accurate_mode_in_time_else_the_quickest(budget_s: float, width: int, decision: Offload) -> None:
    """Over 10 kB/s: head 20 or 80 ms, 39, 30, 18 or 11 ms on the link, 5 ms on the server."""
    policy, here = Slimmable(catalogue()), situation(link(1e4), budget_s)
    assert policy.width(here) == width
    assert policy.after_exit(after_stage(1, width=WIDTHS[width]), here) == decision


def test_round_trip_queue_and_contention_are_not_looked_at() -> None:
    slow = StageTimes(STAGES_S)
    for _ in range(50):
        slow.observe(0, 1, 0.400)
    policy = Slimmable(catalogue())
    assert policy.width(situation(link(1e4, round_trip_s=5.0, queue_s=60.0), 0.125, times=slow)) == 1


def test_what_was_chosen_before_the_head_is_sent_after_it() -> None:
    """Whatever the exits say and the link has become meanwhile."""
    policy, narrow = Slimmable(catalogue()), situation(link(10.0), 0.001)
    policy.width(situation(link()))
    assert policy.after_exit(after_stage(0, 0.999), narrow) == GO_ON
    assert policy.after_exit(after_stage(1, 0.999), narrow) == Offload(0, 2)


def test_without_a_link_the_last_mode_s_width_stands_and_the_exit_answers() -> None:
    policy = Slimmable(catalogue())
    policy.width(situation(link()))
    assert policy.width(situation(None)) == 1
    assert policy.after_exit(after_stage(1), situation(None)) == STOP
