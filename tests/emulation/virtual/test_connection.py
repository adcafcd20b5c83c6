"""The emulated stream: in order whatever the link loses, and as late as TCP's timer makes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.emulation.link import LinkOptions, ShapedLink
from isthmus.emulation.synthetic import constant, steps
from isthmus.emulation.virtual.connection import FRAMING_BYTES, RETRANSMIT_S, Pipe
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.proto.machine import run_virtual


def pipe(link: ShapedLink) -> tuple[Timeline, Pipe, list[tuple[float, int]]]:
    timeline, heard = Timeline(), []
    return timeline, Pipe(timeline, link, lambda now, message: heard.append((now, message))), heard


def test_a_message_takes_its_bytes_and_the_delay() -> None:
    timeline, up, heard = pipe(ShapedLink(constant(up_mbps=0.008, down_mbps=1, rtt_ms=40), "up"))
    up.send(7, 100 - FRAMING_BYTES, 0.0)  # 100 bytes at 1 kB/s
    run_virtual(timeline, until_s=10)
    ((at_s, item),) = heard
    assert at_s == pytest.approx(0.12)
    assert item == 7


@given(st.integers(0, 1000), st.floats(0.0, 0.8), st.lists(st.floats(0.0, 0.5), max_size=20))
def test_everything_arrives_once_and_in_order(seed: int, loss: float, gaps: list[float]) -> None:
    trace = constant(up_mbps=1, down_mbps=1, rtt_ms=30, loss=loss)
    timeline, up, heard = pipe(ShapedLink(trace, "up", LinkOptions(seed=seed)))
    now = 0.0
    for number, gap in enumerate(gaps):
        now += gap
        timeline.at(now, lambda due_s, n: up.send(n, 100, due_s), number)
    run_virtual(timeline, until_s=1e9)
    assert [message for _, message in heard] == list(range(len(gaps)))
    assert heard == sorted(heard)


def test_the_timer_doubles_through_an_outage_that_drops() -> None:
    """Sent at 1 s into 10 s without a link: after 0.2, 0.4, ... 6.4 s more it is 13.7 s, well after the link is back."""
    trace = steps([(1, 1, 1, 0), (10, 0, 0, 0), (100, 1, 1, 0)])
    timeline, up, heard = pipe(ShapedLink(trace, "up", LinkOptions(outage="drop")))
    timeline.at(1.0, lambda due_s: up.send(1, 0, due_s))
    run_virtual(timeline, until_s=60)
    ((arrived_s, _),) = heard
    assert 1 + RETRANSMIT_S * (2**6 - 1) < arrived_s < 1 + RETRANSMIT_S * (2**6 - 1) + 0.01


def test_a_closed_pipe_forgets_what_is_under_way() -> None:
    timeline, up, heard = pipe(ShapedLink(constant(up_mbps=1, down_mbps=1, rtt_ms=40), "up"))
    up.send(1, 10, 0.0)
    up.open = False
    run_virtual(timeline, until_s=10)
    assert not heard
