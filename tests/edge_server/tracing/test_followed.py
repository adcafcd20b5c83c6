"""What a server adds to a frame's trace, by how the frame ended; and frames that nobody tells the end of."""

from __future__ import annotations

import pytest

from isthmus.edge_server.tracing.followed import MOST_OPEN, Followed
from isthmus.proto.messages import Ack, Busy, Invalid, Late, Layer, Result, ServerMessage
from isthmus.proto.monitoring.spans import FRAME, FrameTrace, Span
from isthmus.proto.vocabulary import ServerTimings

RESULT = Result(3, 2, (0.0,), ServerTimings(0.01, 0.02, 0.03, 0.001))


class Kept:
    """Keeps the spans of each trace."""

    def __init__(self, share: float = 1.0) -> None:
        self.spans: dict[FrameTrace, list[Span]] = {}
        self._share = share

    def keeps(self, trace: FrameTrace) -> bool:
        return trace.kept(self._share)

    def add(self, trace: FrameTrace, spans: list[Span]) -> None:
        assert trace not in self.spans
        self.spans[trace] = spans


def layers(frame_id: int) -> tuple[Layer, Layer]:
    return Layer(frame_id, 0, False, 0.1, b"base", 77), Layer(frame_id, 1, True, 0.1, b"fine", 78)


def test_an_answered_frame_has_its_way_through_the_server_in_the_device_s_trace() -> None:
    kept = Kept()
    followed = Followed(kept, "porch", "signs")
    for layer in layers(3):
        followed.on_layer(layer)
        followed.on_reply(Ack(3, layer.layer))
    followed.on_reply(RESULT)
    followed.on_reply(RESULT)  # a frame has one end
    (spans,) = [kept.spans[FrameTrace.of_sent("porch", 3, 77)]]
    serve, receive, queue, tail = spans
    assert [(span.name, span.parent) for span in spans] == [
        ("serve", FRAME), ("receive", "serve"), ("queue", "serve"), ("tail", "serve")
    ]  # fmt: skip
    assert serve.began_s == receive.began_s
    assert (receive.ended_s, queue.ended_s) == (queue.began_s, tail.began_s)
    assert tail.ended_s - serve.began_s == pytest.approx(0.06)
    assert serve.ended_s >= tail.ended_s - 1e-6
    shown = {name.removeprefix("isthmus."): value for name, value in serve.attributes.items()}
    assert shown == {
        "outcome": "result", "bundle": "signs", "client_id": "porch", "frame_id": 3,
        "budget_s": 0.1, "bytes": 8, "layers": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "outcome"), [(Late(3), "late"), (Busy(3, 0.1), "busy"), (Invalid(3, 0, "crc"), "invalid")]
)
def test_a_refused_frame_says_how_it_ended(reply: ServerMessage, outcome: str) -> None:
    kept = Kept()
    followed = Followed(kept, "porch", "signs")
    followed.on_layer(layers(3)[0])
    followed.on_reply(reply)
    ((serve,),) = kept.spans.values()
    assert (serve.name, serve.attributes["isthmus.outcome"]) == ("serve", outcome)


def test_a_refinement_that_is_lost_is_no_end() -> None:
    kept = Kept()
    followed = Followed(kept, "porch", "signs")
    followed.on_layer(layers(3)[0])
    followed.on_reply(Invalid(3, 1, "crc"))
    assert not kept.spans
    followed.on_reply(RESULT)
    assert len(kept.spans) == 1


def test_frames_without_an_end_are_forgotten_and_so_are_those_that_are_not_wanted() -> None:
    kept = Kept()
    followed = Followed(kept, "porch", "signs")
    for frame_id in range(MOST_OPEN + 1):
        followed.on_layer(layers(frame_id)[0])
    for frame_id in range(MOST_OPEN + 1):
        followed.on_reply(Late(frame_id))
    assert sorted(trace.frame_id for trace in kept.spans) == list(range(1, MOST_OPEN + 1))
    few = Kept(1e-9)
    followed = Followed(few, "porch", "signs")
    followed.on_layer(layers(3)[0])
    followed.on_layer(layers(3)[1])
    followed.on_reply(RESULT)
    assert not few.spans
