"""How a run was made, in words for people. Pure: a header in, rows out. Every field as it was stands in `summary.json`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from isthmus.emulation.reports.page import Row
from isthmus.proto.record import RunHeader

KINDS = {
    "live": "live: real time, a link that nobody shaped",
    "emulated": "emulated: real time, a link that was shaped",
    "simulated": "simulated: virtual time",
}
NAMES = {
    "kind": "Kind",
    "scenario": "Scenario",
    "trace": "Trace",
    "trace_sha256": "Trace's sha256",
    "bundle": "Bundle",
    "bundle_sha256": "Bundle's sha256",
    "version": "Isthmus",
    "command": "Command",
    "started": "Started",
}
"""What a header's fields are called in tables of several runs."""
_SHORT = 12
"""Digits of a hash that tell what is meant."""


def rows(header: RunHeader) -> list[Row]:
    """(what, how) of a run; what was not said is left out."""
    said = [
        ("Kind", KINDS[header.kind]),
        ("Started", moment(header.started)),
        ("Bundle", _hashed(header.bundle, header.bundle_sha256)),
        ("Policy", header.policy),
        ("Device", header.profile or "the machine itself"),
        ("Scenario", header.scenario or ""),
        ("Link", _link(header)),
        ("Deadline", f"{header.deadline_s * 1e3:g} ms"),
        ("Frames a second", f"{header.fps:g}" if header.fps else "the source's own pace"),
        ("Seed", "" if header.seed is None else str(header.seed)),
        ("Machine", ", ".join(f"{name} {value}" for name, value in header.host.items())),
        ("Isthmus", header.version),
        ("Command", header.command),
    ]
    return [row for row in said if row[1]]


def moment(text: str) -> str:
    """A time of day as people write it, '2026-11-30 12:05:53 UTC'; what is none is given as it is."""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()
    except ValueError:
        return text


def _link(header: RunHeader) -> str:
    if header.trace is None:
        return "" if header.kind == "live" else "not shaped"
    words = [
        _hashed(Path(header.trace).name, header.trace_sha256 or ""),
        f"from its second {header.trace_start_s:g} on" if header.trace_start_s else "from its beginning",
        "its downlink as the uplink" if header.trace_swapped else "",
        f"rates × {header.trace_scale:g}" if header.trace_scale != 1 else "",
    ]
    return ", ".join(word for word in words if word)


def _hashed(name: str, sha256: str) -> str:
    return f"{name} (sha256 {sha256[:_SHORT]}…)" if sha256 else name
