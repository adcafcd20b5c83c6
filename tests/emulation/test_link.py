"""The link in virtual time: exact against brute force, in order, honest about what it loses."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.emulation import traces
from isthmus.emulation.link import Bursts, LinkOptions, ShapedLink
from isthmus.emulation.traces import Direction, PacketTrace, Trace
from isthmus.proto.errors import ConfigError, DataError
from real_data import TRACES, needs_traces

REAL_LISTS = sorted([*TRACES.glob("mahimahi/*.up"), *TRACES.glob("mahimahi/*.down")]) or [TRACES / "absent.up"]
Rows = list[tuple[float, float]]

rows = st.lists(
    st.tuples(st.floats(0.05, 3.0), st.one_of(st.just(0.0), st.floats(200.0, 1e6))), min_size=1, max_size=12
).filter(lambda rows: any(rate for _, rate in rows))
sends = st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 20_000)), min_size=1, max_size=20)


def trace(rows: Rows, *, rtt_s: float = 0.0, loss: float = 0.0) -> Trace:
    """From rows of (seconds that it holds, bytes/s); the last row holds as long as the one before."""
    lengths, rates = np.array(rows).T
    time_s = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return Trace("t", time_s, rates, rates, np.full(len(rows), rtt_s), np.full(len(rows), loss))


def link(rows: Rows, *, rtt_s: float = 0.0, loss: float = 0.0, **options: object) -> ShapedLink:
    return ShapedLink(trace(rows, rtt_s=rtt_s, loss=loss), "up", LinkOptions(**options))  # type: ignore[arg-type]


def finish_by_walking(trace: Trace, start_s: float, size_bytes: float) -> float:
    """Row by row, as one would on paper."""
    edges = [*trace.time_s.tolist(), trace.length_s]
    now, left = start_s, float(size_bytes)
    for cycle in range(1_000_000):
        for i, rate in enumerate(trace.up_Bps.tolist()):
            begin, end = (cycle * trace.length_s + edge for edge in edges[i : i + 2])
            if end <= now:
                continue
            room = rate * (end - max(now, begin))
            if left <= room:
                return float(max(now, begin) + left / rate)
            left -= room
            now = end
    raise AssertionError


@given(rows, sends)
def test_a_transfer_ends_when_the_integral_says_so(rows: Rows, sends: list[tuple[float, int]]) -> None:
    shaped = link(rows)
    now, free = 0.0, 0.0
    for gap, size in sends:
        now += gap
        free = finish_by_walking(trace(rows), max(now, free), size)
        assert shaped.send(size, now) == pytest.approx(free, rel=1e-9, abs=1e-6)


@given(rows, sends, st.floats(0, 0.2), st.floats(0, 0.1), st.integers(0, 5))
def test_first_in_first_out(
    rows: Rows, sends: list[tuple[float, int]], rtt_s: float, jitter_s: float, seed: int
) -> None:
    shaped = link(rows, rtt_s=rtt_s, jitter_s=jitter_s, seed=seed)
    now, last = 0.0, 0.0
    for gap, size in sends:
        now += gap
        arrival = shaped.send(size, now)
        assert arrival is not None
        assert arrival >= max(last, now + rtt_s / 2)
        last = arrival


@given(rows, sends)
def test_an_outage_that_drops_delivers_only_what_met_none(rows: Rows, sends: list[tuple[float, int]]) -> None:
    dropping, holding = link(rows, outage="drop"), link(rows)
    now = 0.0
    for gap, size in sends:
        now += gap
        arrival = dropping.send(size, now)
        if arrival is not None:
            middle = np.linspace(now, arrival, 23)[1:-1]
            source = trace(rows)
            assert all(source.up_Bps[source.row_at(t)] > 0 for t in middle), "it was under way in an outage"
        assert holding.send(size, now) is not None
    assert holding.dropped == 0


def test_the_queue_before_an_outage_is_held_or_dropped() -> None:
    rows = [(1.0, 1000.0), (10.0, 0.0), (10.0, 1000.0)]
    held, dropped = link(rows), link(rows, outage="drop")
    assert [held.send(500, t) for t in (0, 0, 0, 5)] == [0.5, 1.0, 11.5, 12.0]
    assert [dropped.send(500, t) for t in (0, 0, 0, 5, 11)] == [0.5, 1.0, None, None, 11.5]
    assert dropped.dropped == 2


def test_a_message_cut_by_an_outage_used_the_link_until_then() -> None:
    shaped = link([(1.0, 1000.0), (10.0, 0.0), (10.0, 1000.0)], outage="drop")
    assert shaped.send(2000, 0.0) is None
    assert shaped.backlog_bytes(0.25) == pytest.approx(750)
    assert shaped.send(100, 0.5) is None, "it stands behind the one that is cut"
    assert shaped.backlog_bytes(2.0) == 0


def test_a_full_queue_drops_the_newest() -> None:
    shaped = link([(1.0, 1000.0)], queue_bytes=1000)
    assert [shaped.send(400, 0.0) for _ in range(3)] == [pytest.approx(0.4), pytest.approx(0.8), None]
    assert shaped.dropped == 1
    assert shaped.send(400, 0.2) == pytest.approx(1.2)


@given(rows, sends, st.floats(0.0, 3.0))
def test_the_backlog_is_what_was_sent_less_what_has_left(
    rows: Rows, sends: list[tuple[float, int]], later: float
) -> None:
    shaped = link(rows)
    for _, size in sends:
        shaped.send(size, 0.0)
    total = sum(size for _, size in sends)
    assert shaped.backlog_bytes(0.0) == pytest.approx(total)
    goal = total / 2
    assert shaped.backlog_bytes(shaped.drained_at(goal, 0.0)) == pytest.approx(goal, rel=1e-6, abs=1e-3)
    assert shaped.backlog_bytes(later) <= total


def test_delay_is_half_the_round_trip_of_its_time() -> None:
    columns = {"up_Bps": np.full(3, 1e6), "down_Bps": np.full(3, 1e6), "loss": np.zeros(3)}
    sparse = Trace("t", np.array([0.0, 1.0, 2.0]), rtt_s=np.array([0.04, np.nan, 0.1]), **columns)
    shaped = ShapedLink(sparse, "down")
    assert [shaped.delay_s(t) for t in (0.5, 1.5, 2.5, 3.5)] == [0.02, 0.02, 0.05, 0.02]
    assert shaped.send(1000, 1.0) == pytest.approx(1.021)


def test_a_start_within_the_trace_and_the_round_again() -> None:
    rows = [(1.0, 1000.0), (1.0, 3000.0)]
    assert link(rows, start_s=1.0).send(3500, 0.0) == pytest.approx(1.5)
    assert link(rows, start_s=7.0).send(3500, 0.0) == pytest.approx(1.5)


def test_without_looping_the_last_rate_holds_for_ever() -> None:
    assert link([(1.0, 1000.0), (1.0, 10.0)], loop=False).send(2000, 0.0) == pytest.approx(101.0)
    assert link([(1.0, 1000.0), (1.0, 0.0)], loop=False).send(2000, 0.0) == math.inf


def test_loss_and_jitter_come_from_the_seed_alone() -> None:
    def log(seed: int) -> list[float | None]:
        shaped = link([(1.0, 1e6)], loss=0.3, jitter_s=0.01, seed=seed)
        return [shaped.send(1000, 0.01 * i) for i in range(500)]

    assert log(1) == log(1) != log(2)
    assert 100 < log(1).count(None) < 200
    assert None not in [link([(1.0, 1e6)], loss=0.3, lossless=True).send(1, 0.0) for _ in range(100)]


def test_a_large_message_is_as_likely_lost_as_one_of_its_packets() -> None:
    def share_lost(size_bytes: int) -> float:
        shaped = link([(1.0, 1e9)], loss=0.05)
        return [shaped.send(size_bytes, 0.0) for _ in range(4000)].count(None) / 4000

    assert share_lost(100) == pytest.approx(0.05, abs=0.015)
    assert share_lost(15_000) == pytest.approx(1 - 0.95**10, abs=0.03)


def test_bursts_are_lost_together_and_do_not_depend_on_what_is_sent() -> None:
    def lost_at(gap_s: float, size_bytes: int, seed: int = 4) -> list[float]:
        shaped = link([(1.0, 1e9)], bursts=Bursts(good_s=2.0, bad_s=0.5), seed=seed)
        times = [gap_s * i for i in range(round(400 / gap_s))]
        return [now for now in times if shaped.send(size_bytes, now) is None]

    lost = lost_at(0.02, 100)
    assert len(lost) * 0.02 / 400 == pytest.approx(0.2, abs=0.05), "bad_s of good_s + bad_s"
    again = sum(b - a < 0.021 for a, b in itertools.pairwise(lost))
    assert again / len(lost) > 0.9, "after a loss, mostly another"
    assert set(lost_at(0.04, 9000)) == {now for now in lost if round(now / 0.02) % 2 == 0}
    assert lost_at(0.02, 100, seed=5) != lost


def test_bursts_leave_what_never_departs_and_what_is_lossless_alone() -> None:
    bursts = Bursts(good_s=0.1, bad_s=10.0)
    ended = link([(1.0, 1000.0), (1.0, 0.0)], loop=False, bursts=bursts)
    assert ended.send(2000, 0.0) == math.inf
    assert None not in [link([(1.0, 1e6)], bursts=bursts, lossless=True).send(1, 5.0 * i) for i in range(100)]
    with pytest.raises(ConfigError, match=r"^bursts: .*must be above 0"):
        Bursts(good_s=0.0, bad_s=1.0)


def test_an_unknown_rate_and_one_that_never_comes_are_refused() -> None:
    unknown = trace([(1.0, np.nan), (1.0, 5.0)])
    with pytest.raises(DataError, match=r"^t: the up rate is unknown at 0 s; `isthmus traces convert --mirror`"):
        ShapedLink(unknown, "up")
    with pytest.raises(DataError, match="0 throughout"):
        link([(1.0, 0.0)])


def mahimahi_by_hand(departures_ms: list[int], arrivals: list[tuple[int, int]]) -> list[int]:
    """What mahimahi's link queue does, told millisecond by millisecond: (ms, bytes) in, departure ms out."""
    left: list[int] = []
    queue: list[tuple[int, int]] = []
    pending = list(enumerate(arrivals))
    ms, period = 0, departures_ms[-1]
    while len(left) < len(arrivals):
        opportunities = [k * period + d for k in (ms // period - 1, ms // period) if k >= 0 for d in departures_ms]
        for _ in range(opportunities.count(ms)):
            room = 1500
            while room and queue:
                number, size = queue.pop(0)
                used = min(room, size)
                room -= used
                if size > used:
                    queue.insert(0, (number, size - used))
                else:
                    left.append(ms)
        while pending and pending[0][1][0] == ms:
            number, (_, size) = pending.pop(0)
            queue.append((number, size))
        ms += 1
    return left


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=15).map(sorted).filter(lambda ms: ms[-1] > 0),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([40, 700, 1500, 4000])), min_size=1, max_size=12),
)
def test_mahimahi_departures_are_exact_to_the_packet(departures: list[int], gaps: list[tuple[int, int]]) -> None:
    times = np.cumsum([gap for gap, _ in gaps]).tolist()
    arrivals = list(zip(times, [size for _, size in gaps], strict=True))
    shaped = ShapedLink(PacketTrace("m", np.array(departures), None), "up")
    left = [shaped.send(size, ms / 1e3) for ms, size in arrivals]
    assert [round((t or 0) * 1e3) for t in left] == mahimahi_by_hand(departures, arrivals)


def replayed(path: Path) -> None:
    """Saturated, and with a packet every 7 ms, the link departs when a direct reading of the file says."""
    direction: Direction = "up" if path.suffix == ".up" else "down"
    entries = [int(line) for line in path.read_text().split()]
    trace = traces.find(path)
    saturated, paced = ShapedLink(trace, direction), ShapedLink(trace, direction)
    endless = [cycle * entries[-1] + ms for cycle in range(2) for ms in entries]
    usable = [ms for ms in endless if ms > 0]  # those of 0 ms have gone when the first packet comes
    assert [saturated.send(1500, 0.0) for _ in usable] == [ms / 1e3 for ms in usable]

    chances = iter(endless)
    for arrival_ms in itertools.count(0, 7):
        departure_ms = next((ms for ms in chances if ms > arrival_ms), None)
        if departure_ms is None:
            break
        assert paced.send(1500, arrival_ms / 1e3) == departure_ms / 1e3


def test_a_mahimahi_file_is_replayed_to_the_packet(tmp_path: Path) -> None:
    path = tmp_path / "cell.down"
    path.write_text("0\n0\n3\n3\n3\n40\n41\n97\n250\n250\n250\n260\n")
    replayed(path)


@needs_traces
@pytest.mark.parametrize("path", REAL_LISTS, ids=lambda path: path.name)
def test_real_mahimahi_files_are_replayed_to_the_packet(path: Path) -> None:
    replayed(path)


def test_a_saturated_mahimahi_link_sends_one_packet_at_each_entry() -> None:
    departures = sorted(random.Random(7).choices(range(1, 5000), k=900))
    shaped = ShapedLink(PacketTrace("m", np.array(departures), None), "up")
    assert [shaped.send(1500, 0.0) for _ in departures] == [ms / 1e3 for ms in departures]
    assert shaped.send(1500, 0.0) == (departures[-1] + departures[0]) / 1e3
