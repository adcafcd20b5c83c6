"""Timetables say what links do."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.emulation import traces
from isthmus.emulation.link import LinkOptions, ShapedLink
from isthmus.emulation.traces import PacketTrace


@pytest.mark.parametrize("name", ["lte-drive", "nb-iot", "wifi-roam"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_timetable_is_the_link_for_many_times_at_once(name: str, direction: traces.Direction) -> None:
    trace = traces.find(name)
    link = ShapedLink(trace, direction, LinkOptions(start_s=37.3))
    table, times = link.timetable(400.0), np.linspace(0.0137, 399.9, 997)
    assert table.carried(times) == pytest.approx([link.carried(t) for t in times])
    positions = np.linspace(link.carried(0.0) + 1, link.carried(399.0), 997)
    assert table.when(positions) == pytest.approx([link.when(p) for p in positions], abs=1e-6)
    arrivals = table.arrival(times)
    assert (arrivals <= times + [link.delay_s(t) for t in times] + 1e-9).all()
    for time_s, arrival_s in zip(times[::50], arrivals[::50], strict=True):
        later = np.linspace(time_s, 400, 4001)
        assert arrival_s <= min(t + link.delay_s(t) for t in later) + 1e-9


def test_a_list_of_departures_is_a_staircase() -> None:
    up = np.array([3, 3, 10, 25])
    trace = PacketTrace(name="stairs", up_ms=up, down_ms=up, rtt_s=0.02)
    link = ShapedLink(trace, "up")
    table, times = link.timetable(0.2), np.arange(0, 200) / 1e3 + 5e-4
    assert table.carried(times) == pytest.approx([link.carried(t) for t in times])
    positions = np.arange(100, 30_000, 700.0)
    assert table.when(positions) == pytest.approx([link.when(p) for p in positions], abs=2e-9)
