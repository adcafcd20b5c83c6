"""A table whose first line names its columns: `time_s,up_mbps,down_mbps,rtt_ms,loss` in any order, blanks unknown.

Commas, semicolons (then commas are decimal ones) or tabs between cells; times in seconds, as ISO 8601, or as phones' network
loggers write them (2026.01.05_10.00.01, with `-` for what is unknown).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from isthmus.emulation.trace_readers.forms import COLUMNS, Source, Sources, Table, from_zero, lines
from isthmus.emulation.trace_readers.units import advice
from isthmus.proto.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
LOGGERS_TIME = "%Y.%m.%d_%H.%M.%S"
UNKNOWN = ("", "-")


def recognises(lines: list[str]) -> bool:
    """Whatever is nothing else: what is wrong with it is said by `read`."""
    return True


def read(path: Path, text: str, sources: Sources) -> Table:
    """The columns that are known, and those that `sources` names. Raises DataError with file and line."""
    numbered = list(lines(text))
    separator = _separator(numbered[0][1] if numbered else "")
    rows = _cells(path, text, separator)
    at, header = rows[0] if rows else (1, [])
    if problem := _header_problem(header, sources):
        raise DataError(f"{path}: line {at}: {problem}")
    taken = {name: sources.get(name, Source(1.0, name)) for name in COLUMNS}
    taken = {name: source for name, source in taken.items() if source.column in header}
    place = {name: header.index(source.column) for name, source in taken.items()}
    if separator == ";":
        rows = _decimal_points(path, rows)
    numbers, values = [], []
    for number, cells in rows[1:]:
        where = f"{path}: line {number}"
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} cells, and the header has {len(header)}")
        numbers.append(number)
        values.append([_number(cells[i], name, where=where) for name, i in place.items()])
    if not values:
        raise DataError(f"{path}: line {at}: has a header and no rows; a trace needs at least one")
    found = dict(zip(place, np.array(values, np.float64).T, strict=True))
    with np.errstate(over="ignore"):  # what is infinite is refused by its row
        scaled = {name: column * taken[name].factor for name, column in found.items()}
    return Table({**scaled, "time_s": from_zero(found["time_s"]) * taken["time_s"].factor}, tuple(numbers))


def _separator(header: str) -> str:
    """What stands between the names; a comma where nothing tells."""
    return next((mark for mark in (";", "\t") if mark in header), ",")


def _cells(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The rows with anything in them, by the number of their line."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    found = []
    try:
        for cells in rows:
            stripped = [cell.strip() for cell in cells]
            if any(stripped) and not stripped[0].startswith("#"):
                found.append((rows.line_num, stripped))
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: no table ({error})") from error
    return found


def _decimal_points(path: Path, rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """With decimal commas as points. Raises DataError where one file has both: 1.234 is then a thousand, or is not."""
    if not any("," in cell for _, cells in rows[1:] for cell in cells):
        return rows
    for number, cells in rows[1:]:
        if any("." in cell for cell in cells):
            raise DataError(f"{path}: line {number}: separated by ;, with decimal commas and points; write one of them")
    return [rows[0], *((number, [cell.replace(",", ".") for cell in cells]) for number, cells in rows[1:])]


def _header_problem(header: Sequence[str], sources: Sources) -> str | None:
    mapped = {source.column for source in sources.values()}
    for name in header:
        if header.count(name) > 1 and (name in COLUMNS or name in mapped):
            return f"column '{name}' is there twice"
    if header and header[0].startswith(("{", "[")):
        return "JSON; what is read of it is that of iperf3 -J"
    if header and all(_is_number(cell) for cell in header):
        return "has no header; write a line above it that names the columns, e.g. time_s,down_mbps"
    if absent := sorted(mapped - set(header)):
        return f"has no column '{absent[0]}', which --columns takes; it has {', '.join(header)}"
    for name in header:
        if name not in COLUMNS and not mapped:
            return f"unknown column '{name}'; {_separated(name) or advice(name)}"
    known = {name for name in COLUMNS if name in header or name in sources}
    if "time_s" not in known:
        return "has no column 'time_s'; the first line names the columns"
    if not {"up_mbps", "down_mbps"} & known:
        return "has neither 'up_mbps' nor 'down_mbps'"
    return None


def _separated(name: str) -> str | None:
    """For a header that is one cell to us."""
    marks = [mark for mark in ("|", ":", " ") if len(name.split(mark)) > 1 and set(name.split(mark)) & set(COLUMNS)]
    return f"it is separated by '{marks[0]}'; write {', '.join(SEPARATORS.values())}" if marks else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, name: str, *, where: str) -> float:
    if cell in UNKNOWN and name != "time_s":
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        moment = _seconds(cell) if name == "time_s" else None
        if moment is None:
            raise DataError(f"{where}: {name} must be a number, not '{cell}'") from None
        return moment
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} must be finite, not '{cell}'; leave the cell blank when it is unknown")
    return value


def _seconds(cell: str) -> float | None:
    """Since 1970, of a time as ISO 8601 or a phone's logger writes it; UTC where it names no zone."""
    try:
        moment = (
            datetime.strptime(cell, LOGGERS_TIME)
            if "_" in cell
            else datetime.fromisoformat(cell.replace("Z", "+00:00"))
        )
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
