"""A threshold on the exit, and conditions as a slow average saw them."""

from __future__ import annotations

import pytest

from isthmus.device.scheduler import GO_ON, STOP, Offload
from isthmus.emulation.policies.spinn import THRESHOLD, Spinn
from isthmus.emulation.policies.throughput_argmax import ThroughputArgmax
from pair import catalogue
from situations import after_stage, link, situation


@pytest.mark.parametrize("stage", [0, 1])
def test_an_exit_above_the_threshold_ends_the_frame(stage: int) -> None:
    policy = Spinn(catalogue())
    assert policy.after_exit(after_stage(stage, THRESHOLD), situation(link(1e9), 10.0)) == STOP


def test_below_the_threshold_it_goes_on_and_sends() -> None:
    policy, here = Spinn(catalogue()), situation(link())
    policy.width(here)
    assert policy.after_exit(after_stage(0, THRESHOLD - 0.01), here) == GO_ON
    assert policy.after_exit(after_stage(1, THRESHOLD - 0.01), here) == Offload(0, 2)


def test_the_first_look_is_taken_as_it_is() -> None:
    policy, here = Spinn(catalogue()), situation(link(1e4), 0.057)
    policy.width(here)
    assert policy.after_exit(after_stage(1), here) == ThroughputArgmax(catalogue()).after_exit(after_stage(1), here)


def test_a_link_that_turns_narrow_is_noticed_late() -> None:
    """In 30 ms nothing is back over 20 kB/s; the average still has a link of 1 MB/s in it for some frames."""
    policy, narrow = Spinn(catalogue()), situation(link(2e4), 0.030)
    policy.width(situation(link()))
    policy.width(narrow)
    assert ThroughputArgmax(catalogue()).after_exit(after_stage(1), narrow) == STOP
    assert policy.after_exit(after_stage(1), narrow) == Offload(0, 2)
    for _ in range(60):
        policy.width(narrow)
    assert policy.after_exit(after_stage(1), narrow) == STOP


def test_a_lost_link_stops_it_and_leaves_the_average_alone() -> None:
    policy, wide = Spinn(catalogue()), situation(link())
    policy.width(wide)
    for _ in range(60):
        policy.width(situation(None))
    assert policy.after_exit(after_stage(1), situation(None)) == STOP
    assert policy.after_exit(after_stage(1), wide) == Offload(0, 2)
