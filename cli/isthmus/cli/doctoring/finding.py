"""One thing that was looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. A failure keeps something from working, a warning makes it worse than it could be."""

    what: str
    level: Level
    detail: str
    way_out: str = ""
    """What to do about it; empty where all is well."""


def ok(what: str, detail: str) -> Finding:
    """All is well with `what`."""
    return Finding(what, "ok", detail)


def warning(what: str, detail: str, way_out: str) -> Finding:
    """It works, and could work better."""
    return Finding(what, "warning", detail, way_out)


def failure(what: str, detail: str, way_out: str) -> Finding:
    """Something does not work."""
    return Finding(what, "failure", detail, way_out)


def text(path: str) -> str:
    """What a file of the kernel's says, stripped; '' where it is not there or not readable."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # what /proc and /sys hold is no path of ours
            return file.read().strip("\0\n ")
    except OSError:
        return ""
