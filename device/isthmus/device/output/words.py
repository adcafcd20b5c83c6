"""An answer as a line for people: `isthmus agent --format text`. Pure."""

from __future__ import annotations

from isthmus.proto.printable import printable
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource

FROM = {
    AnswerSource.EXIT: "the device",
    AnswerSource.SERVER: "the server",
    AnswerSource.REPEAT: "the picture before",
    AnswerSource.FILTER: "the filter",
}
PICTURE_CHARACTERS = 60


def sentence(row: FrameRecord) -> str:
    """What was answered, by whom, and how soon; without an end of line."""
    asked = f"frame {row.frame_id}" if row.picture is None else printable(row.picture, PICTURE_CHARACTERS)
    took = f"{row.latency_s * 1e3:.0f} ms{'' if row.on_time else ', late'}"
    if row.source is AnswerSource.NONE:
        return f"{asked}: no answer ({row.reason}), {took}"
    sent = f", {row.bytes_up} bytes sent" if row.bytes_up else ""
    return f"{asked}: {_answer(row)}, from {FROM[row.source]} ({row.reason}), {took}{sent}"


def _answer(row: FrameRecord) -> str:
    name = row.answer or ("answered" if row.label is None else f"class {row.label}")
    if row.boxes is not None:
        return f"{len(row.boxes)} found, surest {name} {row.boxes[0].score:.0%}" if row.boxes else "nothing found"
    return f"{name} {row.confidence:.0%}"
