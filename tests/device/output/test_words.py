"""An answer as a line for people."""

from __future__ import annotations

import msgspec

from isthmus.device.output.words import sentence
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Box, Reason

ROW = FrameRecord(
    frame_id=7, captured_s=1.0, deadline_s=1.1, label=2, answer="stop", confidence=0.971, source=AnswerSource.SERVER,
    reason=Reason.RETURNED, answered_s=1.043, latency_s=0.043, on_time=True, bytes_up=812,
)  # fmt: skip


def test_what_was_answered_by_whom_and_how_soon() -> None:
    assert sentence(ROW) == "frame 7: stop 97%, from the server (returned), 43 ms, 812 bytes sent"


def test_no_answer_says_why() -> None:
    row = msgspec.structs.replace(
        ROW, label=None, answer=None, confidence=0.0, source=AnswerSource.NONE, reason=Reason.OVERLOADED, on_time=False
    )
    assert sentence(row) == "frame 7: no answer (overloaded), 43 ms, late"


def test_a_picture_is_called_as_its_source_calls_it_on_one_line() -> None:
    row = msgspec.structs.replace(
        ROW, picture="gate\n.jpg", bytes_up=0, source=AnswerSource.EXIT, reason=Reason.CONFIDENT
    )
    assert sentence(row).endswith(".jpg: stop 97%, from the device (confident), 43 ms")
    assert "\n" not in sentence(row)


def test_boxes_are_counted() -> None:
    box = Box(2, 0.8, 0.1, 0.1, 0.2, 0.2)
    assert "2 found, surest stop 80%" in sentence(msgspec.structs.replace(ROW, boxes=(box, box)))
    assert "nothing found" in sentence(msgspec.structs.replace(ROW, boxes=()))
