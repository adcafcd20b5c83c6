"""Traces as people have them: every form is read by what is in it, and what is not read says what to do."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.emulation import trace_readers, traces
from isthmus.emulation.trace_readers.forms import Source
from isthmus.emulation.trace_readers.units import advice
from isthmus.emulation.traces import PacketTrace, Trace
from isthmus.proto.errors import DataError


def found(path: Path, text: str | bytes, **sources: tuple[float, str]) -> traces.AnyTrace:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return traces.find(path, {name: Source(*source) for name, source in sources.items()})


def table(path: Path, text: str | bytes, **sources: tuple[float, str]) -> Trace:
    trace = found(path, text, **sources)
    assert isinstance(trace, Trace)
    return trace


@pytest.mark.parametrize("name", ["12mbps", "link.trace", "bw_1.txt", "cell.csv"])
@pytest.mark.parametrize("prefix", ["", "\ufeff", "# recorded on a bus\n\n"])
def test_a_list_of_milliseconds_is_mahimahi_s_under_any_name(name: str, prefix: str, tmp_path: Path) -> None:
    trace = found(tmp_path / name, f"{prefix}0\n0\n1\n3\n3\n4\n7\n9\n")
    assert isinstance(trace, PacketTrace)
    assert trace.departures_ms("up").tolist() == [0, 0, 1, 3, 3, 4, 7, 9]
    assert trace.down_ms is None
    down = found(tmp_path / f"down-{name}", "1\n2\n")
    assert isinstance(down, PacketTrace)
    assert down.up_ms is None


def test_a_list_of_one_entry_is_its_rate(tmp_path: Path) -> None:
    """Pensieve's `12mbps`: one packet of 1500 bytes each millisecond."""
    trace = found(tmp_path / "12mbps", "1\n")
    assert isinstance(trace, PacketTrace)
    assert trace.binned().up_Bps.tolist() == [1_500_000]


def test_a_list_that_counts_from_1970_begins_at_0(tmp_path: Path) -> None:
    """It asked for 107 GiB."""
    trace = found(tmp_path / "epoch.up", "1432003200000\n1432003200001\n1432003200005\n1432003200009\n")
    assert isinstance(trace, PacketTrace)
    assert trace.departures_ms("up").tolist() == [0, 1, 5, 9]
    late = found(tmp_path / "late.up", "30000\n30001\n")
    assert isinstance(late, PacketTrace)
    assert late.departures_ms("up").tolist() == [30000, 30001], (
        "nothing may leave for half a minute: that is the link's"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9999999999999999999999999999\n", "line 1: 28 digits; milliseconds are expected"),
        ("0\n99999999999\n", r"line 2: ends after 1e\+08 s, and a trace may last seven days"),
        ("1\n2\nthree\n", "line 3: must be a whole number of milliseconds, not 'three'"),
        ("# begins\n\n5\n\n4\n", "line 5: timestamps must not decrease"),
    ],
)
def test_a_list_that_makes_no_sense_is_one_line(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"t\.up: {why}"):
        found(tmp_path / "t.up", text)


@pytest.mark.parametrize("between", [" ", "\t", "   "])
def test_seconds_and_a_rate_are_the_downlink_in_mbit(between: str, tmp_path: Path) -> None:
    trace = table(tmp_path / "cooked", "".join(f"{t}{between}{r}\n" for t, r in ((3.5, 1.25), (4.5, 2.5), (5.5, 0.4))))
    assert trace.time_s.tolist() == [0, 1, 2]
    np.testing.assert_allclose(trace.down_Bps, np.array([1.25, 2.5, 0.4]) * 125_000)
    assert np.isnan(trace.up_Bps).all()
    with pytest.raises(DataError, match=r"line 3: must be seconds and Mbit/s, as the lines before it, not '2\.0'"):
        found(tmp_path / "cooked", "0.0 1\n1.0 2\n2.0\n")


def iperf3(*, reverse: int = 0, bidirectional: bool = False, rtt: bool = True) -> dict[str, Any]:
    intervals = []
    for i, rate in enumerate((5.6e6, 5.2e6, 0.0)):
        streams: list[dict[str, Any]] = [{"socket": 5, "rtt": 21000 + 2000 * j} for j in range(2)] if rtt else [{}]
        one: dict[str, Any] = {"streams": streams, "sum": {"start": 1.0 + i, "bits_per_second": rate, "omitted": i < 0}}
        if bidirectional:
            one["sum_bidir_reverse"] = {"start": 1.0 + i, "bits_per_second": 1e6}
        intervals.append(one)
    omitted = {"streams": [], "sum": {"start": 0.0, "bits_per_second": 9e9, "omitted": True}}
    start = {"version": "iperf 3.16", "test_start": {"protocol": "TCP", "reverse": reverse}}
    return {"start": start, "intervals": [omitted, *intervals], "end": {}}


def test_iperf3_gives_a_row_an_interval(tmp_path: Path) -> None:
    trace = table(tmp_path / "iperf3.json", json.dumps(iperf3(), indent=1))
    assert trace.time_s.tolist() == [0, 1, 2]
    assert trace.up_Bps.tolist() == [700_000, 650_000, 0]
    assert trace.rtt_s.tolist() == [0.022] * 3
    assert np.isnan(trace.down_Bps).all()
    down = table(tmp_path / "down.json", json.dumps(iperf3(reverse=1, rtt=False)))
    assert down.down_Bps.tolist() == [700_000, 650_000, 0]
    assert np.isnan(down.rtt_s).all()
    both = table(tmp_path / "both.json", json.dumps(iperf3(bidirectional=True)))
    assert both.down_Bps.tolist() == [125_000] * 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"start": {}, "intervals": [', "not the JSON of iperf3 -J"),
        ('{"start": {}, "intervals": [{"sum": {"start": "x", "bits_per_second": 1}}]}', r"Expected `float`, got `str`"),
        ('{"start": {}, "intervals": [], "error": "unable to connect"}', "iperf3 says 'unable to connect'"),
        ('{"start": {}}', "JSON without intervals of iperf3 -J; a trace needs at least one interval"),
        ('{"rates": [1, 2]}', "line 1: JSON; what is read of it is that of iperf3 -J"),
        ("[1, 2]", "line 1: JSON"),
    ],
)
def test_other_json_is_one_line(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why):
        found(tmp_path / "t.json", text)


TABLES = {
    "byte order mark": "\ufefftime_s,up_mbps\n0,1.5\n1,2\n",
    "comments": "# a drive\ntime_s,up_mbps\n# begins\n0,1.5\n\n1,2\n",
    "semicolons": "time_s;up_mbps\n0;1.5\n1;2\n",
    "decimal commas": "time_s;up_mbps\n0,0;1,5\n1,0;2,0\n",
    "tabs": "time_s\tup_mbps\n0\t1.5\n1\t2\n",
    "carriage returns": "time_s,up_mbps\r\n0,1.5\r\n1,2\r\n",
    "begins elsewhere": "time_s,up_mbps\n1700000000.25,1.5\n1700000001.25,2\n",
    "ISO times": "time_s,up_mbps\n2026-11-30T08:00:00Z,1.5\n2026-11-30T08:00:01+00:00,2\n",
    "a phone's logger": "time_s,up_mbps,rtt_ms\n2026.11.30_08.00.01,1.5,-\n2026.11.30_08.00.02,2,-\n",
    "ISO times without a zone": "time_s,up_mbps\n2026-11-30 08:00:00.500,1.5\n2026-11-30 08:00:01.500,2\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_in_other_dress_is_the_same(kind: str, tmp_path: Path) -> None:
    trace = table(tmp_path / "t.csv", TABLES[kind])
    assert trace.time_s.tolist() == [0, 1]
    assert trace.up_Bps.tolist() == [187_500, 250_000]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "time_s,up_kbps\n0,1500\n",
            "line 1: unknown column 'up_kbps'; for up_mbps divide by 1,000: --columns up_mbps=0.001",
        ),
        ("timestamp_ns,up_mbps\n0,10\n", "line 1: unknown column 'timestamp_ns'; for time_s divide by 1,000,000,000"),
        ("time_s;up_mbps\n0;1,5\n1;1.234\n", "line 3: separated by ;, with decimal commas and points"),
        ("time_s|up_mbps\n0|1\n", r"line 1: unknown column 'time_s\|up_mbps'; it is separated by '\|'; write commas"),
        ("0,1.5\n1,2\n", "line 1: has no header; write a line above it that names the columns"),
        ("# nothing\n\n", "line 1: has no column 'time_s'"),
        ("time_s,up_mbps\n0,1e306\n", "line 2: up_mbps must be finite and not negative"),
        ('time_s,up_mbps\n0,"' + "1" * 200_000 + '"\n', "line 2: no table"),
        ("time_s,up_mbps\n2026-13-45,1\n", "line 2: time_s must be a number, not '2026-13-45'"),
    ],
)
def test_what_is_not_read_says_what_to_do(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"t\.csv: {why}"):
        found(tmp_path / "t.csv", text)


def test_columns_of_any_name_and_unit_are_taken_by_their_factor(tmp_path: Path) -> None:
    text = "Timestamp,UL_kbps,DL_kbps,RTT,Cell\n5000,1500,x,40,a\n6000,2000,y,60,b\n"
    taken = {"time_s": (1e-3, "Timestamp"), "up_mbps": (1e-3, "UL_kbps"), "rtt_ms": (1.0, "RTT")}
    trace = table(tmp_path / "phone.csv", text, **taken)
    assert trace.time_s.tolist() == [0, 1]
    assert trace.up_Bps.tolist() == [187_500, 250_000]
    assert trace.rtt_s.tolist() == [0.04, 0.06]
    assert np.isnan(trace.down_Bps).all()
    with pytest.raises(
        DataError, match=r"has no column 'UL', which --columns takes; it has Timestamp, UL_kbps, DL_kbps"
    ):
        found(tmp_path / "phone.csv", text, time_s=(1e-3, "Timestamp"), up_mbps=(1.0, "UL"))
    with pytest.raises(DataError, match="has no header that names columns"):
        found(tmp_path / "cooked", "0.0 1\n1.0 2\n", up_mbps=(1.0, "UL"))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("UL_bitrate_kbps", "for up_mbps divide by 1,000"),
        ("download [Mbit/s]", "for down_mbps it is as it stands"),
        ("rate (Gbit/s)", "for down_mbps multiply by 1,000"),
        ("time_ms", "for time_s divide by 1,000"),
        ("ping_us", "for rtt_ms divide by 1,000"),
        ("rtt_s", "for rtt_ms multiply by 1,000"),
        ("tx_bps", "for up_mbps divide by 1,000,000"),
        (
            "Timestamp",
            "known, with their units: time_s, up_mbps, down_mbps, rtt_ms, loss; --columns NAME=FACTOR*COLUMN",
        ),
        ("throughput", "known, with their units"),
    ],
)
def test_a_column_s_unit_is_told_by_its_name(column: str, said: str) -> None:
    assert advice(column).startswith(said)


def test_only_what_is_surely_a_trace_is_recognised_by_its_content(tmp_path: Path) -> None:
    files = {"a.trace": "1\n2\n", "b": "0.0 1\n", "c.json": json.dumps(iperf3()), "README": "Traces\n", "d.json": "{}"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "e.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert [p.name for p in sorted(tmp_path.iterdir()) if trace_readers.recognised(p)] == ["a.trace", "b", "c.json"]


@given(st.one_of(st.text(), st.text('0123456789. ,;\t\n#-{}":[]abmps_'), st.binary()))
def test_whatever_is_in_a_file_it_is_a_trace_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    with contextlib.suppress(DataError):
        assert found(path, text if isinstance(text, bytes) else text.encode(errors="replace")).length_s > 0
