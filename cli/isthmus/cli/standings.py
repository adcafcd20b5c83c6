"""How policies stand against each other, as a table for people and as figures for programs."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from isthmus.emulation.policies import CLAIRVOYANT, TRACE_CLAIRVOYANT
from isthmus.emulation.reports.comparison import Comparison

LEGEND = (
    "fair share: of what the trace-clairvoyant, who knows the network, gains over local-only; of ceiling: of what the "
    "clairvoyant\ngains, who knows which answers are right; bytes and mJ above idling, a frame"
)


def facts(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The figures of each policy, means over the settings: shares 0 to 1, SI units, None for unknown."""
    found = {}
    for who in comparison.players:
        all_runs = comparison.together(who)
        found[comparison.name(who)] = {
            "frames": all_runs.frames,
            "accuracy": comparison.mean(who, lambda entry: entry.accuracy),
            "ap50": comparison.mean(who, lambda entry: entry.ap50),
            "fair_share": comparison.recovered_in_all(who, TRACE_CLAIRVOYANT),
            "recovered": comparison.recovered_in_all(who, CLAIRVOYANT),
            "answered_by_deadline": comparison.mean(who, lambda entry: entry.answered_by_deadline),
            "by_source": all_runs.by_source,
            "bytes_per_frame": comparison.mean(who, lambda entry: entry.bytes_per_frame),
            "energy_per_frame_J": comparison.mean(who, lambda entry: entry.energy_per_frame_J),
            "battery_h": comparison.mean(who, lambda entry: entry.battery_h),
            "latency_p50_s": comparison.mean(who, lambda entry: entry.latency_s(0.5)),
            "latency_p95_s": comparison.mean(who, lambda entry: entry.latency_s(0.95)),
        }
    return found


def table(figures: dict[str, dict[str, Any]]) -> Table:
    """What `facts` gave, one policy a row."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("policy")
    boxes = any(one["ap50"] is not None for one in figures.values())
    batteries = any(one["battery_h"] is not None for one in figures.values())
    titles = (
        "right in time",
        *(["AP50 in time"] if boxes else []),
        "in time",
        "fair share",
        "of ceiling",
        "server",
        "bytes",
        "mJ",
        *(["battery h"] if batteries else []),
        "p50 ms",
        "p95 ms",
    )
    for title in titles:
        drawn.add_column(title, justify="right")
    for name, one in figures.items():
        server = one["by_source"].get("server", 0) / one["frames"] if one["frames"] else None
        shares = (one["accuracy"], one["answered_by_deadline"], one["fair_share"], one["recovered"], server)
        amounts = (one["bytes_per_frame"], _milli(one["energy_per_frame_J"]))
        lasts = (one["battery_h"],) if batteries else ()
        times = _milli(one["latency_p50_s"]), _milli(one["latency_p95_s"])
        precision = [f"{one['ap50']:.3f}" if one["ap50"] is not None else "-"] if boxes else []
        drawn.add_row(
            name,
            _percent(shares[0]),
            *precision,
            *map(_percent, shares[1:]),
            *map(_number, (*amounts, *lasts, *times)),
        )
    return drawn


def _milli(value: float | None) -> float | None:
    return None if value is None else value * 1e3


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
