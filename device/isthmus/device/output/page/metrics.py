"""The agent's counters as Prometheus reads them (text format 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(figures: Mapping[str, Any], info: Mapping[str, str], *, link_up: bool, goodput_Bps: float | None) -> str:
    """A page of metrics, of what `LastMinute.figures` gives; `info` are labels of what runs."""
    fates = {
        f'isthmus_agent_pictures_total{{fate="{fate}",reason="{reason}"}}': count
        for fate, reasons in figures["fates"].items()
        for reason, count in reasons.items()
    }
    dropped = {
        f'isthmus_agent_sink_dropped_total{{sink="{_quoted(name)}"}}': n for name, n in figures["dropped"].items()
    }
    quantiles = {
        f'isthmus_agent_latency_seconds{{quantile="{q}"}}': figures[key]
        for q, key in (("0.5", "latency_p50_s"), ("0.95", "latency_p95_s"), ("0.99", "latency_p99_s"))
        if figures[key] is not None
    }
    labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in info.items())
    return "".join(
        (
            _family("isthmus_agent_info", "gauge", "What runs.", {f"isthmus_agent_info{{{labels}}}": 1}),
            _family("isthmus_agent_pictures_total", "counter", "Pictures captured, by what became of them.", fates),
            _family("isthmus_agent_sink_dropped_total", "counter", "Answers that a sink was not shown.", dropped),
            _family("isthmus_agent_latency_seconds", "gauge", "From capture to answer, last minute.", quantiles),
            _one("isthmus_agent_on_time_ratio", "Answered by the deadline, last minute.", figures["on_time"]),
            _one("isthmus_agent_link_up", "Whether there is a server.", int(link_up)),
            _one("isthmus_agent_uplink_bytes_per_second", "What the uplink is believed to carry.", goodput_Bps),
        )
    )


def _one(name: str, what: str, value: float | None) -> str:
    return "" if value is None else _family(name, "gauge", what, {name: value})


def _family(name: str, kind: str, what: str, samples: Mapping[str, float]) -> str:
    lines = [f"{sample} {value:.10g}" for sample, value in samples.items()]
    return "".join(f"{line}\n" for line in (f"# HELP {name} {what}", f"# TYPE {name} {kind}", *lines))


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
