"""What a trace is like in a few numbers: over whole seconds, since a row may last 0.1 s in one trace and 3 s in another.

A bin's rate is the bytes that the trace carries in it over its length (the last bin may be shorter); what is unknown is
left out. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from isthmus.emulation.traces import AnyTrace, Floats, PacketTrace

BIN_S = 1.0
"""Rates are judged over bins of a second."""
OUTAGE_BPS = 12_500.0
"""A bin below this (0.1 Mbit/s) is an outage: the definition of the public collections that we compare with."""
LAGS_S = (1, 5, 20)
"""Lags of the autocorrelation, in seconds."""


@dataclass(frozen=True)
class RateSummary:
    """One direction, over bins of one second; rates in bytes/s."""

    mean_Bps: float
    median_Bps: float
    p5_Bps: float
    p95_Bps: float
    variation: float
    """Standard deviation over mean; NaN when the mean is 0."""
    outage_s: float
    """Seconds in bins below OUTAGE_BPS."""
    outages: int
    """Runs of such bins."""
    longest_outage_s: float
    autocorrelation: dict[int, float]
    """The rate's autocorrelation by lag in seconds; NaN where the rate never changes or the trace is under twice the lag."""


@dataclass(frozen=True)
class DelaySummary:
    """The round trips that are known, each row counted once; seconds."""

    median_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True)
class TraceSummary:
    """A whole trace; None is unknown throughout."""

    length_s: float
    rows: int
    up: RateSummary | None
    down: RateSummary | None
    rtt: DelaySummary | None
    loss: float | None
    """Mean of the rows that know it."""


def summary(trace: AnyTrace) -> TraceSummary:
    """The summary of `trace`; a Mahimahi trace is one of rates over bins of 0.1 s here."""
    rates = trace.binned() if isinstance(trace, PacketTrace) else trace
    rtt_s = rates.rtt_s[~np.isnan(rates.rtt_s)]
    loss = rates.loss[~np.isnan(rates.loss)]
    edges_s = np.append(rates.time_s, rates.length_s)
    return TraceSummary(
        length_s=trace.length_s,
        rows=len(rates.time_s),
        up=_rate(edges_s, rates.up_Bps),
        down=_rate(edges_s, rates.down_Bps),
        rtt=DelaySummary(*(float(q) for q in np.quantile(rtt_s, [0.5, 0.95, 0.99]))) if len(rtt_s) else None,
        loss=float(loss.mean()) if len(loss) else None,
    )


def binned(edges_s: Floats, rate_Bps: Floats, bin_s: float = BIN_S) -> Floats:
    """Mean rate (bytes/s) in each bin that knows one; `edges_s` has one more entry than `rate_Bps`."""
    known = ~np.isnan(rate_Bps)
    lengths_s = np.diff(edges_s)
    cuts_s = np.minimum(np.arange(np.ceil(edges_s[-1] / bin_s - 1e-9) + 1) * bin_s, edges_s[-1])

    def within(amounts: Floats) -> Floats:
        return np.diff(np.interp(cuts_s, edges_s, np.concatenate([[0.0], np.cumsum(amounts)])))

    seconds = within(np.where(known, lengths_s, 0.0))
    size_bytes = within(np.where(known, rate_Bps * lengths_s, 0.0))
    rates: Floats = size_bytes[seconds > 0] / seconds[seconds > 0]
    return rates


def _rate(edges_s: Floats, rate_Bps: Floats) -> RateSummary | None:
    bins = binned(edges_s, rate_Bps)
    if not len(bins):
        return None
    mean = float(bins.mean())
    median, p5, p95 = (float(q) for q in np.quantile(bins, [0.5, 0.05, 0.95]))
    runs = [len(list(run)) for out, run in groupby((bins < OUTAGE_BPS).tolist()) if out]
    return RateSummary(
        mean_Bps=mean,
        median_Bps=median,
        p5_Bps=p5,
        p95_Bps=p95,
        variation=float(bins.std()) / mean if mean else float("nan"),
        outage_s=sum(runs) * BIN_S,
        outages=len(runs),
        longest_outage_s=max(runs, default=0) * BIN_S,
        autocorrelation={lag: _autocorrelation(bins, lag) for lag in LAGS_S},
    )


def _autocorrelation(bins: Floats, lag: int) -> float:
    """The biased estimator of a stationary series (Box & Jenkins, Time Series Analysis, 2.1.5)."""
    centred = bins - bins.mean()
    power = float(centred @ centred)
    if power <= 1e-12 * len(bins) * float(bins.mean()) ** 2 or len(bins) < 2 * lag:
        return float("nan")
    return float(centred[:-lag] @ centred[lag:]) / power
