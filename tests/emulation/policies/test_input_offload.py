"""The picture itself, always: at the best quality that throughput and round trip leave time for."""

from __future__ import annotations

import pytest

from isthmus.device.scheduler import GO_ON, STOP, Offload
from isthmus.emulation.policies.input_offload import InputOffload
from pair import catalogue
from situations import after_stage, link, situation

PICTURES = ((4000,), (2000,), (1000,))
"""By quality, finest first: at 100 kB/s they are back after 65, 45 and 35 ms."""


@pytest.mark.parametrize(
    ("budget_s", "quality"), [(0.100, 0), (0.066, 0), (0.065, 1), (0.045, 2), (0.030, 2)], ids=lambda value: str(value)
)
def test_the_best_quality_in_time_else_the_smallest(budget_s: float, quality: int) -> None:
    policy = InputOffload(catalogue())
    assert policy.after_exit(after_stage(1, sizes=PICTURES), situation(link(1e5), budget_s)) == Offload(quality, 1)


def test_a_sure_exit_and_a_full_queue_change_nothing() -> None:
    policy, full = InputOffload(catalogue()), link(1e5, queue_s=10.0)
    assert policy.after_exit(after_stage(1, 0.999, sizes=PICTURES), situation(full, 0.100)) == Offload(0, 1)


def test_the_head_runs_to_its_end_first_at_the_width_that_fits() -> None:
    policy = InputOffload(catalogue())
    assert policy.after_exit(after_stage(0, 0.999), situation(link())) == GO_ON
    assert [policy.width(situation(link(), budget_s)) for budget_s in (0.089, 0.087)] == [1, 0]


def test_without_a_link_or_a_picture_the_exit_answers() -> None:
    policy = InputOffload(catalogue())
    assert policy.after_exit(after_stage(1, sizes=PICTURES), situation(None)) == STOP
    assert policy.after_exit(after_stage(1, sizes=None), situation(link())) == STOP
