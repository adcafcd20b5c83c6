"""Every frame of runs as one table, for programs that know tables: `pandas.read_csv(FILE)`. Pure but for what it writes.

A row is a frame, in the order in which it was answered: which run it is of, then the fields of its record. What is unknown is
empty; what is no single value (boxes, say) is JSON.
"""

from __future__ import annotations

import csv
import enum
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, Run

RUN = ("file", "kind", "policy", "seed")
"""Columns that tell a row's run; all else of its header is in `summary.json`."""


def write(path: Path, runs: Iterable[tuple[Path, Run]]) -> None:
    """Write the table of `runs`, each with what it is called. Raises DataError."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(_rows(runs))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name another place for the table") from error


def _rows(runs: Iterable[tuple[Path, Run]]) -> Iterator[list[object]]:
    fields = FrameRecord.__struct_fields__
    yield [*RUN, *fields]
    for name, run in runs:
        said = [str(name), run.header.kind, run.header.policy, run.header.seed]
        for record in run.records:
            yield [*said, *(_cell(getattr(record, field)) for field in fields)]


def _cell(value: object) -> object:
    if value is None or isinstance(value, str | int | float):
        return value.value if isinstance(value, enum.Enum) else value
    return msgspec.json.encode(value).decode()
