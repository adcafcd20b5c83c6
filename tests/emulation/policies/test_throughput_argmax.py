"""The most accurate point that size over throughput allows: believed to the millisecond, blind to queue and confidence."""

from __future__ import annotations

import pytest

from isthmus.device.scheduler import GO_ON, STOP, Decision, Offload
from isthmus.emulation.policies.throughput_argmax import ThroughputArgmax
from pair import catalogue
from situations import after_stage, link, situation


@pytest.mark.parametrize(
    ("budget_s", "decision"),
    [(0.065, Offload(0, 2)), (0.060, Offload(1, 2)), (0.045, Offload(0, 1)), (0.037, Offload(1, 1)), (0.035, STOP)],
)
def test_less_time_less_sent(budget_s: float, decision: Decision) -> None:
    """At 10 kB/s the answers to 330 and 240 bytes in two messages, to 150 and 80 in one, are back after 64, 55, 43 and 36 ms."""
    policy = ThroughputArgmax(catalogue())
    assert policy.after_exit(after_stage(1), situation(link(1e4), budget_s)) == decision


def test_nothing_is_sent_to_a_server_that_is_right_less_often() -> None:
    policy = ThroughputArgmax(catalogue(exit_accuracy=0.9, tail_accuracy=0.8))
    assert policy.after_exit(after_stage(1), situation(link(1e9), 10.0)) == STOP


def test_a_sure_exit_and_a_full_queue_change_nothing() -> None:
    policy, full = ThroughputArgmax(catalogue()), link(queue_s=60.0)
    assert policy.after_exit(after_stage(0, 0.999), situation(full)) == GO_ON
    assert policy.after_exit(after_stage(1, 0.999), situation(full)) == Offload(0, 2)


@pytest.mark.parametrize(
    ("rate_Bps", "budget_s", "width"),
    [(1e6, 0.150, 1), (1e6, 0.070, 0), (1e4, 0.110, 0), (1e4, 0.150, 1), (1.0, 0.150, 0)],
)
def test_the_width_that_leaves_time_for_the_best_point(rate_Bps: float, budget_s: float, width: int) -> None:
    """The wide head takes 60 ms more and is worth 0.02; where nothing can be sent, both exits are worth the same."""
    assert ThroughputArgmax(catalogue()).width(situation(link(rate_Bps), budget_s)) == width


def test_without_a_link_the_exit_answers_from_the_narrower_of_equal_widths() -> None:
    policy = ThroughputArgmax(catalogue())
    assert policy.width(situation(None)) == 0
    assert policy.after_exit(after_stage(1), situation(None)) == STOP
