"""An agent in five lines of Python:

    agent = Agent.open("agent.toml")
    for answer in agent.answers("camera:0"):
        print(answer.picture, answer.answer, answer.confidence, answer.source)

The agent lives on an event loop in a thread of its own, and meets its deadlines whatever the caller does with an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from isthmus.device.capture.sources import Picture, Source, open_source
from isthmus.device.config import AgentConfig
from isthmus.device.run import Opened, answer_all, open_device
from isthmus.proto import config as configuration
from isthmus.proto.record import FrameRecord


class Agent:
    """A bundle's head, warm, and the way to a server if one is configured."""

    def __init__(self, device: Opened) -> None:
        self._device = device

    @classmethod
    def open(cls, config: AgentConfig | str | Path) -> Agent:
        """Open an agent by its configuration, or the TOML file of one (ISTHMUS_AGENT_* variables win over it).

        Raises ConfigError, SecurityError, BundleError, each naming the thing and the way out.
        """
        if not isinstance(config, AgentConfig):
            config = configuration.load(AgentConfig, Path(config), {}, prefix="ISTHMUS_AGENT")
        return cls(open_device(config))

    def answers(self, source: str | Iterable[NDArray[Any]] | None = None) -> Iterator[FrameRecord]:
        """The answer to every frame, as it is given; `answer` is its name, `source` says which half gave it.

        `source` is a camera, file, folder or generated video by its name, or pictures (H, W, 3) RGB, which are taken at
        the configured `fps`; without one it is the configured source. Leaving the loop ends the agent. Raises SourceError
        when the source goes away, HandshakeError when the server's bundle is another one.
        """
        running = _Running(self._device, self._opened(source))
        running.start()
        try:
            while (row := running.told.get()) is not None:
                if isinstance(row, BaseException):
                    raise row
                yield row
        finally:
            running.end()

    def _opened(self, source: str | Iterable[NDArray[Any]] | None) -> Source:
        if source is None or isinstance(source, str):
            return open_source(source or self._device.config.source, self._device.bundle.manifest.labels)
        return _Given(source)


class _Running(threading.Thread):
    """An agent at work on an event loop of its own."""

    def __init__(self, device: Opened, source: Source) -> None:
        super().__init__(name="agent", daemon=True)
        self.told: queue.Queue[FrameRecord | BaseException | None] = queue.Queue()
        """Answers, and what ended them: an error, or None."""
        self._device, self._source = device, source
        self._cancel: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def run(self) -> None:
        """Answer to the end of the source."""
        try:
            asyncio.run(self._answer())
        except BaseException as error:
            self.told.put(error)  # raised where the answers are read
        else:
            self.told.put(None)

    def end(self) -> None:
        """Take no further picture, whatever the source does; wait until it has come to that."""
        self._cancel.get()()
        self.join()

    async def _answer(self) -> None:
        loop, answering = asyncio.get_running_loop(), asyncio.ensure_future(self._told_all())
        self._cancel.put(partial(_called_in, loop, answering.cancel))
        with contextlib.suppress(asyncio.CancelledError):
            await answering

    async def _told_all(self) -> None:
        await answer_all(self._device, self._source, self.told.put)


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
