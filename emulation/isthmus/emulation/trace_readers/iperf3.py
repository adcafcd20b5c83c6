"""The JSON of `iperf3 -J`: one row an interval, with its rate and the mean round trip of its streams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from isthmus.emulation.trace_readers.forms import Sources, Table, from_zero
from isthmus.proto.errors import DataError


class _Sum(msgspec.Struct, frozen=True):
    start: float
    bits_per_second: float
    omitted: bool = False


class _Stream(msgspec.Struct, frozen=True):
    rtt: float | None = None
    """Microseconds; TCP's sender alone knows it."""


class _Interval(msgspec.Struct, frozen=True):
    sum: _Sum
    streams: tuple[_Stream, ...] = ()
    sum_bidir_reverse: _Sum | None = None


class _Test(msgspec.Struct, frozen=True):
    reverse: int = 0


class _Start(msgspec.Struct, frozen=True):
    test_start: _Test = _Test()


class _Iperf3(msgspec.Struct, frozen=True):
    """The part that is read; other keys are none of our business."""

    start: _Start = _Start()
    intervals: tuple[_Interval, ...] = ()
    error: str = ""


def recognises(lines: list[str]) -> bool:
    """JSON that begins as iperf3's does."""
    return re.match(r'\{\s*"(start|intervals|error)"', "".join(lines)) is not None


def read(path: Path, text: str, sources: Sources) -> Table:
    """`reverse` tells the direction; what iperf3 itself omits is left out. Raises DataError."""
    try:
        found = msgspec.json.decode(text, type=_Iperf3)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: not the JSON of iperf3 -J ({error})") from error
    kept = [one for one in found.intervals if not one.sum.omitted]
    if not kept:
        why = f"iperf3 says '{found.error}'" if found.error else "a trace needs at least one interval"
        raise DataError(f"{path}: JSON without intervals of iperf3 -J; {why}")
    there, back = ("down", "up") if found.start.test_start.reverse else ("up", "down")
    columns = {
        "time_s": from_zero(np.array([one.sum.start for one in kept])),
        f"{there}_mbps": np.array([one.sum.bits_per_second for one in kept]) / 1e6,
        "rtt_ms": np.array([_rtt_ms(one.streams) for one in kept]),
    }
    if all(one.sum_bidir_reverse is not None for one in kept):
        rates = [one.sum_bidir_reverse.bits_per_second for one in kept if one.sum_bidir_reverse is not None]
        columns[f"{back}_mbps"] = np.array(rates) / 1e6
    return Table(columns, tuple([1] * len(kept)))


def _rtt_ms(streams: Sequence[_Stream]) -> float:
    known = [one.rtt / 1e3 for one in streams if one.rtt]
    return float(np.mean(known)) if known else float("nan")
