"""Reads a source in a thread of its own: a read that hangs is reported once, tried again, and keeps no process from ending.

This is how what waits for its reader is read, picture by picture; a live source is read by `capture.live`.

The thread is a daemon. Python waits for the threads of its pools when a process ends, and a read that is in the hands of
a driver or of a network file system may never return; such a thread is left behind, and another one opens the source anew.
A command that ends while one is left behind must leave at once: see `isthmus.cli.main`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from isthmus.device.capture.sources import Picture, Source, Wish, open_source
from isthmus.device.capture.sources.address import public
from isthmus.device.capture.sources.source import ANYTHING
from isthmus.proto.errors import SourceError

log = logging.getLogger(__name__)

OPENING_S = 60.0
"""A camera that its driver resets takes seconds to open, a folder of a million pictures on a network longer."""
LONGEST_PATIENCE_S = 60.0
"""Each attempt is given twice the time of the one before, up to this: every attempt that hangs costs a thread for good."""
CLOSING_S = 1.0
"""A read that is under way when all is over may take so long to end; what still hangs then is not closed."""


class Reader:
    """One source, read on the running event loop."""

    stale = 0
    """Nothing is let go: the source waits."""
    captured = 0
    """All pictures that came."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._worker = _Worker()
        self._stopped = asyncio.Event()
        self._waiting: asyncio.Future[Any] | None = None

    async def read(self) -> Picture | None:
        """The next picture; None at the end, or after `stop`. Raises SourceError when the source goes away."""
        try:
            picture: Picture | None = await self._asked(self._source.read, self._source.patience_s)
        except asyncio.TimeoutError:
            picture = await self._read_again()
        self.captured += picture is not None
        return picture

    def stop(self) -> None:
        """Give no further picture, whatever hangs."""
        self._stopped.set()
        self._source.wake()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def close(self) -> None:
        """Close the source, unless it hangs."""
        self.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._worker.ask(self._source.close), CLOSING_S)
        self._worker.end()

    async def _read_again(self) -> Picture | None:
        """Leave the thread that hangs and open the source anew in another, as often as it takes."""
        patience_s = self._source.patience_s
        log.warning("%s: gave nothing for %g s; tried again until it does", self._source.name, patience_s)
        while not self._stopped.is_set():
            self._worker.end()
            self._worker = _Worker()
            try:
                self._source = await self._asked(self._source.again, patience_s) or self._source
                picture: Picture | None = await self._asked(self._source.read, patience_s)
            except asyncio.TimeoutError:
                patience_s = min(2 * patience_s, LONGEST_PATIENCE_S)
            except SourceError as error:
                log.info("%s", error)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), patience_s)
            else:
                if picture is not None:
                    log.warning("%s: is back", self._source.name)
                return picture
        return None

    async def _asked(self, job: Callable[[], Any], patience_s: float) -> Any:
        """What `job` gives in the source's thread; None after `stop`. Raises TimeoutError when it hangs."""
        if self._stopped.is_set():
            return None
        self._waiting = self._worker.ask(job)
        # Not `wait_for`: before Python 3.12 it lets a cancellation pass that comes together with a picture.
        impatience = asyncio.get_running_loop().call_later(patience_s, _give_up, self._waiting)
        try:
            return await self._waiting
        finally:
            impatience.cancel()


def _give_up(waiting: asyncio.Future[Any]) -> None:
    if not waiting.done():
        waiting.set_exception(asyncio.TimeoutError())


class _Worker:
    """A daemon thread that does what it is asked, in order."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="source", daemon=True).start()

    def ask(self, job: Callable[[], Any]) -> asyncio.Future[Any]:
        """A future of what `job` gives or raises."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._asked.put((job, done))
        return done

    def end(self) -> None:
        """Do nothing more after what has been asked."""
        self._asked.put(None)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            job, done = asked
            try:
                tell = _teller(done, job(), None)
            except BaseException as error:  # raised where the picture is waited for
                tell = _teller(done, None, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(tell)


def _teller(done: asyncio.Future[Any], value: Any, error: BaseException | None) -> Callable[[], None]:
    def tell() -> None:
        if done.done():  # given up meanwhile
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)

    return tell


def opened(spec: str, labels: tuple[str, ...], wish: Wish = ANYTHING, rotate: int = 0) -> Source:
    """The source called `spec`; see `open_source`. Raises SourceError also when opening it hangs."""
    found: queue.SimpleQueue[Source | BaseException] = queue.SimpleQueue()

    def open_() -> None:
        try:
            found.put(open_source(spec, labels, wish, rotate))
        except BaseException as error:  # raised below, where it is waited for
            found.put(error)

    threading.Thread(target=open_, name="source", daemon=True).start()
    try:
        source = found.get(timeout=OPENING_S)
    except queue.Empty:
        raise SourceError(
            f"{public(spec)}: did not open within {OPENING_S:g} s; does its driver or its network hang?"
        ) from None
    if isinstance(source, BaseException):
        raise source
    return source
