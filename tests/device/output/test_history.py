"""The record through restarts, rotation and full disks: nothing is overwritten, every file reads, all is bounded."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from isthmus.device.output.history import History, Limits
from isthmus.proto import record
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, Recorder, RunHeader
from isthmus.proto.vocabulary import AnswerSource, Reason

HEADER = RunHeader(kind="live", bundle="signs", bundle_sha256="ab", policy="local-only", deadline_s=0.1, fps=15.0)
LIMITS = Limits(file_bytes=100_000, age_s=3600.0, total_bytes=1_000_000)


def row(number: int, captured_s: float | None = None) -> FrameRecord:
    return FrameRecord(
        frame_id=number,
        captured_s=float(number) if captured_s is None else captured_s,
        deadline_s=0.0,
        confidence=0.5,
        source=AnswerSource.EXIT,
        reason=Reason.CONFIDENT,
        answered_s=0.0,
        latency_s=0.0,
        on_time=True,
    )


def written(path: Path, numbers: range, limits: Limits = LIMITS, header: RunHeader = HEADER) -> None:
    history = History(path, header, limits)
    for number in numbers:
        history.write(row(number))
    history.close()


def frames(path: Path) -> list[int]:
    return [r.frame_id for r in record.read(path)[1]]


def test_a_restart_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for start in (0, 10, 20):
        written(path, range(start, start + 3), header=msgspec.structs.replace(HEADER, command=f"run {start}"))
    assert [f.name for f in tmp_path.iterdir()] == ["run.jsonl"]
    runs = record.load_all(path)
    assert [[r.frame_id for r in run.records] for run in runs] == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert [run.header.command for run in runs] == ["run 0", "run 10", "run 20"]
    assert record.load(path) == runs[-1]


def test_a_line_that_a_dead_battery_cut_off_does_not_spoil_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    written(path, range(3))
    path.write_bytes(path.read_bytes()[:-10])
    written(path, range(10, 12))
    assert [[r.frame_id for r in run.records] for run in record.load_all(path)] == [[0, 1], [10, 11]]


@pytest.mark.parametrize("there", [b"mine", b"mine\n", b"\0" * 5000, b'{"schema":'])
def test_what_is_no_record_is_moved_aside_whole(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(there)
    written(path, range(2))
    assert (tmp_path / "notes.000001.txt").read_bytes() == there
    assert frames(path) == [0, 1]


def test_runs_without_an_answer_leave_nothing(tmp_path: Path) -> None:
    for _ in range(5):
        written(tmp_path / "run.jsonl", range(0))
    assert (tmp_path / "run.jsonl").read_bytes() == b""


def test_a_file_whose_first_run_is_old_is_followed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for hour in (0, 1, 2):
        started = f"2026-01-01T{10 + hour}:00:00+00:00"
        written(
            path, range(hour, hour + 1), replace(LIMITS, age_s=5400.0), msgspec.structs.replace(HEADER, started=started)
        )
    assert {f.name: len(record.load_all(f)) for f in tmp_path.iterdir()} == {"run.000001.jsonl": 2, "run.jsonl": 1}


def test_a_file_that_is_full_is_followed_by_the_next_and_all_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    limits = replace(LIMITS, file_bytes=2000, total_bytes=10_000)
    written(path, range(200), limits)
    files = sorted(tmp_path.iterdir())
    assert sum(f.stat().st_size for f in files) <= 10_000 + 1000
    assert len(files) >= 4
    kept = [number for f in files for number in frames(f)]
    assert kept == list(range(200 - len(kept), 200))
    assert all(record.read(f)[0] == HEADER for f in files)


def test_a_file_that_is_old_is_followed_by_the_next(tmp_path: Path) -> None:
    history = History(tmp_path / "run.jsonl", HEADER, LIMITS)
    for number, captured_s in enumerate((100.0, 2000.0, 3701.0, 3702.0)):
        history.write(row(number, captured_s))
    history.close()
    assert [frames(f) for f in sorted(tmp_path.iterdir())] == [[0, 1], [2, 3]]


def test_a_disk_that_is_full_may_have_room_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, full = tmp_path / "run.jsonl", True
    real = os.write

    def write(descriptor: int, content: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr("isthmus.proto.files.os.write", write)
    history = History(path, HEADER, LIMITS)
    with pytest.raises(DataError, match=r"run\.jsonl: No space left on device"):
        history.write(row(0))
    full = False
    history.write(row(1))
    full = True
    with pytest.raises(DataError):
        history.write(row(2))
    full = False
    history.write(row(3))
    history.close()
    assert frames(path) == [1, 3]


def test_a_place_where_nothing_can_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="name another place for the record"):
        History(tmp_path / "file" / "run.jsonl", HEADER, LIMITS)
    with pytest.raises(DataError, match="name another place for the record"):
        History(tmp_path, HEADER, LIMITS)


def test_the_format_is_the_recorders_own(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", range(3))
    with Recorder(tmp_path / "b.jsonl", HEADER) as recorder:
        for number in range(3):
            recorder.write(row(number))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
