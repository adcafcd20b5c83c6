"""Summaries against arithmetic by hand, and against the statistics that came with 68 real traces."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.emulation import synthetic, traces
from isthmus.emulation.trace_summary import RateSummary, binned, summary
from isthmus.emulation.traces import Floats, PacketTrace, Trace
from real_data import TRACES, needs_traces

MBPS = 125_000.0


def manifest() -> list[dict[str, str]]:
    with (TRACES / "manifest.csv").open() as lines:
        return list(csv.DictReader(lines))


def bins(trace: Trace) -> Floats:
    return binned(np.append(trace.time_s, trace.length_s), trace.up_Bps)


def test_whole_seconds_whatever_the_rows() -> None:
    trace = synthetic.steps([(10, 8, 16, 20), (5, 0, 1, 60), (5, 8, 16, 20), (1, 0, 1, 20)])
    up = summary(trace).up
    assert up is not None
    assert (up.mean_Bps, up.median_Bps) == pytest.approx((8 * MBPS * 15 / 21, 8 * MBPS))
    assert (up.outage_s, up.outages, up.longest_outage_s) == (6.0, 2, 5.0)
    fine = Trace(
        "t", *(np.repeat(c, 10) for c in (trace.time_s, trace.up_Bps, trace.down_Bps, trace.rtt_s, trace.loss))
    )
    fine.time_s[:] = np.arange(210) / 10
    np.testing.assert_allclose(bins(fine), bins(trace), atol=1e-6)


def test_unknown_directions_rows_and_delays_are_left_out() -> None:
    nan = np.nan
    trace = Trace("t", np.arange(4.0), np.array([1e6, nan, 3e6, nan]), *np.full((3, 4), nan))
    found = summary(trace)
    assert found.up is not None
    assert found.up.mean_Bps == 2e6
    assert (found.down, found.rtt, found.loss) == (None, None, None)


def test_a_mahimahi_trace_is_summed_up_too() -> None:
    found = summary(PacketTrace("m", np.arange(1, 10_001), None))
    assert found.up is not None
    assert found.up.mean_Bps == pytest.approx(1_500_000, rel=1e-3)
    assert (found.down, found.rtt) == (None, None)


def test_autocorrelation_knows_noise_from_waves() -> None:
    wave = synthetic.sinusoid(mean_mbps=5, swing=0.8, period_s=20, rtt_ms=40, length_s=600)
    noise = synthetic.sinusoid(mean_mbps=5, swing=0.0, period_s=20, rtt_ms=40, length_s=600, step_s=1, noise=0.2)
    flat = synthetic.constant(up_mbps=5, down_mbps=5, rtt_ms=40)

    def lags(trace: Trace) -> dict[int, float]:
        up = summary(trace).up
        assert isinstance(up, RateSummary)
        return up.autocorrelation

    assert lags(wave)[20] > 0.9 > 0.1 > abs(lags(wave)[5])
    assert abs(lags(noise)[1]) < 0.15
    assert all(math.isnan(value) for value in lags(flat).values())


@given(st.lists(st.tuples(st.floats(0.01, 7.0), st.floats(0.0, 1e8)), min_size=1, max_size=30))
def test_bins_keep_every_byte(rows: list[tuple[float, float]]) -> None:
    lengths_s, rates = np.array(rows).T
    edges_s = np.concatenate([[0.0], np.cumsum(lengths_s)])
    bins = binned(edges_s, rates)
    sizes = np.diff(np.minimum(np.arange(len(bins) + 1), edges_s[-1]))
    assert float(bins @ sizes) == pytest.approx(float(rates @ lengths_s), rel=1e-6, abs=1e-3)


@needs_traces
@pytest.mark.parametrize("row", manifest() if TRACES.is_dir() else [], ids=lambda row: row["name"])
def test_the_manifest_of_the_real_traces_agrees(row: dict[str, str]) -> None:
    found = summary(traces.read_csv(TRACES / row["file"]))
    assert found.length_s == pytest.approx(float(row["duration_s"]), abs=0.06)
    assert found.rows == int(row["rows"])
    for way, rates in (("up", found.up), ("down", found.down)):
        if rates is None:
            assert row[f"{way}_mean"] == ""
            continue
        assert rates.mean_Bps / MBPS == pytest.approx(float(row[f"{way}_mean"]), rel=1e-4)
        assert rates.median_Bps / MBPS == pytest.approx(float(row[f"{way}_median"]), rel=5e-3)
        assert rates.p5_Bps / MBPS == pytest.approx(float(row[f"{way}_p5"]), rel=1e-2, abs=1e-4)
        assert rates.p95_Bps / MBPS == pytest.approx(float(row[f"{way}_p95"]), rel=1e-3)
        assert rates.variation == pytest.approx(float(row[f"{way}_cov"]), rel=1e-3, abs=1e-4)
        assert rates.outage_s == pytest.approx(float(row[f"{way}_outage_s"]), abs=1)  # its bins were rounded less
    if row["rtt_median_ms"]:
        assert found.rtt is not None
        assert found.rtt.median_s * 1e3 == pytest.approx(float(row["rtt_median_ms"]), rel=0.02)
