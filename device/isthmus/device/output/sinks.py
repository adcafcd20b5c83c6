"""Sinks: whoever is shown answers with their pictures, and must never cost a frame.

Each has a bounded inbox, a task of its own, and a counter of what its inbox dropped. Offering never waits: an inbox that
is full loses its oldest answer. A sink that fails is reported once, and everything else goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from numpy.typing import NDArray

from isthmus.device.monitoring.insight import Insight
from isthmus.proto.errors import IsthmusError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import Answer, LinkState

log = logging.getLogger(__name__)

CLOSING_S = 2.0
"""What a sink still has in its inbox when all is over may take so long; what is left then counts as dropped."""


@dataclass(frozen=True)
class AnsweredPicture:
    """One answer, with the picture that it is the answer to."""

    row: FrameRecord
    pixels: NDArray[Any] | None
    """The picture as its source gave it, (H, W, 3) RGB, shared by all sinks: read it, copy it to draw on it.

    None where it could not be read, and for sinks that want no pictures.
    """
    link: LinkState
    answer: Answer
    """The answer as it was given, with what was found in the picture; `row` is the same and more, flat."""
    sent_crc: int | None = None
    """The checksum of the first layer that was sent last of it; None where none was."""


class Inbox:
    """A bounded queue of answers for one sink: `async for answered in inbox`, until the agent ends."""

    def __init__(self, capacity: int) -> None:
        self._waiting: deque[AnsweredPicture] = deque()
        self._capacity, self._closed, self._filled = capacity, False, asyncio.Event()
        self.dropped = 0
        """Answers that were offered here and never read."""

    def offer(self, answered: AnsweredPicture) -> None:
        """Put an answer in, in no time; where there is no room, the oldest goes."""
        if self._closed or len(self._waiting) == self._capacity:
            self.dropped += 1
        if self._closed:
            return
        if len(self._waiting) == self._capacity:
            self._waiting.popleft()
        self._waiting.append(answered)
        self._filled.set()

    def close(self) -> None:
        """Take nothing more; what is in here can still be read."""
        self._closed = True
        self._filled.set()

    def abandon(self) -> None:
        """Nobody reads any more: what is in here is dropped, and so is what comes."""
        self.close()
        self.dropped += len(self._waiting)
        self._waiting.clear()

    async def next(self) -> AnsweredPicture | None:
        """The oldest answer in here, waited for; None at the end. May be cancelled (`asyncio.wait_for`) without a loss."""
        while not self._waiting:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popleft()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> AnsweredPicture:
        answered = await self.next()
        if answered is None:
            raise StopAsyncIteration
        return answered


class Sink(Protocol):
    """Something that answers are shown to. What takes long or blocks is done in a thread (`asyncio.to_thread`)."""

    name: str
    """What it is called in logs and counters."""
    capacity: int = 4
    """How many answers wait for it at most; with pictures, megabytes each."""
    pictures: bool = True
    """Whether it wants pictures; where no sink does, none is kept."""

    def beside(self, sinks: Sinks) -> None:
        """Be told of all sinks, of which this is one, before they are opened."""
        return  # most do not care

    async def open(self) -> None:
        """Prepare, before the first frame. Raises IsthmusError where it can never work: that ends the agent."""
        return  # most have nothing to prepare

    async def run(self, inbox: Inbox) -> None:
        """Show what comes in, until the inbox ends; then let go of everything. What it raises ends this sink alone."""


class Sinks:
    """Several sinks at work: an asynchronous context, within which answers are offered."""

    def __init__(self, sinks: Sequence[Sink], insight: Insight | None = None) -> None:
        """`insight` is there for sinks that show more than answers."""
        self._sinks, self.insight = sinks, insight
        self._inboxes = {sink.name: Inbox(sink.capacity) for sink in sinks}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pictures(self) -> bool:
        """Whether any of them wants pictures."""
        return any(sink.pictures for sink in self._sinks)

    @property
    def dropped(self) -> dict[str, int]:
        """How many answers each has lost until now."""
        return {name: inbox.dropped for name, inbox in self._inboxes.items()}

    def offer(self, answered: AnsweredPicture) -> None:
        """Offer an answer to every sink, in no time."""
        for sink in self._sinks:
            shown = answered if sink.pictures or answered.pixels is None else replace(answered, pixels=None)
            self._inboxes[sink.name].offer(shown)

    async def __aenter__(self) -> Sinks:
        for sink in self._sinks:
            sink.beside(self)
        for sink in self._sinks:
            await sink.open()
        self._tasks = [asyncio.ensure_future(self._run(sink)) for sink in self._sinks]
        return self

    async def __aexit__(self, *_: object) -> None:
        for inbox in self._inboxes.values():
            inbox.close()
        if self._tasks:
            late = (await asyncio.wait(self._tasks, timeout=CLOSING_S))[1]
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for name, dropped in self.dropped.items():
            if dropped:
                log.warning("%s: %d answers were not shown there", name, dropped)

    async def _run(self, sink: Sink) -> None:
        inbox = self._inboxes[sink.name]
        try:
            await sink.run(inbox)
        except (IsthmusError, OSError) as error:
            log.warning("%s: %s; answers go on elsewhere", sink.name, error)
        except Exception:
            log.exception("%s: failed; answers go on elsewhere", sink.name)
        finally:
            inbox.abandon()
