"""The door: who gives way to whom, and how fast one may go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.edge_server.admission import BURST_S, LOBBY, Admission, Ending, Limits, Meter


def test_the_most_crowded_address_gives_way_oldest_first() -> None:
    admission = Admission(Limits(), server_id="edge")
    for stream in range(LOBBY):
        assert admission.enter(stream, "10.0.0.66" if stream >= 10 else "10.0.0.1", None, now=0.0) == []
    (close,) = admission.enter(LOBBY, "10.0.0.2", None, now=0.0)
    assert (close.stream, close.ending) == (10, Ending.CROWDED)
    assert close.why == f"edge: {LOBBY - 10} streams from here have said no hello"


def test_a_certificate_is_a_crowd_of_its_own() -> None:
    admission = Admission(Limits(), server_id="edge")
    for stream in range(LOBBY):
        admission.enter(stream, "10.0.0.1", "cam66" if stream % 2 else f"cam{stream}", now=0.0)
    (close,) = admission.enter(LOBBY, "10.0.0.1", "cam1", now=0.0)
    assert close.stream == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["enter", "hello", "gone"]), st.integers(0, 300)), max_size=400
    )
)
def test_whatever_comes_the_streams_are_bounded(events: list[tuple[int, str, int]]) -> None:
    limits = Limits(streams=3)
    admission = Admission(limits, server_id="edge")
    closed: set[int] = set()
    for stream, (address, event, which) in enumerate(events):
        if event == "enter":
            closes = admission.enter(stream, f"10.0.0.{address}", f"cam{address}" if address < 3 else None, now=0.0)
        elif event == "hello" and which in admission.peers and admission.peers[which].client_id is None:
            closes = admission.welcome(which, admission.peers[which].name or "someone")
        else:
            closes = []
            admission.on_gone(which)
            closed.discard(which)
        for close in closes:
            admission.on_close(close.stream)
            closed.add(close.stream)
        assert sum(peer.client_id is not None for peer in admission.peers.values()) <= limits.streams
        assert sum(peer.client_id is None for peer in admission.peers.values()) <= LOBBY
        assert admission.count == len(admission.peers) + len(closed)
        names = [peer.name for peer in admission.peers.values() if peer.name and peer.client_id]
        assert len(names) == len(set(names))


def test_streams_that_do_not_end_stop_new_ones() -> None:
    """However they were closed, no more than so many are left to the wire."""
    admission = Admission(Limits(), server_id="edge")
    for stream in range(LOBBY):
        admission.refuse(stream, Ending.CROWDED, "full")
    (close,) = admission.enter(LOBBY, "10.0.0.1", None, now=0.0)
    assert (close.stream, close.ending) == (LOBBY, Ending.CROWDED)
    for stream in range(LOBBY + 1):
        admission.on_gone(stream)
    assert admission.enter(LOBBY + 1, "10.0.0.1", None, now=0.0) == []


@given(st.floats(1, 1000), st.lists(st.floats(0, 0.1), min_size=1, max_size=300))
def test_a_meter_keeps_its_rate_but_for_a_burst(rate_per_s: float, gaps_s: list[float]) -> None:
    meter, now, taken = Meter(), 50.0, 0
    for gap_s in gaps_s:
        now += gap_s
        if meter.wait_s(now) == 0:
            meter.spend(1 / rate_per_s, now=now)
            taken += 1
    assert taken <= rate_per_s * (now - 50.0 + BURST_S) + 2


def test_a_meter_says_when() -> None:
    meter = Meter()
    meter.spend(3.0, now=10.0)
    assert meter.wait_s(10.0) == pytest.approx(2.0)
    assert meter.wait_s(12.0) == 0
