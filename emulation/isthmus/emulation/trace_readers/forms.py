"""What a reader makes of a file: a table of named columns in the files' own units, or one direction's departures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import DataError

COLUMNS = ("time_s", "up_mbps", "down_mbps", "rtt_ms", "loss")


@dataclass(frozen=True)
class Table:
    """Rows of a trace: `columns` by the names of COLUMNS, as far as they are known; times begin at 0."""

    columns: Mapping[str, NDArray[np.float64]]
    lines: tuple[int, ...]
    """Of each row, in the file."""


@dataclass(frozen=True)
class Departures:
    """Mahimahi's list of one direction, in milliseconds."""

    ms: NDArray[np.int64]
    direction: Literal["up", "down"]


class Source(NamedTuple):
    """One column of a file that is taken for one of COLUMNS: value = factor * what stands there."""

    factor: float
    column: str


Sources = Mapping[str, Source]
"""By the names of COLUMNS."""


class Reader(Protocol):
    """One form of file."""

    def recognises(self, lines: list[str]) -> bool:
        """Whether a file whose first lines with anything in them are these has this form."""

    def read(self, path: Path, text: str, sources: Sources) -> Table | Departures:
        """The trace in `text`. Raises DataError with file and line."""


def lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with anything in them, numbered from 1; `#` begins a comment."""
    for number, line in enumerate(text.splitlines(), start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield number, stripped


def text_of(path: Path) -> str:
    """What is in a file, without a byte order mark. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text; a trace is a CSV or a list of milliseconds") from error


def from_zero(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times that begin at 0: recorders count from 1970, from boot, or from when they were started."""
    return time_s - time_s[0] if len(time_s) and np.isfinite(time_s[0]) else time_s
