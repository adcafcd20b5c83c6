"""Rows of records for tests: a frame that the device answered rightly and in time, but for what is said."""

from __future__ import annotations

from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Reason


def row(
    frame_id: int = 0,
    *,
    truth: int | None = 1,
    label: int | None = 1,
    local: int | None = 1,
    on_time: bool = True,
    source: AnswerSource = AnswerSource.EXIT,
    latency_s: float = 0.01,
    width: float | None = 0.5,
    bytes_up: int = 0,
    energy_J: float | None = None,
    promised: float | None = None,
) -> FrameRecord:
    return FrameRecord(
        frame_id=frame_id,
        captured_s=0.0,
        deadline_s=0.1,
        truth=truth,
        label=label,
        confidence=0.5,
        source=source,
        reason=Reason.CONFIDENT,
        width=width,
        answered_s=latency_s,
        latency_s=latency_s,
        on_time=on_time,
        bytes_up=bytes_up,
        energy_J=energy_J,
        local_label=local,
        promised=promised,
    )
