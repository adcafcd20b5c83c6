"""One operating point, chosen at the first frame: nothing that happens later changes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.device.catalogue import Catalogue
from isthmus.device.scheduler import GO_ON, STOP, Offload
from isthmus.emulation.policies.static_split import TOLERANCE, StaticSplit
from pair import catalogue
from situations import after_stage, link, situation


@pytest.mark.parametrize(
    ("budget_s", "period_s", "width"),
    [(0.150, None, 1), (0.079, None, 0), (0.150, 1 / 15, 0), (0.150, 1 / 10, 1), (0.001, None, 0)],
)
def test_the_widest_head_that_keeps_up_with_the_first_frame(
    budget_s: float, period_s: float | None, width: int
) -> None:
    """80 ms at full width: within the budget, and within the time from frame to frame."""
    assert StaticSplit(catalogue()).width(situation(link(), budget_s, period_s=period_s)) == width


def test_the_width_is_chosen_once() -> None:
    policy = StaticSplit(catalogue())
    assert policy.width(situation(link())) == 1
    assert policy.width(situation(None, 0.001)) == 1


def finer_by(lead: float) -> Catalogue:
    """Both layers at the fine step are better than at the coarse one by so much, for 330 bytes against 240."""
    known = catalogue()
    narrow, ((fine_base, fine), (base, coarse)) = known.offloads
    coarse = replace(coarse, accuracy=fine.accuracy - lead)
    return replace(known, offloads=(narrow, ((fine_base, fine), (base, coarse))))


def test_a_point_of_accuracy_is_given_for_fewer_bytes_and_no_more() -> None:
    last = after_stage(1)
    assert StaticSplit(finer_by(TOLERANCE / 2)).after_exit(last, situation(link())) == Offload(1, 2)
    assert StaticSplit(finer_by(TOLERANCE * 2)).after_exit(last, situation(link())) == Offload(0, 2)


def test_every_frame_is_sent_whatever_link_budget_and_exit_say() -> None:
    policy = StaticSplit(catalogue())
    assert policy.after_exit(after_stage(0, 0.999), situation(link())) == GO_ON
    assert policy.after_exit(after_stage(1, 0.999), situation(link(10.0, queue_s=60.0), 0.001)) == Offload(0, 2)


def test_without_a_link_or_features_the_exit_answers() -> None:
    policy = StaticSplit(catalogue())
    assert policy.after_exit(after_stage(1), situation(None)) == STOP
    assert policy.after_exit(after_stage(1, sizes=None), situation(link())) == STOP
