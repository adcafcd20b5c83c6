"""One early exit for every frame: reached in time where it can be, and never left for the link."""

from __future__ import annotations

import pytest

from isthmus.device.scheduler import GO_ON, STOP
from isthmus.emulation.policies.local_exit import LocalExit
from pair import catalogue
from situations import after_stage, link, situation


@pytest.mark.parametrize(("index", "budget_s", "width"), [(0, 0.045, 1), (0, 0.043, 0), (1, 0.089, 1), (1, 0.087, 0)])
def test_the_widest_that_reaches_the_exit_in_time(index: int, budget_s: float, width: int) -> None:
    """44 ms to the first exit at full width and 88 ms to the second, a tenth of it for safety."""
    assert LocalExit(catalogue(), index).width(situation(link(), budget_s)) == width


def test_the_narrowest_where_nothing_is_in_time() -> None:
    assert LocalExit(catalogue(), 0).width(situation(link(), 0.001)) == 0


def test_it_stops_at_its_exit_however_unsure_and_however_wide_the_link() -> None:
    first, second = (LocalExit(catalogue(), index) for index in (0, 1))
    assert first.after_exit(after_stage(0, 0.3), situation(link(1e9))) == STOP
    assert second.after_exit(after_stage(0, 0.99), situation(link(1e9))) == GO_ON
    assert second.after_exit(after_stage(1, 0.3), situation(link(1e9))) == STOP
