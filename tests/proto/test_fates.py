"""Fates: every picture that was captured met exactly one, for one reason."""

from __future__ import annotations

from pathlib import Path

from isthmus.emulation.run_summary import summary
from isthmus.proto import record
from isthmus.proto.fates import RunEnd, Tally
from isthmus.proto.record import FrameRecord, Recorder, RunHeader
from isthmus.proto.vocabulary import FATES, AnswerSource, Fate, Reason, Skipped

HEADER = RunHeader(kind="live", bundle="signs", bundle_sha256="00", policy="local-only", deadline_s=0.1, fps=15.0)


def row(frame_id: int, source: AnswerSource, reason: Reason, stale: int = 0, rate: int = 0) -> FrameRecord:
    return FrameRecord(
        frame_id=frame_id, captured_s=0.0, deadline_s=0.1, confidence=0.5, source=source, reason=reason,
        answered_s=0.05, latency_s=0.05, on_time=True, skipped_stale=stale, skipped_rate=rate,
    )  # fmt: skip


ROWS = [
    row(0, AnswerSource.EXIT, Reason.CONFIDENT),
    row(1, AnswerSource.SERVER, Reason.RETURNED, stale=3),
    row(2, AnswerSource.REPEAT, Reason.UNCHANGED, rate=2),
    row(3, AnswerSource.FILTER, Reason.NOTHING),
    row(4, AnswerSource.NONE, Reason.INVALID, stale=1, rate=1),
    row(5, AnswerSource.EXIT, Reason.BUSY),
]


def test_every_source_of_answers_is_a_fate() -> None:
    assert set(FATES) == set(AnswerSource)
    assert set(FATES.values()) == set(Fate) - {Fate.SKIPPED}


def test_the_fates_of_a_run_add_up_to_what_was_captured() -> None:
    figures = summary(ROWS)
    assert figures.captured == 6 + 7 == sum(figures.by_fate.values())
    assert figures.by_fate == {"answered": 3, "repeated": 1, "dismissed": 1, "skipped": 7, "refused": 1}
    assert figures.frames == 6, "what is said of frames is said of those that were taken up"


def test_each_fate_has_its_reasons() -> None:
    tally = Tally()
    for each in ROWS:
        tally.add(each.source, each.reason, Skipped(each.skipped_stale, each.skipped_rate))
    assert tally.by_reason["skipped"] == {"stale": 4, "rate": 3}
    assert tally.by_reason["answered"] == {"confident": 1, "returned": 1, "busy": 1}
    assert sum(sum(reasons.values()) for reasons in tally.by_reason.values()) == tally.captured


def test_a_run_says_how_it_ended_and_one_that_was_cut_off_does_not(tmp_path: Path) -> None:
    path, end = tmp_path / "run.jsonl", RunEnd(ended="2026-11-30", captured=15, skipped_stale=6, skipped_rate=3)
    for ends in (True, False):
        with Recorder(path, HEADER) as recorder:
            for each in ROWS:
                recorder.write(each)
            if ends:
                recorder.end(end)
    first, second = record.load_all(path)
    assert (first.records, first.end) == (ROWS, end)
    assert (second.records, second.end) == (ROWS, None)
    record.save(tmp_path / "again.jsonl.zst", first)
    assert record.load(tmp_path / "again.jsonl.zst") == first


OLD = (
    b'{"schema":1,"kind":"live","bundle":"signs","bundle_sha256":"00","policy":"local-only","deadline_s":0.1,"fps":15.0}\n'
    b'{"frame_id":0,"captured_s":1.0,"deadline_s":1.1,"confidence":0.5,"source":"exit","reason":"confident",'
    b'"answered_s":1.05,"latency_s":0.05,"on_time":true}\n'
)


def test_records_of_before_still_read(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_bytes(OLD)
    run = record.load(tmp_path / "old.jsonl")
    assert run.end is None
    assert run.records[0].captured_unix_s is None
    assert summary(run.records).by_fate == {"answered": 1}
