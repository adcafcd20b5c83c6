"""A record as spans: what a frame had, where it lies in time, and nothing that it had not."""

from __future__ import annotations

import pytest

from device.output.test_presence import row
from isthmus.device.output.sinks import AnsweredPicture
from isthmus.device.output.traces import spans_of, trace_of
from isthmus.proto.monitoring.spans import FRAME, FrameTrace
from isthmus.proto.vocabulary import Answer, AnswerSource, LinkState, Reason


def test_a_frame_that_came_back_has_its_parts_one_after_the_other() -> None:
    told = row(
        10.0, source=AnswerSource.SERVER, reason=Reason.RETURNED, answered_s=10.09, wait_s=0.01, head_s=0.02, encode_s=0.005,
        network_s=0.04, server_receive_s=0.005, server_queue_s=0.004, server_tail_s=0.01, server_send_s=0.001,
        width=0.5, step=3, layers=2, bytes_up=400,
    )  # fmt: skip
    frame, head, encode, network = spans_of(told)
    assert [(span.name, span.parent) for span in (frame, head, encode, network)] == [
        ("frame", None), ("head", FRAME), ("encode", FRAME), ("network", FRAME)
    ]  # fmt: skip
    assert (frame.began_s, frame.ended_s) == (10.0, 10.09)
    assert (head.began_s, head.ended_s) == pytest.approx((10.01, 10.03))
    assert (encode.began_s, encode.ended_s) == pytest.approx((10.03, 10.035))
    assert (network.began_s, network.ended_s) == pytest.approx((10.035, 10.09))
    assert network.attributes == {"isthmus.network_s": 0.04}
    shown = {name.removeprefix("isthmus."): value for name, value in frame.attributes.items()}
    assert shown == {
        "source": "server", "reason": "returned", "deadline_s": pytest.approx(0.1), "frame_id": 0, "width": 0.5,
        "step": 3, "layers": 2, "bytes_up": 400, "on_time": True, "label": 1, "confidence": 0.9,
    }  # fmt: skip


def test_what_a_frame_had_not_is_no_span() -> None:
    assert [span.name for span in spans_of(row(1.0, source=AnswerSource.REPEAT))] == ["frame"]
    assert [span.name for span in spans_of(row(1.0, head_s=0.01))] == ["frame", "head"]
    nothing = spans_of(row(1.0, None, source=AnswerSource.NONE, reason=Reason.DEADLINE, head_s=0.01, encode_s=0.01))
    assert [span.name for span in nothing] == ["frame", "head", "encode"]
    assert "isthmus.label" not in nothing[0].attributes


def test_a_frame_that_was_sent_is_in_the_trace_that_the_server_finds() -> None:
    told = row(1.0, captured_unix_s=5.0)
    answer = Answer(0, 1, 0.9, told.source, told.reason, None, 1.0, 0.0, True, 0)
    kept = AnsweredPicture(told, None, LinkState.UP, answer)
    sent = AnsweredPicture(told, None, LinkState.UP, answer, 77)
    assert trace_of("porch", sent) == FrameTrace.of_sent("porch", 0, 77)
    assert trace_of("porch", kept) == FrameTrace.of_kept("porch", 0, 5.0)
