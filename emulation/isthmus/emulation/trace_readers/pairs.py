"""`seconds rate`, with spaces or a tab between them and no header: the form of the adaptive-video literature.

Rates are Mbit/s down (Mao et al., Neural Adaptive Video Streaming with Pensieve, 2017, and those who compare with it).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isthmus.emulation.trace_readers.forms import Sources, Table, from_zero, lines
from isthmus.proto.errors import DataError


def recognises(lines: list[str]) -> bool:
    """Two numbers a line."""
    return bool(lines) and all(_pair(line) is not None for line in lines)


def read(path: Path, text: str, sources: Sources) -> Table:
    """`time_s` and `down_mbps`. Raises DataError with file and line."""
    numbers, rows = [], []
    for number, line in lines(text):
        pair = _pair(line)
        if pair is None:
            raise DataError(f"{path}: line {number}: must be seconds and Mbit/s, as the lines before it, not '{line}'")
        numbers.append(number)
        rows.append(pair)
    time_s, down_mbps = np.array(rows, np.float64).T
    return Table({"time_s": from_zero(time_s), "down_mbps": down_mbps}, tuple(numbers))


def _pair(line: str) -> tuple[float, float] | None:
    cells = line.split()
    try:
        return (float(cells[0]), float(cells[1])) if len(cells) == 2 else None
    except ValueError:
        return None
