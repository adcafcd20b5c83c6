"""What a network did over time: rate, delay and loss, read, checked, changed and written. Pure but for its files.

Two forms. A `Trace` holds rates: a row holds until the next one, and the last row as long as the one before it (1 s
when alone); NaN is unknown. A `PacketTrace` holds Mahimahi's millisecond lists, each entry the chance of one 1500-byte
packet, and keeps them exactly. Unknown columns, decreasing times and negative values are refused with file and line. What
forms of file there are is `trace_readers`' to know.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.emulation import trace_readers
from isthmus.emulation.trace_readers import mahimahi
from isthmus.emulation.trace_readers.forms import COLUMNS, Departures, Sources, Table, text_of
from isthmus.proto.errors import DataError

Direction = Literal["up", "down"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BYTES_PER_MBIT = 125_000.0
MBIT_PER_BYTE = 8e-6
PACKET_BYTES = 1500
"""What one Mahimahi departure can carry."""
LONGEST_S = 7 * 86_400.0
"""A trace that says more has its times in another unit; playing and summing it up would take all memory."""
_PER_UNIT = {"time_s": 1.0, "up_mbps": BYTES_PER_MBIT, "down_mbps": BYTES_PER_MBIT, "rtt_ms": 1e-3, "loss": 1.0}


@dataclass(frozen=True, eq=False)
class Trace:
    """Rates (bytes/s), round-trip delay (s) and loss (0 to 1) by row; all columns have the length of `time_s`.

    Raises DataError that names the trace and the row (from 0) when the columns make no sense.
    """

    name: str
    time_s: Floats = field(repr=False)
    up_Bps: Floats = field(repr=False)
    down_Bps: Floats = field(repr=False)
    rtt_s: Floats = field(repr=False)
    loss: Floats = field(repr=False)

    def __post_init__(self) -> None:
        if fault := _fault(self._columns()):
            row, problem = fault
            raise DataError(f"{self.name}: row {row}: {problem}")

    @property
    def length_s(self) -> float:
        """The time from 0 to the end of the last row, which holds as long as the row before it."""
        last = float(self.time_s[-1])
        return last + ((last - float(self.time_s[-2])) if len(self.time_s) > 1 else 0.0) or last + 1.0

    @property
    def sha256(self) -> str:
        """The hash of the CSV form, so that a run can name exactly what it replayed."""
        return hashlib.sha256(to_csv(self).encode()).hexdigest()

    def rate_Bps(self, direction: Direction) -> Floats:
        """One direction's rates (bytes/s); raises DataError when one of them is unknown."""
        rates = self.up_Bps if direction == "up" else self.down_Bps
        unknown = np.flatnonzero(np.isnan(rates))
        if len(unknown):
            at = self.time_s[unknown[0]]
            raise DataError(
                f"{self.name}: the {direction} rate is unknown at {at:g} s; `isthmus traces convert --mirror` gives it the "
                "other direction's, `Trace.filled` one of yours"
            )
        return rates

    def filled(
        self, *, up_Bps: float = np.nan, down_Bps: float = np.nan, rtt_s: float = np.nan, loss: float = np.nan
    ) -> Trace:
        """The trace with the unknown values of each column replaced by the one given."""

        def fill(column: Floats, value: float) -> Floats:
            return np.where(np.isnan(column), value, column)

        return Trace(
            self.name,
            self.time_s,
            fill(self.up_Bps, up_Bps),
            fill(self.down_Bps, down_Bps),
            fill(self.rtt_s, rtt_s),
            fill(self.loss, loss),
        )

    def scaled(self, factor: float) -> Trace:
        """The trace with both rates times `factor`: one cell shared by many, or a wider link."""
        return replace(self, up_Bps=self.up_Bps * factor, down_Bps=self.down_Bps * factor)

    def swapped(self) -> Trace:
        """The trace with up and down exchanged: most public traces have recorded the downlink only."""
        return replace(self, up_Bps=self.down_Bps, down_Bps=self.up_Bps)

    def mirrored(self) -> Trace:
        """The trace with the other direction's rates for one that is unknown throughout; DataError when both are."""
        up, down = (not np.isnan(rates).all() for rates in (self.up_Bps, self.down_Bps))
        if not up and not down:
            raise DataError(f"{self.name}: neither direction's rate is known")
        return replace(
            self, up_Bps=self.up_Bps if up else self.down_Bps, down_Bps=self.down_Bps if down else self.up_Bps
        )

    def looped(self, times: int) -> Trace:
        """Itself `times` over, one after the other."""
        starts = np.repeat(np.arange(times) * self.length_s, len(self.time_s))
        columns = [np.tile(column, times) for column in self._columns()]
        return Trace(self.name, columns[0] + starts, *columns[1:])

    def row_at(self, now: float, *, loop: bool = True) -> int:
        """The row that holds at `now` (s)."""
        within = now % self.length_s if loop else now
        return max(0, int(np.searchsorted(self.time_s, within, side="right")) - 1)

    def _columns(self) -> tuple[Floats, ...]:
        return self.time_s, self.up_Bps, self.down_Bps, self.rtt_s, self.loss


@dataclass(frozen=True, eq=False)
class PacketTrace:
    """Mahimahi's form: the milliseconds at which one packet of 1500 bytes may leave, up and down; None is unknown.

    The last entry is also the length after which a list begins again. `rtt_s` is added by whoever knows it; NaN is unknown.
    """

    name: str
    up_ms: Integers | None = field(repr=False)
    down_ms: Integers | None = field(repr=False)
    rtt_s: float = math.nan

    def __post_init__(self) -> None:
        for departures in (self.up_ms, self.down_ms):
            if departures is not None and (fault := _departure_fault(departures)):
                row, problem = fault
                raise DataError(f"{self.name}: row {row}: {problem}")

    @property
    def length_s(self) -> float:
        """The longer of the two lists."""
        return max((float(ms[-1]) / 1e3 for ms in (self.up_ms, self.down_ms) if ms is not None), default=0.0)

    @property
    def sha256(self) -> str:
        """The hash of both lists in Mahimahi's form."""
        text = "/".join("" if ms is None else to_mahimahi(ms) for ms in (self.up_ms, self.down_ms))
        return hashlib.sha256(text.encode()).hexdigest()

    def departures_ms(self, direction: Direction) -> Integers:
        """One direction's list; raises DataError when there is none."""
        departures = self.up_ms if direction == "up" else self.down_ms
        if departures is None:
            raise DataError(f"{self.name}: has no {direction} list; put {self.name}.{direction} beside it")
        return departures

    def binned(self, bin_s: float = 0.1) -> Trace:
        """The trace as rates over bins of `bin_s`: for plots, and to write as CSV. A list that ends early reads as unknown."""
        bin_s = min(bin_s, self.length_s)  # a list of a few milliseconds stands for a steady rate
        bins = math.ceil(self.length_s / bin_s - 1e-9)
        edges_ms: Floats = np.arange(bins + 1, dtype=np.float64) * (bin_s * 1e3)

        def rates(departures: Integers | None) -> Floats:
            if departures is None:
                return np.full(bins, np.nan)
            counts = np.histogram(departures, edges_ms)[0]
            return np.where(edges_ms[:-1] < departures[-1], counts * (PACKET_BYTES / bin_s), np.nan)

        time_s: Floats = edges_ms[:-1] / 1e3
        delay, loss = np.full(bins, self.rtt_s), np.full(bins, np.nan)
        return Trace(self.name, time_s, rates(self.up_ms), rates(self.down_ms), delay, loss)


AnyTrace = Trace | PacketTrace


def find(name: str | Path, sources: Sources | None = None) -> AnyTrace:
    """A trace by its file, whatever of `trace_readers` it is (a `.up` or `.down` brings its sibling), or by a shipped name.

    `sources` says which of a table's columns are which. Raises DataError.
    """
    path = Path(name)
    if path.suffix in (".up", ".down"):
        up, down = path.with_suffix(".up"), path.with_suffix(".down")
        return read_mahimahi(up if up.exists() else None, down if down.exists() else None, name=path.stem)
    if str(name) in shipped() and not path.is_file():  # a folder of that name is somebody's runs
        return _read(_shelf() / f"{name}.csv", sources)
    if path.exists():
        return _read(path, sources)
    raise DataError(f"{name}: no such file, and no shipped trace of that name; shipped: {', '.join(shipped())}")


def _read(path: Path, sources: Sources | None) -> AnyTrace:
    found = trace_readers.read(path, sources)
    if isinstance(found, Table):
        return _of_table(path, found)
    if fault := _departure_fault(found.ms):
        raise DataError(f"{path}: {fault[1]}")
    return _packets_of(path, found)


def _packets_of(path: Path, found: Departures) -> PacketTrace:
    up, down = (found.ms, None) if found.direction == "up" else (None, found.ms)
    return PacketTrace(path.stem, up, down)


def shipped() -> tuple[str, ...]:
    """The names of the traces that come with Isthmus."""
    return tuple(sorted(path.stem for path in _shelf().glob("*.csv")))


def _shelf() -> Path:
    return Path(str(resources.files("isthmus.emulation"))) / "shipped"


def read_csv(path: Path) -> Trace:
    """A trace from a table with a header; a blank cell or absent column is unknown. Raises DataError with file and line."""
    return _of_table(path, trace_readers.table.read(path, text_of(path), {}))


def _of_table(path: Path, found: Table) -> Trace:
    unknown = np.full(len(found.lines), np.nan)
    with np.errstate(over="ignore"):  # what is infinite is refused by its row
        columns = tuple(found.columns.get(name, unknown) * _PER_UNIT[name] for name in COLUMNS)
    if fault := _fault(columns):
        row, problem = fault
        raise DataError(f"{path}: line {found.lines[row]}: {problem}")
    return Trace(path.stem, *columns)


def to_csv(trace: Trace) -> str:
    """The CSV form: times to nine digits, values to six, blanks for what is unknown."""
    scaled = [column / _PER_UNIT[name] for name, column in zip(COLUMNS, trace._columns(), strict=True)]
    lines = [",".join(COLUMNS)]
    for time_s, *values in zip(*(column.tolist() for column in scaled), strict=True):
        lines.append(",".join([f"{time_s:.9g}", *("" if math.isnan(v) else f"{v:.6g}" for v in values)]))
    return "\n".join(lines) + "\n"


def write_csv(trace: Trace, path: Path) -> None:
    """Write the CSV form to `path`."""
    path.write_text(to_csv(trace))


def read_mahimahi(up: Path | None, down: Path | None, *, name: str, rtt_s: float = math.nan) -> PacketTrace:
    """A packet trace from Mahimahi's lists, kept exactly; raises DataError with file and line."""
    if up is None and down is None:
        raise DataError(f"{name}: neither {name}.up nor {name}.down exists")
    lists = [None if path is None else _departures(path) for path in (up, down)]
    return PacketTrace(name, lists[0], lists[1], rtt_s)


def to_mahimahi(departures_ms: Integers) -> str:
    """Mahimahi's form of one direction."""
    return "".join(f"{ms}\n" for ms in departures_ms.tolist())


def write_mahimahi(trace: PacketTrace, folder: Path) -> None:
    """Write `NAME.up` and `NAME.down`, as far as they are known, into `folder`."""
    for suffix, departures in (("up", trace.up_ms), ("down", trace.down_ms)):
        if departures is not None:
            (folder / f"{trace.name}.{suffix}").write_text(to_mahimahi(departures))


def packets(trace: Trace) -> PacketTrace:
    """Rates as millisecond lists: an entry where each further 1500 bytes are complete, rounded up to a millisecond."""
    return PacketTrace(trace.name, _complete_ms(trace, "up"), _complete_ms(trace, "down"))


def _complete_ms(trace: Trace, direction: Direction) -> Integers | None:
    if np.isnan(trace.up_Bps if direction == "up" else trace.down_Bps).all():
        return None
    rates = trace.rate_Bps(direction)
    edges_s = np.append(trace.time_s, trace.length_s)
    sent = np.concatenate([[0.0], np.cumsum(rates * np.diff(edges_s))])
    goals = np.arange(1, int(sent[-1] / PACKET_BYTES + 1e-9) + 1) * float(PACKET_BYTES)
    row = np.minimum(np.searchsorted(sent, goals - 1e-6, side="left"), len(rates)) - 1
    times_s = edges_s[row] + (goals - sent[row]) / rates[row]
    departures: Integers = np.ceil(times_s * 1e3 - 1e-6).astype(np.int64)
    return departures


def _fault(columns: tuple[Floats, ...]) -> tuple[int, str] | None:
    """The first row that makes no sense, and why."""
    time_s = columns[0]
    if len({len(column) for column in columns}) != 1 or len(time_s) == 0:
        return 0, "columns must have one length, and at least one row"
    if not np.isfinite(time_s).all():
        return int(np.argmin(np.isfinite(time_s))), "time_s must be finite"
    if time_s[0] != 0.0:
        return 0, f"time_s must begin at 0, not {time_s[0]:g}; subtract it from every row"
    if len(back := np.flatnonzero(np.diff(time_s) < 0)):
        return int(back[0]) + 1, "timestamps must not decrease"
    if time_s[-1] > LONGEST_S:
        return len(time_s) - 1, _too_long(float(time_s[-1]))
    for name, column in zip(COLUMNS, columns, strict=True):
        if len(bad := np.flatnonzero((column < 0) | np.isinf(column))):
            return int(bad[0]), f"{name} must be finite and not negative"
    if len(bad := np.flatnonzero(columns[-1] > 1)):
        return int(bad[0]), "loss is a fraction and must not exceed 1"
    return None


def _departures(path: Path) -> Integers:
    departures = mahimahi.departures(path, text_of(path))
    if fault := _departure_fault(departures):
        row, problem = fault
        raise DataError(f"{path}: line {row + 1}: {problem}")
    return departures


def _departure_fault(departures: Integers) -> tuple[int, str] | None:
    if len(departures) == 0 or departures[-1] == 0:
        return 0, "a list of departures needs one after 0 ms"
    if departures[0] < 0:
        return 0, "milliseconds must not be negative"
    if len(back := np.flatnonzero(np.diff(departures) < 0)):
        return int(back[0]) + 1, "timestamps must not decrease"
    if departures[-1] > LONGEST_S * 1e3:
        return len(departures) - 1, _too_long(float(departures[-1]) / 1e3)
    return None


def _too_long(length_s: float) -> str:
    return f"ends after {length_s:g} s, and a trace may last seven days; are its times in another unit?"
