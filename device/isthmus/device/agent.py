"""An agent in five lines of Python:

    with Agent.open("agent.toml") as agent:
        for answer in agent.answers("camera:0"):
            print(answer.picture, answer.answer, answer.confidence, answer.source)

Its answers may be iterated with `async for` too, or be handed to a function (`agent.run`); `agent.answer(picture)` is the
answer to one picture, by its deadline. The agent lives on an event loop in a thread of its own, and meets its deadlines
whatever the caller does with an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from isthmus.device.capture.sources import Picture, Source, open_source
from isthmus.device.config import AgentConfig
from isthmus.device.host import Host
from isthmus.device.run import Opened, answer_all, answer_with, open_device, wish_of
from isthmus.proto import config as configuration
from isthmus.proto.errors import IsthmusError
from isthmus.proto.record import FrameRecord

Pictures = str | Iterable[NDArray[Any]] | None
"""A source by its name, or pictures (H, W, 3) RGB; None is the configured source."""


class Agent:
    """A bundle's head, warm, and the way to a server if one is configured. It does one thing at a time."""

    def __init__(self, device: Opened) -> None:
        self._device = device
        self._at_work: _Running | None = None

    @classmethod
    def open(cls, config: AgentConfig | str | Path) -> Agent:
        """Open an agent by its configuration, or the TOML file of one (ISTHMUS_AGENT_* variables win over it).

        Raises ConfigError, SecurityError, BundleError, each naming the thing and the way out.
        """
        if not isinstance(config, AgentConfig):
            config = configuration.load(AgentConfig, Path(config), {}, prefix="ISTHMUS_AGENT")
        return cls(open_device(config))

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End whatever is at work; what was captured before is answered. The agent may be asked again afterwards."""
        if self._at_work is not None:
            self._at_work.end()

    def name_of(self, label: int) -> str:
        """What the bundle calls a class."""
        return self._device.bundle.manifest.name_of(label)

    def answers(self, source: Pictures = None) -> Answers:
        """The answer to every frame, as it is given; `answer` is its name, `source` says which half gave it.

        `source` is a camera, file, folder or generated video by its name, or pictures (H, W, 3) RGB, which are taken at
        the configured `fps`; without one it is the configured source. Leaving the loop ends the agent. Raises SourceError
        when the source goes away, HandshakeError when the server's bundle is another one.
        """
        return Answers(lambda: self._started(_Watching(self._device, self._opened(source))))

    def run(self, on_answer: Callable[[FrameRecord], object], source: Pictures = None) -> None:
        """Hand every answer to a function, in the caller's thread, until the source ends. Raises as `answers` does."""
        for answer in self.answers(source):
            on_answer(answer)

    def answer(self, picture: NDArray[Any], *, deadline_s: float | None = None) -> FrameRecord:
        """The answer to one picture (H, W, 3) RGB, `deadline_s` after this call at the latest [as configured].

        Its `source` is `none` where nothing was found out in time. Raises HandshakeError as `answers` does.
        """
        return self.ask(picture, deadline_s=deadline_s).result()

    def ask(self, picture: NDArray[Any], *, deadline_s: float | None = None) -> Future[FrameRecord]:
        """The same without waiting for it: `asyncio.wrap_future` makes it something to `await`."""
        if not isinstance(self._at_work, _Asked) or not self._at_work.is_alive():
            self._started(_Asked(self._device))
        assert isinstance(self._at_work, _Asked)
        return self._at_work.ask(picture, deadline_s or self._device.config.deadline_s)

    def _started(self, running: _Running) -> Any:
        if self._at_work is not None and self._at_work.is_alive():
            raise IsthmusError("agent: is at work already; leave that loop or close it first, or open another agent")
        self._at_work = running
        running.start()
        return running

    def _opened(self, source: Pictures) -> Source:
        if source is None or isinstance(source, str):
            config, labels = self._device.config, self._device.bundle.manifest.labels
            return open_source(source or config.source, labels, wish_of(config), config.rotate)
        return _Given(source)


class Answers(Iterator[FrameRecord]):
    """Answers as they are given, for `for` and for `async for`."""

    def __init__(self, start: Callable[[], _Watching]) -> None:
        self._start = start
        self._given = _waited_for(start)  # which must not know this object, or leaving a loop would not end it

    def __next__(self) -> FrameRecord:
        return next(self._given)

    def close(self) -> None:
        """End the agent, as leaving the loop does."""
        self._given.close()

    async def __aiter__(self) -> AsyncIterator[FrameRecord]:
        running = await asyncio.to_thread(self._start)
        try:
            while (row := await asyncio.to_thread(running.told.get)) is not None:
                yield _raised(row)
        finally:
            await asyncio.to_thread(running.end)


def _waited_for(start: Callable[[], _Watching]) -> Generator[FrameRecord]:
    running = start()
    try:
        while (row := running.told.get()) is not None:
            yield _raised(row)
    finally:
        running.end()


def _raised(row: FrameRecord | BaseException) -> FrameRecord:
    if isinstance(row, BaseException):
        raise row
    return row


class _Running(threading.Thread):
    """An agent at work on an event loop of its own."""

    def __init__(self, device: Opened) -> None:
        super().__init__(name="agent", daemon=True)
        self._device = device
        self._cancel: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ends = False

    def run(self) -> None:
        """Answer to the end."""
        error: BaseException | None = None
        try:
            asyncio.run(self._cancellable())
        except BaseException as raised:
            error = raised  # told where the answers are read
        self.over(error)

    def end(self) -> None:
        """Take no further picture, whatever the source does; wait until it has come to that."""
        if not self._ends:
            self._ends = True
            self._cancel.get()()
        self.join()

    async def _cancellable(self) -> None:
        loop, answering = asyncio.get_running_loop(), asyncio.ensure_future(self.answered())
        self._cancel.put(partial(_called_in, loop, answering.cancel))
        with contextlib.suppress(asyncio.CancelledError):
            await answering

    def answered(self) -> Coroutine[None, None, None]:
        """All that is to be done."""
        raise NotImplementedError

    def over(self, error: BaseException | None) -> None:
        """It has come to its end, or was brought to it."""
        raise NotImplementedError


class _Watching(_Running):
    """Answers the pictures of a source."""

    def __init__(self, device: Opened, source: Source) -> None:
        super().__init__(device)
        self.told: queue.Queue[FrameRecord | BaseException | None] = queue.Queue()
        """Answers, and what ended them: an error, or None."""
        self._source = source

    def answered(self) -> Coroutine[None, None, None]:
        return answer_all(self._device, self._source, self.told.put)

    def over(self, error: BaseException | None) -> None:
        self.told.put(error)


class _Asked(_Running):
    """Answers the pictures that it is asked about, from any thread."""

    def __init__(self, device: Opened) -> None:
        super().__init__(device)
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[FrameRecord]] = {}
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._host: Host | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, pixels: NDArray[Any], deadline_s: float) -> Future[FrameRecord]:
        """A future of the answer, due from now on. What ended the agent before it answered is raised by the future."""
        asked_s = time.monotonic()  # the event loop's own clock
        self._ready.wait()
        number, answer = next(self._numbers), Future[FrameRecord]()
        self._waiting[number] = answer
        picture = Picture(f"picture {number}", pixels, captured_s=asked_s)
        if self._host is not None and self._loop is not None:
            _called_in(self._loop, partial(self._host.take, picture, number, deadline_s=deadline_s))
        if not self._loop or self._loop.is_closed():
            self._give_up()
        return answer

    def answered(self) -> Coroutine[None, None, None]:
        return answer_with(self._device, self._serve, self._tell)

    async def _serve(self, host: Host) -> None:
        self._host, self._loop = host, asyncio.get_running_loop()
        self._ready.set()
        await host.serve()

    def _tell(self, row: FrameRecord) -> None:
        self._waiting.pop(row.frame_id).set_result(row)

    def over(self, error: BaseException | None) -> None:
        self._error = error
        self._ready.set()
        self._give_up()

    def _give_up(self) -> None:
        for number in list(self._waiting):
            if (answer := self._waiting.pop(number, None)) is not None:
                answer.set_exception(self._error or IsthmusError("agent: was closed before it answered"))


def _called_in(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # it has ended by itself
        loop.call_soon_threadsafe(what)


class _Given(Source):
    """Pictures that the caller has, and gives when it likes."""

    name = "pictures"
    patience_s = math.inf

    def __init__(self, pictures: Iterable[NDArray[Any]]) -> None:
        self._pictures = enumerate(pictures)

    def read(self) -> Picture | None:
        """The next of the pictures."""
        number, pixels = next(self._pictures, (0, None))
        return None if pixels is None else Picture(f"picture {number}", pixels)

    def close(self) -> None:
        """Nothing is held open."""
