"""Writers: what one cannot take, the other still gets; what was lost is said at the end."""

from __future__ import annotations

import fcntl
import json
import os
import threading

import msgspec
import pytest

from isthmus.device.output.writers import StandardOutput, Writers
from isthmus.proto.errors import DataError
from isthmus.proto.fates import RunEnd
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Reason

ROW = FrameRecord(
    frame_id=0, captured_s=0.0, deadline_s=0.0, confidence=0.5, source=AnswerSource.EXIT, reason=Reason.CONFIDENT,
    answered_s=0.0, latency_s=0.0, on_time=True,
)  # fmt: skip


class Scripted:
    """Fails as often as `errors` has them, then takes everything."""

    def __init__(self, name: str, *errors: Exception) -> None:
        self.name, self._errors, self.rows, self.closed = name, list(errors), 0, False

    def write(self, row: FrameRecord) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.rows += 1

    def end(self, end: RunEnd) -> None:
        """Nothing is noted."""

    def close(self) -> None:
        self.closed = True


FULL = OSError(28, "No space left on device")


def test_answers_go_on_where_they_can_and_the_loss_is_said_once_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = Scripted("record"), Scripted("standard output", FULL, FULL)
    writers = Writers([bad, good])
    for _ in range(4):
        writers.write(ROW)
    writers.close()
    assert (good.rows, bad.rows, good.closed, bad.closed) == (4, 2, True, True)
    assert len(caplog.records) == 1
    with pytest.raises(DataError, match=r"missing are 2 in standard output$"):
        writers.check()


def test_where_nothing_can_be_written_there_is_no_point_in_going_on() -> None:
    with pytest.raises(DataError, match="standard output: No space left on device"):
        Writers([Scripted("standard output", FULL)]).write(ROW)


def test_a_reader_that_has_had_enough_ends_it() -> None:
    with pytest.raises(BrokenPipeError):
        Writers([Scripted("record"), Scripted("standard output", BrokenPipeError())]).write(ROW)


def test_nothing_lost_is_nothing_said() -> None:
    writers = Writers([Scripted("standard output")])
    writers.write(ROW)
    writers.check()


END = RunEnd(ended="2026-11-30T00:00:00+00:00", captured=0, skipped_stale=0, skipped_rate=0)


def test_a_reader_that_does_not_read_is_waited_for_by_no_frame(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("isthmus.device.output.writers.UNREAD_BYTES", 10_000)
    monkeypatch.setattr("isthmus.device.output.writers.CLOSING_S", 0.01)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16_384)
    writers = Writers([StandardOutput(writing)])
    for number in range(200):
        writers.write(msgspec.structs.replace(ROW, frame_id=number))
    writers.end(END)
    with pytest.raises(DataError, match=r"missing are \d+ in standard output"):
        writers.check()
    assert [record.message.split(";")[0] for record in caplog.records] == ["standard output: is not read fast enough"]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        whole = [json.loads(line) for line in pipe.read().splitlines(keepends=True) if line.endswith(b"\n")]
    assert [row["frame_id"] for row in whole] == list(range(len(whole)))
    assert len(whole) > 5


def test_a_reader_that_is_late_gets_every_line_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16_384)
    output, read = StandardOutput(writing), list[bytes]()
    long = msgspec.structs.replace(ROW, picture="x" * 9_000)
    for _ in range(20):
        output.write(long)
    pipe = os.fdopen(reading, "rb")
    slow = threading.Thread(target=lambda: read.extend(pipe))
    slow.start()
    output.end(END)
    os.close(writing)
    slow.join()
    pipe.close()
    assert [json.loads(line)["picture"] for line in read] == [long.picture] * 20


def test_a_reader_that_is_gone_is_told_from_one_that_is_slow() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        StandardOutput(writing).write(ROW)
    os.close(writing)
