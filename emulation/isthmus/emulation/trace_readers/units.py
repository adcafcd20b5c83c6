"""What to do with a column of another name or unit: said, never guessed. Pure."""

from __future__ import annotations

import re

from isthmus.emulation.trace_readers.forms import COLUMNS

_RATES = {"bps": 1e-6, "kbps": 1e-3, "mbps": 1.0, "gbps": 1e3, "bytes": 8e-6, "kbytes": 8e-3}
_TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_SPELLED = {
    "bit/s": "bps",
    "bits/s": "bps",
    "kbit/s": "kbps",
    "mbit/s": "mbps",
    "gbit/s": "gbps",
    "sec": "s",
    "µs": "us",
}
_UP = re.compile(r"(^|[^a-z])(up|ul|uplink|upload|tx|send|sent)([^a-z]|$)")
_DELAY = ("rtt", "delay", "latency", "ping")


def advice(column: str) -> str:
    """How an unknown column is taken: with its factor where its name tells its unit."""
    found = _meant(column)
    if found is None:
        known = ", ".join(COLUMNS)
        return f"known, with their units: {known}; --columns NAME=FACTOR*COLUMN says which column is one of them"
    name, factor = found
    said = (
        f"divide by {1 / factor:,.0f}"
        if factor < 1
        else f"multiply by {factor:,.0f}"
        if factor > 1
        else "it is as it stands"
    )
    return f"for {name} {said}: --columns {name}={factor:g}*{column}"


def _meant(column: str) -> tuple[str, float] | None:
    low = column.lower()
    for spelled, unit in _SPELLED.items():
        low = low.replace(spelled, unit)
    match = re.fullmatch(r"(.*?)[ _(\[]+([a-z]+)[)\]]*", low)
    if match is None:
        return None
    what, unit = match.groups()
    if unit in _RATES:
        return "up_mbps" if _UP.search(what) else "down_mbps", _RATES[unit]
    if unit in _TIMES:
        if any(word in what for word in _DELAY):
            return "rtt_ms", _TIMES[unit] * 1e3
        return "time_s", _TIMES[unit]
    return None
