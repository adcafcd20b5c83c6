"""A live source: the newest picture wins, what is let go is counted, what goes away is tried again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable

import pytest

from isthmus.device.capture.backoff import BackOff
from isthmus.device.capture.live import LiveReader
from isthmus.device.capture.sources import Picture, Source
from isthmus.proto.errors import SourceError


class Flaky(Source):
    """Gives pictures 0, 1, 2, ... one every `every_s`; `gives` of them, then it fails; opens anew after `refusals`."""

    name, live, reconnects = "rtsp://camera", True, True

    def __init__(self, gives: float, *, every_s: float = 0.0, refusals: int = 0, state: dict[str, int] | None = None):
        self._gives, self._every_s = gives, every_s
        self._state = state or {"number": 0, "refusals": refusals, "closed": 0}
        self._count = 0

    def read(self) -> Picture | None:
        if self._count >= self._gives:
            raise SourceError(f"{self.name}: ended or fell silent after {self._count} pictures")
        time.sleep(self._every_s)
        self._count += 1
        self._state["number"] += 1
        return Picture(f"#{self._state['number'] - 1}", None)

    def again(self) -> Source:
        if self._state["refusals"]:
            self._state["refusals"] -= 1
            raise SourceError(f"{self.name}: cannot be opened")
        return Flaky(self._gives, every_s=self._every_s, state=self._state)

    def close(self) -> None:
        self._state["closed"] += 1


def limited(coroutine: Awaitable[object]) -> object:
    async def run() -> object:
        return await asyncio.wait_for(coroutine, 30)

    return asyncio.run(run())


def quick() -> BackOff:
    return BackOff(first_s=0.01, longest_s=0.05)


def test_the_newest_picture_wins_and_the_others_are_counted() -> None:
    async def run() -> None:
        source = Flaky(20)
        source.reconnects = False
        reader = LiveReader(source)
        while reader.captured < 20:
            await asyncio.sleep(0.01)
        picture = await reader.read()
        assert picture is not None
        assert picture.name == "#19"
        assert reader.stale == 19
        with pytest.raises(SourceError):
            await reader.read()
        await reader.close()
        assert source._state["closed"] == 1

    limited(run())


@pytest.mark.alone  # what piled up is told from what comes by how long a read takes
def test_what_piled_up_while_it_was_opened_is_let_go() -> None:
    class Backlog(Flaky):
        def read(self) -> Picture | None:
            if self._count >= 10:
                time.sleep(0.03)
            return super().read()

    async def run() -> None:
        reader = LiveReader(Backlog(100), quick())
        names = [picture.name async for picture in taken(reader, 3)]
        assert int(names[0][1:]) >= 10
        assert reader.stale >= 10
        await reader.close()

    limited(run())


def test_what_goes_away_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        reader = LiveReader(Flaky(3, every_s=0.02, refusals=2), quick())
        names = [picture.name async for picture in taken(reader, 7)]
        assert names == sorted(names, key=lambda name: int(name[1:]))
        await reader.close()
        assert reader.captured == len(names) + reader.stale, "each was read or counted"

    limited(run())
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings[0] == "rtsp://camera: ended or fell silent after 3 pictures; tried again until it is back"
    assert warnings[1].startswith("rtsp://camera: is back after")


async def taken(reader: LiveReader, count: int) -> AsyncIterator[Picture]:
    for _ in range(count):
        picture = await reader.read()
        assert picture is not None
        assert picture.captured_s is not None
        yield picture


def test_one_that_hangs_is_left_behind() -> None:
    class Hanging(Flaky):
        patience_s = 0.1

        def read(self) -> Picture | None:
            if self._count == 2:
                time.sleep(60)
            return super().read()

        def again(self) -> Source:
            return Flaky(100, every_s=0.01, state=self._state)

    async def run() -> None:
        reader = LiveReader(Hanging(9, every_s=0.05), quick())
        names = [picture.name async for picture in taken(reader, 4)]
        assert names[-1] > "#2"
        await reader.close()

    limited(run())


def test_a_stop_while_it_is_away_is_a_stop() -> None:
    async def run() -> None:
        reader = LiveReader(Flaky(0), BackOff(first_s=60.0, longest_s=60.0))
        asyncio.get_running_loop().call_later(0.1, reader.stop)
        assert await reader.read() is None
        await reader.close()

    limited(run())


def test_what_comes_in_bursts_is_let_through_at_its_pace() -> None:
    class Segments(Flaky):
        bursts, fps = True, 50.0

    async def run() -> None:
        reader = LiveReader(Segments(10), quick())
        names = [picture.name async for picture in taken(reader, 5)]
        assert len(set(names)) == 5
        assert reader.stale <= 5
        await reader.close()

    limited(run())


def test_a_wait_is_woken_at_the_end() -> None:
    woken = threading.Event()

    class Waiting(Flaky):
        def read(self) -> Picture | None:
            woken.wait(600)
            return None

        def wake(self) -> None:
            woken.set()

    async def run() -> float:
        reader = LiveReader(Waiting(1))
        await asyncio.sleep(0.05)
        began_s = time.monotonic()
        await reader.close()
        return time.monotonic() - began_s

    assert limited(run()) < 15.0, "ten minutes, less what a busy machine takes"  # type: ignore[operator]


def test_an_error_that_is_no_sources_ends_it() -> None:
    class Wrong(Flaky):
        def read(self) -> Picture | None:
            raise RuntimeError("a mistake")

    async def run() -> None:
        reader = LiveReader(Wrong(1), quick())
        with pytest.raises(RuntimeError, match="a mistake"):
            await reader.read()
        await reader.close()

    limited(run())
