"""Mahimahi's list: whole milliseconds, one a line, each the chance of one packet (Netravali et al. 2015).

Pantheon, Pensieve and LeoCC keep such lists under other names than `.up` and `.down`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.emulation.trace_readers.forms import Departures, Sources, lines
from isthmus.proto.errors import DataError

EPOCH_MS = 1_000_000_000
"""A list that begins later than this (eleven days) counts from 1970 or from boot: its first entry becomes 0."""
MOST_DIGITS = 18


def recognises(lines: list[str]) -> bool:
    """Whole numbers alone."""
    return bool(lines) and all(re.fullmatch(r"[0-9]+", line) for line in lines)


def read(path: Path, text: str, sources: Sources) -> Departures:
    """One direction: down where the name says so, else up. Raises DataError with file and line."""
    return Departures(departures(path, text), "down" if "down" in path.name.lower() else "up")


def departures(path: Path, text: str) -> NDArray[np.int64]:
    """The milliseconds in `text`."""
    values = []
    for number, line in lines(text):
        if not re.fullmatch(r"[0-9]+", line):
            raise DataError(f"{path}: line {number}: must be a whole number of milliseconds, not '{line}'")
        if len(line) > MOST_DIGITS:
            raise DataError(f"{path}: line {number}: {len(line)} digits; milliseconds are expected")
        values.append(int(line))
        if values[-1] < values[max(0, len(values) - 2)]:
            raise DataError(f"{path}: line {number}: timestamps must not decrease")
    first = values[0] if values and values[0] >= EPOCH_MS else 0
    return np.array(values, dtype=np.int64) - first
