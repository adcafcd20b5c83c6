"""A source that hangs: reported once, tried again until it gives, and never in the way of an end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from isthmus.device.agent import Agent
from isthmus.device.capture.reader import Reader
from isthmus.device.capture.sources import Picture, Source
from isthmus.device.config import AgentConfig
from isthmus.models.scenes import Drive
from isthmus.proto.errors import SourceError

HANG_S = 600.0
"""Longer than any test: a thread that sleeps so long is left behind."""


class Hanging(Source):
    """Gives pictures 0, 1, 2, ...; hangs at those in `at`; opens anew as often as `refusals` allow."""

    name, patience_s = "camera 0", 0.2

    def __init__(self, at: set[int], refusals: int = 0, first: int = 0) -> None:
        self._at, self._refusals, self._number = at, [refusals], first
        self.closed = threading.Event()

    def read(self) -> Picture | None:
        number, self._number = self._number, self._number + 1
        if number in self._at:
            time.sleep(HANG_S)
        return Picture(f"#{number}", None) if number < 6 else None

    def again(self) -> Source:
        if self._refusals[0]:
            self._refusals[0] -= 1
            raise SourceError("camera 0: busy")
        anew = Hanging(self._at, 0, self._number)
        anew.closed = self.closed
        return anew

    def close(self) -> None:
        self.closed.set()


async def names(reader: Reader) -> list[str]:
    found = []
    while (picture := await reader.read()) is not None:
        found.append(picture.name)
    await reader.close()
    return found


def in_time(reading: Callable[[], object]) -> object:
    """What a coroutine gives, within half a minute: nothing here waits for what hangs."""

    async def limited() -> object:
        return await asyncio.wait_for(reading(), 30)  # type: ignore[arg-type]

    return asyncio.run(limited())


def test_what_hangs_is_reported_once_tried_again_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    source = Hanging({2, 3})
    assert in_time(lambda: names(Reader(source))) == ["#0", "#1", "#4", "#5"]
    assert source.closed.is_set()
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "camera 0: gave nothing for 0.2 s; tried again until it does",
        "camera 0: is back",
    ]


def test_a_source_that_cannot_be_opened_again_yet_is_tried_again() -> None:
    assert in_time(lambda: names(Reader(Hanging({2}, refusals=2)))) == ["#0", "#1", "#3", "#4", "#5"]


def test_a_source_that_has_not_hung_ends_the_run_when_it_goes_away() -> None:
    class Unplugged(Hanging):
        def read(self) -> Picture | None:
            raise SourceError("camera 0: unplugged")

    with pytest.raises(SourceError, match="unplugged"):
        in_time(lambda: names(Reader(Unplugged(set()))))


def test_a_stop_is_not_kept_waiting_by_what_hangs() -> None:
    source = Hanging({0})
    source.patience_s = HANG_S

    async def stopped() -> list[str]:
        reader = Reader(source)
        asyncio.get_running_loop().call_later(0.1, reader.stop)
        return await names(reader)

    assert in_time(stopped) == []
    assert not source.closed.is_set()  # it is in the driver's hands


def test_a_cancellation_that_comes_together_with_a_picture_is_not_lost() -> None:
    """`asyncio.wait_for` lost it (before Python 3.12), and Ctrl-C did not end the agent."""

    async def cancelled() -> bool:
        reader = Reader(Hanging(set()))
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0)
        assert reader._waiting is not None
        reader._waiting.set_result(Picture("#0", None))
        reading.cancel()
        await asyncio.wait({reading})
        await reader.close()
        return reading.cancelled()

    assert in_time(cancelled)


def test_leaving_the_loop_ends_an_agent_whose_pictures_do_not_come() -> None:
    def once() -> Iterator[object]:
        yield Drive(3).frame(0).image
        time.sleep(HANG_S)

    given = Agent.open(AgentConfig(deadline_s=2.0)).answers(once())  # type: ignore[arg-type]
    assert next(given).frame_id == 0
    began_s = time.monotonic()
    given.close()
    assert time.monotonic() - began_s < HANG_S / 10


AGENT_OF_A_CAMERA_THAT_HANGS = """
import time, cv2, numpy as np

class Capture:
    def __init__(self, _): self.count = 0
    def isOpened(self): return True
    def get(self, _): return 15.0
    def release(self): pass
    def read(self):
        self.count += 1
        if self.count > 5:
            time.sleep(600)
        time.sleep(0.2)  # as a camera: only the newest picture counts
        return True, np.zeros((32, 32, 3), np.uint8)

cv2.VideoCapture = Capture
import sys
from isthmus.device.capture import sources
sources.Source.patience_s = float(sys.argv.pop(1))
from isthmus.cli.main import main
sys.argv[1:] = ["agent", "--source", "camera:0", "--deadline", "2s"]
main()
"""


@pytest.mark.parametrize(("patience", "answers"), [("600", 3), ("1", 8)])
def test_sigterm_ends_an_agent_whose_camera_hangs(patience: str, answers: int) -> None:
    """It gives five pictures and hangs; where patience ends it is opened anew, and gives five more."""
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT_OF_A_CAMERA_THAT_HANGS, patience],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    rows = [json.loads(process.stdout.readline()) for _ in range(answers)]
    process.send_signal(signal.SIGTERM)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows += map(json.loads, rest.splitlines())
    assert sorted(row["frame_id"] for row in rows) == list(range(len(rows)))
    assert "Traceback" not in err
    assert ("camera 0: is back" in err) == (answers > 5)
