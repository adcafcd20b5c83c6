"""Records: whole lines or nothing, damage named by line, and figures that count only what was right and on time."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from isthmus.proto import record
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, Recorder, Run, RunHeader
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Frame,
    Guess,
    OperatingPoint,
    Reason,
    ServerTimings,
    Timings,
)
from record_rows import row

HEADER = RunHeader(
    kind="emulated",
    bundle="signs",
    bundle_sha256="ab",
    policy="utility",
    trace="demo",
    trace_sha256="cd",
    deadline_s=0.1,
    fps=15.0,
    seed=7,
    command="isthmus demo",
    version="0.1.0",
    started="2025-01-01T00:00:00+00:00",
    host={"cores": 2},
    notes=("relay",),
)
FRAME = Frame(id=3, captured_s=10.0, deadline_s=10.1, label=5)
ANSWER = Answer(
    frame_id=3,
    label=5,
    confidence=0.9,
    source=AnswerSource.SERVER,
    reason=Reason.RETURNED,
    point=OperatingPoint(width=0.5, step=1, layers=2),
    answered_s=10.06,
    latency_s=0.06,
    on_time=True,
    bytes_up=1234,
    timings=Timings(0.001, 0.01, 0.002, 0.03, ServerTimings(0.004, 0.005, 0.006, 0.007)),
)


def test_an_answer_lies_flat_in_its_record() -> None:
    flat = FrameRecord.from_answer(FRAME, ANSWER, Guess(4, 0.6), goodput_Bps=5e4)
    assert (flat.frame_id, flat.truth, flat.label, flat.source, flat.width, flat.exit) == (3, 5, 5, "server", 0.5, None)
    assert (flat.step, flat.layers, flat.bytes_up, flat.goodput_Bps) == (1, 2, 1234, 5e4)
    assert (flat.wait_s, flat.head_s, flat.encode_s, flat.network_s) == (0.001, 0.01, 0.002, 0.03)
    assert (flat.server_receive_s, flat.server_queue_s, flat.server_tail_s, flat.server_send_s) == (
        0.004,
        0.005,
        0.006,
        0.007,
    )
    assert (flat.local_label, flat.local_confidence) == (4, 0.6)
    assert (flat.right, flat.local_right) == (True, False)


def test_an_answer_without_a_point_or_a_guess() -> None:
    none = Answer(3, None, 0.0, AnswerSource.NONE, Reason.OVERLOADED, None, 10.1, 0.1, True, 0)
    flat = FrameRecord.from_answer(FRAME, none)
    assert (flat.width, flat.layers, flat.local_label, flat.right, flat.local_right) == (None, 0, None, False, False)


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [FrameRecord.from_answer(FRAME, ANSWER, Guess(4, 0.6)), row(4), row(5, truth=None, label=None)]
    with Recorder(tmp_path / "new" / "run.jsonl", HEADER) as recorder:
        for one in rows:
            recorder.write(one)
    assert record.read(tmp_path / "new" / "run.jsonl") == (HEADER, rows)


def test_what_is_written_is_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl", HEADER)
    recorder.write(row(1))
    assert record.read(tmp_path / "run.jsonl") == (HEADER, [row(1)])
    recorder.close()


def test_every_prefix_of_a_file_reads_or_names_its_header(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Recorder(path, HEADER) as recorder:
        recorder.write(row(1))
        recorder.write(row(2))
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        lines = whole[:end].count(b"\n")
        if lines == 0:
            with pytest.raises(DataError, match=r"line 1: has no header"):
                record.load(path)
        else:
            run = record.load(path)
            assert (len(run.records), run.cut_lines) == (lines - 1, int(not whole[:end].endswith(b"\n")))


@pytest.mark.parametrize(
    ("number", "damaged", "problem"),
    [
        (1, b"{}", "line 1: not a RunHeader"),
        (2, b'{"frame_id": 1', "line 2: not a FrameRecord"),
        (2, b'{"frame_id": 1}', "line 2: not a FrameRecord"),
        (3, b"\xff\xfe", "line 3: not a FrameRecord"),
        (3, b"", "line 3: not a FrameRecord"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, number: int, damaged: bytes, problem: str) -> None:
    path = tmp_path / "run.jsonl"
    with Recorder(path, HEADER) as recorder:
        recorder.write(row(1))
        recorder.write(row(2))
    lines = path.read_bytes().splitlines()
    lines[number - 1] = damaged
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError) as refused:
        record.load(path)
    assert str(refused.value).startswith(f"{path}: {problem}")


def test_a_record_of_another_schema_or_with_unknown_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    Recorder(path, HEADER).close()
    header = json.loads(path.read_bytes())
    path.write_text(json.dumps(header | {"schema": 2}) + "\n")
    with pytest.raises(DataError, match="schema 2, and this version reads 1"):
        record.load(path)
    path.write_text(json.dumps(header | {"colour": "red"}) + "\n")
    with pytest.raises(DataError, match="colour"):
        record.load(path)


def test_a_finished_run_is_kept_compressed_and_damage_to_it_is_named(tmp_path: Path) -> None:
    run = record.Run(HEADER, [row(i) for i in range(200)], 0)
    path = tmp_path / "run.jsonl.zst"
    record.save(path, run)
    assert record.load(path) == run
    assert path.stat().st_size < 3000
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"{path}: damaged"):
        record.load(path)
    with pytest.raises(DataError, match="name another place"):
        record.save(path / "run.jsonl.zst", run)  # a file is no folder
    record.save(tmp_path / "new" / "run.jsonl.zst", run)
    assert record.load(tmp_path / "new" / "run.jsonl.zst") == run


def test_several_runs_in_one_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.jsonl.zst"
    other = msgspec.structs.replace(HEADER, seed=8)
    runs = [Run(HEADER, [row(0), row(1)], 0), Run(other, [row(0)], 0)]
    record.save(path, *runs)
    assert record.load_all(path) == runs
    assert record.read(path) == (other, [row(0)])


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        record.read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="name another place"):
        Recorder(tmp_path, HEADER)


def test_a_file_that_claims_to_unfold_to_terabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.zst"
    path.write_bytes(bytes.fromhex("28b52ffde0") + (1 << 40).to_bytes(8, "little") + bytes(8))
    with pytest.raises(DataError, match="claims to unfold to 1099511627776 bytes"):
        record.load(path)
