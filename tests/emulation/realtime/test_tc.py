"""The kernel's shapers as lines for `tc -batch`: the three cures, delay and loss, and when which rate holds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from isthmus.emulation import synthetic
from isthmus.emulation.link import Bursts, LinkOptions
from isthmus.emulation.realtime.tc import FLOOR_BPS, LinkConditions, Qdisc, schedule
from isthmus.emulation.traces import PacketTrace, Trace


def rate_in(line: str) -> int:
    return int(line.split(" rate ")[1].split("bit")[0])


def test_a_bucket_is_a_millisecond_and_its_refill_is_taken_off_the_rate() -> None:
    (line,), _ = Qdisc(queue_bytes=150_000, netem=False).apply(LinkConditions(5e6), hold_s=0.1)
    assert line == "qdisc replace dev link0 root handle 1: tbf rate 39969600bit burst 5000 limit 150000"
    assert rate_in(line) == round(8 * (5e6 - 5000 / 0.1) * 1514 / 1500), "and Ethernet's headers are added"


def test_the_longer_a_rate_holds_the_less_is_taken_off() -> None:
    short, long = (
        rate_in(Qdisc(queue_bytes=1e5, netem=False).apply(LinkConditions(1e6), hold_s=hold_s)[0][0])
        for hold_s in (0.1, 10)
    )
    assert long / short == pytest.approx((1e6 - 160) / (1e6 - 16_000), rel=1e-4)


def test_a_slow_link_keeps_its_rate_and_an_outage_its_floor() -> None:
    qdisc = Qdisc(queue_bytes=0, netem=False)
    for rate_Bps, expected in ((100_000.0, 100_000.0), (0.0, FLOOR_BPS)):
        (line,), _ = qdisc.apply(LinkConditions(rate_Bps), hold_s=0.1)
        assert rate_in(line) == round(8 * expected * 1514 / 1500)
        assert line.endswith("burst 1600 limit 3028"), "a queue of two frames at least"


def test_it_is_woken_after_a_rise_from_a_slow_rate_and_only_then() -> None:
    qdisc = Qdisc(queue_bytes=1e5, netem=False)
    rates = (1e6, 2e6, 0, 0, 1e5, 1e6, 5e5)
    assert [qdisc.apply(LinkConditions(rate), hold_s=0.1)[1] for rate in rates] == [
        False,
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_netem_delays_and_loses_above_the_bucket() -> None:
    conditions = LinkConditions(1e6, delay_s=0.0205, loss=0.015)
    (netem, tbf), _ = Qdisc(queue_bytes=1e5, netem=True).apply(conditions, hold_s=0.1)
    assert netem == "qdisc replace dev link0 root handle 1: netem delay 20500us loss 1.5000% limit 100000"
    assert tbf.startswith("qdisc replace dev link0 parent 1:1 handle 10: tbf rate ")


@pytest.mark.parametrize(("outage", "loss"), [("hold", "0.0000%"), ("drop", "100.0000%")])
def test_netem_s_outage_holds_or_drops(outage: str, loss: str) -> None:
    qdisc = Qdisc(queue_bytes=1e5, netem=True, outage=outage)  # type: ignore[arg-type]
    assert f"loss {loss}" in qdisc.apply(LinkConditions(0.0), hold_s=1.0)[0][0]


def test_the_schedule_is_the_trace_in_steps_of_100_ms_with_what_stays_merged() -> None:
    trace = synthetic.steps([(1, 8, 8, 20), (2, 4, 4, 20), (1, 4, 4, 60)])
    found = list(itertools.islice(schedule(trace, "up", LinkOptions()), 4))
    assert [(round(at_s, 6), round(c.rate_Bps), c.delay_s, round(hold_s, 6)) for at_s, c, hold_s in found] == [
        (0.0, 1_000_000, 0.01, 1.0),
        (1.0, 500_000, 0.01, 2.0),
        (3.0, 500_000, 0.03, 1.0),
        (4.0, 1_000_000, 0.01, 1.0),
    ]
    from_the_middle = next(schedule(trace, "up", LinkOptions(start_s=2.5)))
    assert (from_the_middle[1].rate_Bps, from_the_middle[2]) == pytest.approx((5e5, 0.5))


def test_finer_traces_and_lists_of_packets_keep_their_bytes() -> None:
    rng = np.random.default_rng(3)
    fine = Trace("fine", 0.01 * np.arange(100, dtype=np.float64), rng.uniform(1e5, 1e6, 100), *np.full((3, 100), 0.0))
    packets = PacketTrace("packets", np.sort(rng.integers(1, 1000, 400)), None)
    for trace in (fine, packets):
        total = sum(
            c.rate_Bps * hold for at, c, hold in itertools.islice(schedule(trace, "up", LinkOptions()), 10) if at < 1
        )
        expected = fine.up_Bps.sum() * 0.01 if trace is fine else 1500 * 400
        assert total == pytest.approx(expected, rel=0.01)


def test_what_never_changes_is_told_again_every_ten_seconds_and_bursts_are_seen() -> None:
    flat = synthetic.constant(up_mbps=8, down_mbps=8, rtt_ms=20)
    assert [round(hold, 6) for _, _, hold in itertools.islice(schedule(flat, "up", LinkOptions()), 3)] == [
        10.0,
        10.0,
        10.0,
    ]
    bursty = LinkOptions(bursts=Bursts(good_s=1.0, bad_s=0.5, loss_bad=0.3))
    assert {c.loss for _, c, _ in itertools.islice(schedule(flat, "up", bursty), 20)} == {0.0, 0.3}
