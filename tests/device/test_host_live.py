"""The agent's host on its event loop, with the real head: sources, heads and listeners that fail, and the pace."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isthmus.device.capture.sources import Picture, Source
from isthmus.device.config import AgentConfig
from isthmus.device.executor import Executor
from isthmus.device.run import Opened, answer_all, open_device
from isthmus.emulation.run_summary import summary
from isthmus.models.scenes import Drive
from isthmus.proto.errors import DataError, SourceError
from isthmus.proto.fates import RunEnd
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Reason

PIXELS = Drive(3).frame(0).image
DEADLINE_S = 2.0
"""Generous: these tests are about what is answered, and share their machine with others."""


class Scripted(Source):
    """A source that gives what a generator yields, and raises what it raises."""

    name = "scripted"
    fps: float | None = None

    def __init__(self, pictures: Iterator[Picture], *, live: bool = False) -> None:
        self._pictures, self.live = pictures, live

    def read(self) -> Picture | None:
        return next(self._pictures, None)

    def close(self) -> None:
        """Nothing is held open."""


def pictures(count: int) -> Iterator[Picture]:
    for i in range(count):
        yield Picture(f"#{i}", PIXELS)


def device(**changes: Any) -> Opened:
    return open_device(AgentConfig(deadline_s=DEADLINE_S, **changes))


def answered(
    opened: Opened, source: Scripted, tell: Callable[[FrameRecord], None] | None = None
) -> tuple[list[FrameRecord], BaseException | None]:
    rows: list[FrameRecord] = []
    try:
        asyncio.run(asyncio.wait_for(answer_all(opened, source, tell or rows.append), 60))
    except (SourceError, DataError, OSError) as error:
        return rows, error
    return rows, None


def span_s(rows: list[FrameRecord]) -> float:
    times = [row.captured_s for row in rows]
    return max(times) - min(times)


def test_a_source_that_goes_away_ends_the_run_after_its_last_answer() -> None:
    def unplugged() -> Iterator[Picture]:
        yield from pictures(3)
        raise SourceError("camera 0: gave no picture after 3 frames; unplugged?")

    rows, error = answered(device(), Scripted(unplugged(), live=True))
    assert isinstance(error, SourceError)
    assert rows[-1].picture == "#2"


def test_a_picture_that_cannot_be_used_is_answered_for_and_the_next_one_is() -> None:
    def mixed() -> Iterator[Picture]:
        yield Picture("nan", np.full((8, 8, 3), np.nan, np.float32))
        yield Picture("grey", np.zeros((8, 8), np.uint8))
        yield Picture("missing", None, why="missing: not there")
        yield Picture("good", PIXELS)

    rows, error = answered(device(fps=50), Scripted(mixed()))
    assert error is None
    assert {row.picture: row.reason for row in rows if row.source is AnswerSource.NONE} == dict.fromkeys(
        ("nan", "grey", "missing"), Reason.INVALID
    )
    assert [row.picture for row in rows if row.source is AnswerSource.EXIT] == ["good"]


def test_a_head_that_fails_on_a_frame_costs_that_frame(caplog: pytest.LogCaptureFixture) -> None:
    class Fragile(Executor):
        def job(self, frame_id: int, stage: int, width: float) -> Any:
            def fail() -> None:
                raise RuntimeError("out of memory")

            return fail if frame_id == 1 else super().job(frame_id, stage, width)

    opened = device(fps=20)
    rows, error = answered(replace(opened, executor=Fragile(opened.bundle)), Scripted(pictures(3)))
    assert error is None
    assert {row.frame_id: row.source for row in rows} == {
        0: AnswerSource.EXIT,
        1: AnswerSource.NONE,
        2: AnswerSource.EXIT,
    }
    assert "frame 1: the head failed on it" in caplog.text


@pytest.mark.parametrize("error", [DataError("run.jsonl: No space left on device"), BrokenPipeError()])
def test_when_nobody_can_be_told_the_run_ends(error: Exception) -> None:
    def tell(row: FrameRecord) -> None:
        if row.frame_id == 2:
            raise error

    _, raised = answered(device(fps=50), Scripted(pictures(10_000)), tell)
    assert raised is error


def test_a_source_that_fell_behind_is_not_made_up_for_in_a_burst() -> None:
    def slow_start() -> Iterator[Picture]:
        time.sleep(0.5)
        yield from pictures(6)

    rows, _ = answered(device(fps=20), Scripted(slow_start()))
    assert span_s(rows) > 4 * 0.05


def test_a_live_source_is_thinned_to_the_rate_that_was_asked_for() -> None:
    def camera() -> Iterator[Picture]:
        for picture in pictures(60):
            time.sleep(0.01)
            yield picture

    rows, _ = answered(device(fps=10), Scripted(camera(), live=True))
    assert len(rows) < 60
    assert len(rows) <= 10 * span_s(rows) + 2


def test_a_live_source_is_answered_at_its_newest_picture() -> None:
    """All twelve come at once: the newest wins, and nothing waits in a queue."""
    rows, _ = answered(device(), Scripted(pictures(12), live=True))
    assert 1 <= len(rows) < 12
    assert rows[-1].picture == "#11"


def test_a_live_source_that_the_device_keeps_up_with_loses_nothing() -> None:
    rows, answers = list[FrameRecord](), threading.Semaphore(1)

    def slowly() -> Iterator[Picture]:
        for picture in pictures(4):
            assert answers.acquire(timeout=30), "the one before is answered"
            time.sleep(0.15)  # a picture that comes at once counts as one that had piled up
            yield picture

    def tell(row: FrameRecord) -> None:
        rows.append(row)
        answers.release()

    answered(device(), Scripted(slowly(), live=True), tell)
    assert [row.picture for row in rows] == ["#0", "#1", "#2", "#3"]


def test_every_picture_that_came_has_one_fate() -> None:
    """A source that is too quick, pictures that cannot be read, ones that are repeated, ones that come too soon."""

    def camera() -> Iterator[Picture]:
        for number in range(120):
            time.sleep(0.005)
            pixels = PIXELS if number % 40 < 30 else np.full_like(PIXELS, number)
            yield Picture(f"#{number}", None if number % 7 == 0 else pixels, why="broken")

    ends: list[RunEnd] = []
    rows: list[FrameRecord] = []
    source = Scripted(camera(), live=True)
    opened = device(fps=40, gate=10.0)
    began_s = time.time()
    asyncio.run(asyncio.wait_for(answer_all(opened, source, rows.append, on_end=ends.append), 60))
    figures, (end,) = summary(rows), ends
    assert end.captured == 120
    assert end.captured == len(rows) + end.skipped_stale + end.skipped_rate
    assert sum(figures.by_fate.values()) == figures.captured <= end.captured
    assert figures.by_fate["skipped"] <= end.skipped_stale + end.skipped_rate
    assert end.captured - figures.captured < 20, "what was skipped after the last answer is in the end alone"
    assert all(began_s - 1 <= (row.captured_unix_s or 0) <= time.time() + 1 for row in rows)


def test_a_folder_skips_nothing() -> None:
    ends: list[RunEnd] = []
    asyncio.run(answer_all(device(fps=100), Scripted(pictures(5)), lambda _: None, on_end=ends.append))
    assert (ends[0].captured, ends[0].skipped_stale, ends[0].skipped_rate) == (5, 0, 0)


def test_the_gate_repeats_answers_to_pictures_that_do_not_change() -> None:
    rows, error = answered(device(gate=10.0, fps=50), Scripted(pictures(20)))
    assert error is None
    repeats = [row for row in rows if row.source is AnswerSource.REPEAT]
    assert len(repeats) > 10
    assert {row.label for row in repeats} == {rows[0].label}
    assert all(0 < row.age_s < 2 and row.width is None and row.local_label == rows[0].local_label for row in repeats)
