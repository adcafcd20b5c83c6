"""Sinks: bounded, each for itself, and never waited for."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink, Sinks
from isthmus.proto.errors import BindError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import Answer, AnswerSource, Frame, LinkState, Reason

PIXELS = np.zeros((2, 2, 3), np.uint8)


def answered(frame_id: int) -> AnsweredPicture:
    answer = Answer(frame_id, 1, 0.5, AnswerSource.EXIT, Reason.CONFIDENT, None, 0.0, 0.0, True, 0)
    return AnsweredPicture(FrameRecord.from_answer(Frame(frame_id, 0.0, 0.1), answer), PIXELS, LinkState.UP, answer)


class Kept(Sink):
    """Keeps the numbers of what it is shown."""

    def __init__(self, name: str, capacity: int = 4, *, pictures: bool = True, fails: Exception | None = None) -> None:
        self.name, self.capacity, self.pictures, self._fails = name, capacity, pictures, fails
        self.frames: list[int] = []
        self.seen: list[bool] = []

    async def run(self, inbox: Inbox) -> None:
        async for each in inbox:
            if self._fails is not None:
                raise self._fails
            self.frames.append(each.row.frame_id)
            self.seen.append(each.pixels is not None)


class Stuck(Kept):
    async def run(self, inbox: Inbox) -> None:
        await asyncio.Event().wait()


def offered(sinks: Sinks, count: int, *, together: bool) -> None:
    async def run() -> None:
        async with sinks:
            for i in range(count):
                sinks.offer(answered(i))
                if not together:
                    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.001)

    asyncio.run(run())


def test_a_full_inbox_loses_its_oldest_and_counts_it() -> None:
    sink = Kept("page", capacity=3)
    sinks = Sinks([sink])
    offered(sinks, 10, together=True)
    assert sink.frames == [7, 8, 9]
    assert sinks.dropped == {"page": 7}


def test_a_sink_that_stands_still_costs_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.device.output.sinks.CLOSING_S", 0.01)
    good, stuck = Kept("page"), Stuck("broker", capacity=2)
    sinks = Sinks([stuck, good])
    offered(sinks, 10, together=False)
    assert good.frames == list(range(10))
    assert sinks.dropped == {"broker": 10, "page": 0}


@pytest.mark.parametrize("error", [OSError(113, "No route to host"), RuntimeError("a mistake")])
def test_a_sink_that_fails_is_reported_once_and_the_others_go_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Kept("page"), Kept("webhook", fails=error)
    sinks = Sinks([bad, good])
    offered(sinks, 5, together=False)
    assert good.frames == list(range(5))
    assert sinks.dropped["webhook"] == 4, "all but the one that it failed on"
    assert [r.getMessage() for r in caplog.records if "answers go on elsewhere" in r.getMessage()] != []


def test_what_can_never_work_is_said_before_the_first_frame() -> None:
    class Unopened(Kept):
        async def open(self) -> None:
            raise BindError("page: address in use")

    with pytest.raises(BindError):
        offered(Sinks([Unopened("page")]), 1, together=True)


def test_pictures_go_where_they_are_wanted() -> None:
    with_pictures, without = Kept("page"), Kept("broker", pictures=False)
    offered(Sinks([with_pictures, without]), 2, together=True)
    assert (with_pictures.seen, without.seen) == ([True, True], [False, False])
    assert not Sinks([without]).pictures
