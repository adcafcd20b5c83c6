"""Traces: what is refused and how it is named, what survives a round trip, and the shipped ones made again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.emulation import synthetic, traces
from isthmus.emulation.capacity import RateCapacity
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.traces import PacketTrace, Trace
from isthmus.proto.errors import DataError
from real_data import TRACES, needs_traces

HEADER = "time_s,up_mbps,down_mbps,rtt_ms,loss\n"
REAL_CSV = sorted(set(TRACES.glob("*.csv")) - {TRACES / "manifest.csv"}) or [TRACES / "absent.csv"]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "has no column 'time_s'"),
        (HEADER, 1, "has a header and no rows"),
        (
            "time_s,up_kbps\n0,5\n",
            1,
            "unknown column 'up_kbps'; for up_mbps divide by 1,000: --columns up_mbps=0.001*up_kbps",
        ),
        ("time,up_mbps\n0,5\n", 1, "unknown column 'time'; known, with their units: time_s, up_mbps"),
        ("up_mbps\n5\n", 1, "has no column 'time_s'"),
        ("time_s,rtt_ms\n0,5\n", 1, "has neither 'up_mbps' nor 'down_mbps'"),
        ("time_s,up_mbps,up_mbps\n0,5,5\n", 1, "column 'up_mbps' is there twice"),
        (HEADER + "0,1,1,20,0\n2,1,1,20,0\n1,1,1,20,0\n", 4, "timestamps must not decrease"),
        (HEADER + "0,1,1,20,0\n\n2,1,1,20,0\n1,1,1,20,0\n", 5, "timestamps must not decrease"),
        (HEADER + "0,1,1,20,0\n1,-1,1,20,0\n", 3, "up_mbps must be finite and not negative"),
        (HEADER + "0,1,1,-20,0\n", 2, "rtt_ms must be finite and not negative"),
        (HEADER + "0,1,1,20,1.5\n", 2, "loss is a fraction and must not exceed 1"),
        (HEADER + "0,nan,1,20,0\n", 2, "up_mbps must be finite, not 'nan'; leave the cell blank"),
        (HEADER + "0,inf,1,20,0\n", 2, "up_mbps must be finite"),
        (HEADER + "0,1 Mbit,1,20,0\n", 2, "up_mbps must be a number, not '1 Mbit'"),
        (HEADER + "0,1,1,20\n", 2, "4 cells, and the header has 5"),
        (HEADER + ",1,1,20,0\n", 2, "time_s must be a number, not ''"),
        (HEADER + "0,1,1,20,0\n604801,1,1,20,0\n", 3, "ends after 604801 s, and a trace may last seven days"),
    ],
)
def test_a_csv_that_makes_no_sense_is_refused_with_file_and_line(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(DataError) as refused:
        traces.find(path)
    assert str(refused.value).startswith(f"{path}: line {line}: {problem}")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "a list of departures needs one after 0 ms"),
        ("0\n0\n", 1, "a list of departures needs one after 0 ms"),
        ("5\n4\n", 2, "timestamps must not decrease"),
        ("5\n-6\n", 2, "must be a whole number of milliseconds, not '-6'"),
        ("5\n6.5\n", 2, "must be a whole number of milliseconds, not '6.5'"),
    ],
)
def test_a_mahimahi_list_that_makes_no_sense_is_refused(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = write(tmp_path / "t.up", text)
    with pytest.raises(DataError) as refused:
        traces.find(path)
    assert str(refused.value) == f"{path}: line {line}: {problem}"


def test_a_file_that_is_no_trace_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not text"):
        traces.find(tmp_path / "t.csv")
    with pytest.raises(DataError, match="Is a directory"):
        traces.find(tmp_path)
    with pytest.raises(DataError, match=r"^nowhere: no such file.* shipped: ble, demo"):
        traces.find("nowhere")
    with pytest.raises(DataError, match=r"neither a\.up nor a\.down exists"):
        traces.find(tmp_path / "a.up")


def test_a_trace_made_in_code_is_checked_as_well() -> None:
    one = np.ones(2)
    with pytest.raises(DataError, match=r"^mine: row 1: timestamps must not decrease"):
        Trace("mine", np.array([0.0, -1.0]), one, one, one, one)
    with pytest.raises(DataError, match="one length"):
        Trace("mine", np.array([0.0]), one, one, one, one)
    with pytest.raises(DataError, match=r"^mine: row 0: milliseconds must not be negative"):
        PacketTrace("mine", np.array([-1, 5]), None)


def test_a_csv_with_blanks_missing_columns_and_another_order(tmp_path: Path) -> None:
    trace = traces.find(write(tmp_path / "t.csv", "rtt_ms,time_s,up_mbps\n40,0,8\n,1,\n60,3,0.8\n"))
    assert isinstance(trace, Trace)
    np.testing.assert_array_equal(trace.up_Bps, [1e6, np.nan, 1e5])
    np.testing.assert_array_equal(trace.rtt_s, [0.04, np.nan, 0.06])
    assert np.isnan(trace.down_Bps).all()
    assert trace.length_s == 5.0
    with pytest.raises(DataError, match="the up rate is unknown at 1 s"):
        trace.rate_Bps("up")
    filled = trace.filled(up_Bps=5.0, down_Bps=7.0)
    np.testing.assert_array_equal(filled.rate_Bps("up"), [1e6, 5, 1e5])
    np.testing.assert_array_equal(filled.rate_Bps("down"), [7, 7, 7])


def test_scaled_swapped_looped() -> None:
    trace = synthetic.steps([(1, 8, 16, 20), (2, 4, 4, 20)])
    np.testing.assert_array_equal(trace.scaled(0.5).up_Bps, [0.5e6, 0.25e6, 0.25e6])
    np.testing.assert_array_equal(trace.swapped().up_Bps, trace.down_Bps)
    twice = trace.looped(2)
    np.testing.assert_array_equal(twice.time_s, [0, 1, 2, 3, 4, 5])
    once, double = ShapedLink(trace, "up"), ShapedLink(twice, "up")
    assert [once.send(900_000, t / 3) for t in range(20)] == [double.send(900_000, t / 3) for t in range(20)]
    assert [trace.row_at(t) for t in (0, 0.99, 1, 3.5)] == [0, 0, 1, 0]
    assert trace.row_at(99, loop=False) == 2


def test_a_direction_that_nobody_recorded_takes_the_other_s() -> None:
    unknown = np.full(2, np.nan)
    trace = Trace("t", np.arange(2.0), unknown, np.array([5.0, 6.0]), unknown, unknown)
    np.testing.assert_array_equal(trace.mirrored().up_Bps, [5, 6])
    np.testing.assert_array_equal(trace.swapped().mirrored().down_Bps, [5, 6])
    with pytest.raises(DataError, match=r"^t: neither direction"):
        Trace("t", np.arange(2.0), *np.full((4, 2), np.nan)).mirrored()


columns = st.lists(
    st.tuples(
        st.floats(0.001, 10),
        *[st.one_of(st.just(np.nan), st.just(0.0), st.floats(1e-3, 1e3)) for _ in range(3)],
        st.floats(1e-3, 1),
    ),
    min_size=1,
    max_size=20,
)


@given(columns)
def test_csv_round_trip(rows: list[tuple[float, ...]]) -> None:
    gaps, up, down, rtt, loss = np.array(rows).T
    trace = Trace("t", np.concatenate([[0], np.cumsum(gaps)[:-1]]), up, down, rtt, loss)
    text = traces.to_csv(trace)
    with tempfile.TemporaryDirectory() as folder:
        back = traces.read_csv(write(Path(folder) / "t.csv", text))
    np.testing.assert_allclose(back.up_Bps, up, rtol=1e-5)
    np.testing.assert_allclose(back.time_s, trace.time_s, rtol=1e-8)
    assert traces.to_csv(back) == text, "written, read and written again, nothing changes"
    assert len(back.sha256) == 64


def test_mahimahi_round_trip_brings_its_sibling(tmp_path: Path) -> None:
    write(tmp_path / "cell.up", "0\n3\n3\n9\n")
    write(tmp_path / "cell.down", "1\n")
    trace = traces.find(tmp_path / "cell.down")
    assert isinstance(trace, PacketTrace)
    assert (trace.departures_ms("up").tolist(), trace.departures_ms("down").tolist()) == ([0, 3, 3, 9], [1])
    (tmp_path / "again").mkdir()
    traces.write_mahimahi(trace, tmp_path / "again")
    assert (tmp_path / "again" / "cell.up").read_text() == "0\n3\n3\n9\n"
    with pytest.raises(DataError, match=r"^lone: has no down list; put lone\.down beside it"):
        PacketTrace("lone", np.array([1]), None).departures_ms("down")


def test_rates_as_packets_and_back_as_rates() -> None:
    trace = synthetic.steps([(2, 12, 1.2, 20), (1, 0, 0, 20), (2, 6, 1.2, 20)])
    lists = traces.packets(trace)
    assert lists.departures_ms("up")[:3].tolist() == [1, 2, 3]
    binned = lists.binned(1.0)
    np.testing.assert_allclose(binned.up_Bps, trace.up_Bps, atol=2 * 1500)
    assert traces.packets(Trace("t", *np.array([[0.0], [1e5], [np.nan], [0], [0]]))).down_ms is None


@pytest.mark.parametrize("name", synthetic.RECIPES)
def test_a_shipped_trace_is_made_again_to_the_byte(name: str) -> None:
    shelf = Path(traces.__file__).parent / "shipped"
    assert (shelf / f"{name}.csv").read_text() == traces.to_csv(synthetic.RECIPES[name]())


def test_every_shipped_trace_has_a_recipe_and_drives_a_link() -> None:
    assert traces.shipped() == tuple(sorted(synthetic.RECIPES))
    for name in traces.shipped():
        assert ShapedLink(traces.find(name), "down").send(1000, 0.0) is not None


def test_the_demo_has_its_acts() -> None:
    demo = traces.find("demo")
    assert isinstance(demo, Trace)
    assert 60 <= demo.length_s <= 75
    down = (demo.up_Bps == 0) & (demo.down_Bps == 0)
    lengths = np.diff(np.append(demo.time_s, demo.length_s))
    assert lengths[down].sum() == 10.0
    narrow = demo.up_Bps[(demo.time_s >= 15) & (demo.time_s < 27)] * 8e-3
    assert (narrow.min(), narrow.max()) == (60, 120)
    assert demo.up_Bps[0] * 8e-6 == 8
    assert 0.02 <= demo.rtt_s.min() <= demo.rtt_s.max() <= 0.06


@needs_traces
@pytest.mark.parametrize("path", REAL_CSV, ids=lambda path: path.stem)
def test_real_traces_read_and_carry_their_mean(path: Path) -> None:
    trace = traces.read_csv(path)
    rates = trace.up_Bps if not np.isnan(trace.up_Bps).any() else trace.down_Bps
    lengths = np.diff(np.append(trace.time_s, trace.length_s))
    capacity = RateCapacity(trace.time_s.tolist(), rates.tolist(), trace.length_s)
    assert capacity.carried(3 * trace.length_s) == pytest.approx(3 * float(rates @ lengths), rel=1e-9)
