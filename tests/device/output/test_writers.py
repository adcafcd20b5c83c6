"""Writers: what one cannot take, the other still gets; what was lost is said at the end."""

from __future__ import annotations

import pytest

from isthmus.device.output.writers import Writers
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
