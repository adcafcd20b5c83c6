"""An agent in five lines of Python:

    agent = Agent.open("agent.toml")
    for answer in agent.answers("camera:0"):
        print(answer.picture, answer.answer, answer.confidence, answer.source)

The agent lives on an event loop in a thread of its own, and meets its deadlines whatever the caller does with an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from isthmus.device.config import AgentConfig
from isthmus.device.run import Opened, answer_all, open_device
from isthmus.device.sources import Picture, Source, open_source
from isthmus.proto import config as configuration
from isthmus.proto.record import FrameRecord


class Agent:
    """A bundle's head, warm, and the way to a server if one is configured."""

    def __init__(self, device: Opened) -> None:
        self._device = device

    @classmethod
    def open(cls, config: AgentConfig | str | Path) -> Agent:
        """From a configuration or its TOML file (ISTHMUS_AGENT_* variables win over it).

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
        pictures = _Endable(self._opened(source))
        told: queue.Queue[FrameRecord | BaseException | None] = queue.Queue()
        thread = threading.Thread(target=_run, args=(self._device, pictures, told), name="agent", daemon=True)
        with contextlib.closing(pictures):
            thread.start()
            try:
                while (row := told.get()) is not None:
                    if isinstance(row, BaseException):
                        raise row
                    yield row
            finally:
                pictures.end()
                thread.join()

    def _opened(self, source: str | Iterable[NDArray[Any]] | None) -> Source:
        if source is None or isinstance(source, str):
            return open_source(source or self._device.config.source, self._device.bundle.manifest.labels)
        return _Given(source)


def _run(device: Opened, source: Source, told: queue.Queue[FrameRecord | BaseException | None]) -> None:
    try:
        asyncio.run(answer_all(device, source, told.put))
    except BaseException as error:
        told.put(error)  # raised where the answers are read
    else:
        told.put(None)


class _Given:
    """Pictures that the caller has."""

    fps: float | None = None
    live = False

    def __init__(self, pictures: Iterable[NDArray[Any]]) -> None:
        self._pictures = enumerate(pictures)

    def read(self) -> Picture | None:
        """The next one."""
        number, pixels = next(self._pictures, (0, None))
        return None if pixels is None else Picture(f"picture {number}", pixels)

    def close(self) -> None:
        """Nothing is held open."""


class _Endable:
    """A source that ends when its reader has had enough."""

    def __init__(self, source: Source) -> None:
        self._source, self._ended = source, False
        self.fps, self.live, self.close = source.fps, source.live, source.close

    def end(self) -> None:
        """Give no further picture."""
        self._ended = True

    def read(self) -> Picture | None:
        """See `Source`."""
        return None if self._ended else self._source.read()
