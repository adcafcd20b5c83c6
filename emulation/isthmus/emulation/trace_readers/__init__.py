"""Network traces as people have them, told apart by what is in the file and not by its name.

One form a module, one line here. A reader knows nothing of links: it gives columns or departures, `traces` checks them.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from isthmus.emulation.trace_readers import iperf3, mahimahi, pairs, table
from isthmus.emulation.trace_readers.forms import Departures, Reader, Sources, Table, lines, text_of
from isthmus.proto.errors import DataError

READERS: dict[str, Reader] = {
    "iperf3 -J": iperf3,
    "a list of milliseconds": mahimahi,
    "time and rate": pairs,
    "a table with a header": table,
}
"""The first that recognises a file reads it."""
SNIFFED_CHARACTERS = 4096


def read(path: Path, sources: Sources | None = None) -> Table | Departures:
    """The trace in a file. `sources` says which of its columns are which. Raises DataError with file and line."""
    text = text_of(path)
    reader = _reader(text)
    if sources and reader is not table:
        raise DataError(f"{path}: has no header that names columns, so --columns has nothing to take; leave it out")
    return reader.read(path, text, sources or {})


def recognised(path: Path) -> bool:
    """Whether a file of any name is a trace by its first lines: what is no table can be told without doubt."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return _reader(file.read(SNIFFED_CHARACTERS)) is not table
    except (OSError, UnicodeDecodeError):
        return False


def _reader(text: str) -> Reader:
    first = [line for _, line in islice(lines(text[:SNIFFED_CHARACTERS]), 2)]
    return next((reader for reader in READERS.values() if reader.recognises(first)), table)
