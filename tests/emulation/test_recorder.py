"""Recording in virtual time: a heavy flow over the emulated link, and the trace that comes of it."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest

from isthmus.emulation import synthetic
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.recorder import HeavyFlow, Recording
from isthmus.emulation.trace_summary import binned
from isthmus.emulation.traces import Trace

PACKET, ACK, PING = 1500, 60, 64


def recorded(trace: Trace, length_s: float) -> Trace:
    """A heavy flow up and a ping every 100 ms, over both directions of a link that plays `trace`."""
    up, down = ShapedLink(trace, "up"), ShapedLink(trace, "down")
    flow, recording, order = HeavyFlow(), Recording(), itertools.count()
    heap: list[tuple[float, int, str, float]] = [
        (0.1 * i, next(order), "ping", 0.1 * i) for i in range(round(length_s * 10))
    ]
    heapq.heapify(heap)

    def fill(now: float) -> None:
        while room := flow.room_bytes(now):
            size = min(PACKET, room)
            flow.on_sent(size, now)
            push(up.send(size, now), "data", size)

    def push(due: float | None, what: str, value: float) -> None:
        assert due is not None
        heapq.heappush(heap, (due, next(order), what, value))

    for resume_s in range(10, int(length_s), 10):
        push(float(resume_s), "resume", 0)
    total = 0
    fill(0.0)
    while heap and heap[0][0] <= length_s:
        now, _, what, value = heapq.heappop(heap)
        if what == "data":
            total += int(value)
            push(down.send(ACK, now), "ack", total)
        elif what == "ack":
            flow.on_ack(int(value), now)
            recording.on_total("up", int(value), now)
            fill(now)
        elif what == "resume":
            fill(now)
        elif what == "ping":
            push(up.send(PING, now), "pong", value)
        elif what == "pong":
            push(down.send(PING, now), "back", value)
        else:
            recording.on_round_trip(now - value, now)
    return recording.trace("recorded", length_s)


def by_second(trace: Trace) -> np.ndarray:
    return binned(np.append(trace.time_s, trace.length_s), trace.up_Bps)


@pytest.mark.parametrize(("up_mbps", "length_s"), [(0.1, 60.0), (0.5, 60.0), (4, 35.0)])
def test_a_steady_link_is_recorded_as_it_is(up_mbps: float, length_s: float) -> None:
    made = recorded(synthetic.constant(up_mbps=up_mbps, down_mbps=80, rtt_ms=60), length_s)
    left_mbps = up_mbps - 10 * PING * 8e-6  # by the pings
    assert by_second(made)[3:].mean() * 8e-6 == pytest.approx(left_mbps, rel=0.03)
    assert np.isnan(made.down_Bps).all()
    assert np.isnan(made.loss).all()
    empty_s = 0.06 + PING * 8e-6 / up_mbps
    assert made.rtt_s[-1] == pytest.approx(empty_s, rel=0.15), "a ping met an empty queue, and the queue does not grow"


def test_a_link_that_changes_is_followed_second_by_second() -> None:
    trace = synthetic.sinusoid(mean_mbps=2, swing=0.6, period_s=20, rtt_ms=40, length_s=20)
    made, truth = by_second(recorded(trace, 20.0)), by_second(trace)
    assert np.abs(made / truth - 1)[3:].mean() < 0.1


def test_an_outage_is_recorded_as_one() -> None:
    trace = synthetic.steps([(10, 4, 8, 40), (3, 0, 0, 40), (10, 4, 8, 40)])
    made = by_second(recorded(trace, 23.0)) * 8e-6
    assert made[11] == made[12] == 0
    assert made[5:9] == pytest.approx(4, rel=0.05)
    assert made[16:22] == pytest.approx(4, rel=0.1)


def test_what_was_not_measured_is_unknown() -> None:
    made = Recording().trace("nothing", 2.0)
    assert len(made.time_s) == 20
    assert np.isnan([made.up_Bps, made.down_Bps, made.rtt_s]).all()
