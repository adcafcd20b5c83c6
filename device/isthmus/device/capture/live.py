"""Reads a live source: the newest picture wins, what it replaces is counted, and what goes away is tried again.

A thread does nothing but read, so that nothing grows old in the buffers of a driver or a connection. It alone touches its
source: one that hangs is left behind with it, and another thread opens the source anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from isthmus.device.capture.backoff import BackOff
from isthmus.device.capture.sources.source import Picture, Source
from isthmus.proto.errors import SourceError

log = logging.getLogger(__name__)

CLOSING_S = 1.0
"""A read that is under way when all is over may take so long to end; what still hangs then is not closed."""


WAITED_S = 0.01
"""A read that took so long had to wait for its picture. After two in a row, or one of ten times that, what piled up while the
source was opened has been read; a short one alone may be a busy processor's."""
SETTLING_S = 1.0
"""After so long it counts as read in any case: a slow device never waits."""


class LiveReader:
    """One live source, read on the running event loop. Time is the loop's."""

    def __init__(self, source: Source, back_off: BackOff | None = None) -> None:
        self._source, self._loop = source, asyncio.get_running_loop()
        self._back_off = back_off or BackOff()
        self._news, self._stopped = asyncio.Event(), asyncio.Event()
        self._trouble_s: float | None = None
        """Since when the source has given nothing."""
        self._lost = self._came = 0
        """Pictures that former grabbers let go, and all that came to them."""
        self._grabber = self._grabbing(lambda: source)

    @property
    def stale(self) -> int:
        """Pictures that a newer one replaced before anybody asked for them."""
        return self._lost + self._grabber.stale

    @property
    def captured(self) -> int:
        """All pictures that came."""
        return self._came + self._grabber.captured

    async def read(self) -> Picture | None:
        """The newest picture that was not read yet; None at the end, or after `stop`.

        Raises SourceError when the source goes away for good.
        """
        while not self._stopped.is_set():
            self._news.clear()
            if (picture := self._grabber.take()) is not None:
                self._well()
                return picture
            if not self._grabber.over:
                if not await self._told(self._news, self._source.patience_s):
                    await self._again(f"gave nothing for {self._source.patience_s:g} s")
            elif (error := self._grabber.error) is None:
                return None
            elif isinstance(error, SourceError) and (self._source.reconnects or self._trouble_s is not None):
                await self._again(str(error).removeprefix(f"{self._source.name}: "))
            else:
                raise error
        return None

    def stop(self) -> None:
        """Give no further picture, whatever hangs."""
        self._stopped.set()
        self._news.set()
        self._grabber.end()

    async def close(self) -> None:
        """Close the source, unless it hangs."""
        self.stop()
        while not self._grabber.over:
            self._news.clear()
            if not await self._told(self._news, CLOSING_S):
                break
        self._retire()

    def _retire(self) -> None:
        """Count what a grabber that gives no more has let go, and with it what nobody took."""
        came, stale = self._grabber.retire()
        self._came, self._lost = self._came + came, self._lost + stale

    def _well(self) -> None:
        now = self._loop.time()
        self._back_off.worked(now=now)
        if self._trouble_s is not None:
            log.warning("%s: is back after %.0f s", self._source.name, now - self._trouble_s)
            self._trouble_s = None

    async def _again(self, why: str) -> None:
        """Open the source anew in another thread, after a pause."""
        now = self._loop.time()
        pause_s = self._back_off.failed(now=now)
        if self._trouble_s is None:
            self._trouble_s = now
            log.warning("%s: %s; tried again until it is back", self._source.name, why)
        else:
            log.info("%s: %s; tried again in %.1f s", self._source.name, why, pause_s)
        self._grabber.end()
        if await self._told(self._stopped, pause_s):
            return
        self._retire()
        self._grabber = self._grabbing(self._source.again)

    def _grabbing(self, open_: Callable[[], Source]) -> _Grabber:
        grabber = _Grabber(open_, self._loop.time, self._wake)
        threading.Thread(target=grabber.run, name="source", daemon=True).start()
        return grabber

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._news.set)

    async def _told(self, event: asyncio.Event, within_s: float) -> bool:
        """Whether an event came within so long."""
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({waiting}, timeout=within_s if within_s < threading.TIMEOUT_MAX else None)
            return waiting.done()
        finally:
            waiting.cancel()


class _Grabber:
    """Reads a source over and over in a thread, and keeps its newest picture until that is taken."""

    def __init__(self, open_: Callable[[], Source], clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._open, self._clock, self._wake = open_, clock, wake
        self._newest: Picture | None = None
        self._retired = self._settled = False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._source: Source | None = None
        self.stale = self.captured = 0
        self.over = False
        """The source ended, failed or was closed."""
        self.error: BaseException | None = None

    def take(self) -> Picture | None:
        """The newest picture, once; none before what piled up while the source was opened has been read."""
        with self._lock:
            if not (self._settled or self.over):
                return None
            picture, self._newest = self._newest, None
            return picture

    def retire(self) -> tuple[int, int]:
        """How many pictures came, and how many nobody took; from now on neither is counted here, and none comes."""
        with self._lock:
            came, stale = self.captured, self.stale + (self._newest is not None)
            self._newest, self._retired, self.captured, self.stale = None, True, 0, 0
            return came, stale

    def end(self) -> None:
        """Read no further, and close the source."""
        self._ended.set()
        if self._source is not None:
            self._source.wake()

    def run(self) -> None:
        """Read to the end."""
        try:
            self._source = source = self._open()
            try:
                self._read(source)
            finally:
                source.close()
        except BaseException as error:  # raised where pictures are waited for
            self.error = error
        self.over = True
        self._wake()

    def _read(self, source: Source) -> None:
        due_s = began_s = asked_s = self._clock()
        waited = 0
        while not self._ended.is_set() and (picture := source.read()) is not None:
            now = self._clock()
            waited = waited + 1 if now - asked_s > WAITED_S else 0
            self._settled |= waited == 2 or now - asked_s > 10 * WAITED_S or now - began_s > SETTLING_S or source.bursts
            if source.bursts and source.fps:
                self._ended.wait(due_s - self._clock())
                due_s = max(due_s + 1 / source.fps, self._clock())
            with self._lock:
                if self._retired:
                    return
                self.captured += 1
                self.stale += self._newest is not None
                self._newest = replace(picture, captured_s=self._clock())
            self._wake()
            asked_s = self._clock()
