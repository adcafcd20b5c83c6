"""The last minute, and the fates of the whole run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from isthmus.device.output.page.window import LastMinute, point, shown
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, LinkState, Reason

UP = LinkState.UP


def row(i: int, at_s: float, latency_s: float = 0.05, **changes: Any) -> FrameRecord:
    made = FrameRecord(
        frame_id=i, captured_s=at_s - latency_s, deadline_s=at_s - latency_s + 0.1, confidence=0.9, label=1,
        source=AnswerSource.EXIT, reason=Reason.CONFIDENT, answered_s=at_s, latency_s=latency_s, on_time=latency_s <= 0.1,
        width=0.5, exit=0, bytes_up=10,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_a_minute_is_remembered_and_the_fates_of_all() -> None:
    minute = LastMinute(0.1)
    for i in range(200):
        minute.add(row(i, float(i), skipped_stale=2), UP)
    figures = minute.figures(199.0)
    assert figures["frames"] == 61
    assert figures["captured"] == 600
    assert figures["fates"] == {"answered": {"confident": 200}, "skipped": {"stale": 400}}
    assert figures["rate"] == pytest.approx(1.0, abs=0.05)
    assert figures["latency_p50_s"] == pytest.approx(0.05)


def test_however_fast_answers_come_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.device.output.page.window.MOST", 100)
    minute = LastMinute(0.1)
    for i in range(1000):
        minute.add(row(i, i / 1000), UP)
    assert minute.figures(1.0)["frames"] == 100
    assert len(minute.since(0)) == 100


def test_a_viewer_is_told_what_it_does_not_know() -> None:
    minute = LastMinute(0.1)
    for i in range(5):
        minute.add(row(i, float(i)), UP)
    assert [mark[0] for mark in minute.since(3)] == [3.0, 4.0]
    assert minute.since(5) == []
    assert minute.since(0)[0] == [0.0, 0.05, "exit", True, None, "up"]


def test_a_late_answer_or_none_is_not_on_time() -> None:
    minute = LastMinute(0.1)
    minute.add(row(0, 1.0), UP)
    minute.add(row(1, 2.0, latency_s=0.2), UP)
    minute.add(row(2, 3.0, source=AnswerSource.NONE, reason=Reason.OVERLOADED, label=None), UP)
    assert minute.figures(3.0)["on_time"] == pytest.approx(1 / 3)


def test_before_the_first_answer_nothing_is_claimed() -> None:
    figures = LastMinute(0.1).figures(0.0)
    assert (figures["frames"], figures["on_time"], figures["latency_p99_s"], figures["captured"]) == (0, None, None, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "width 0.5, exit 1"),
        ({"exit": None, "layers": 1, "step": 2, "source": AnswerSource.SERVER}, "width 0.5, 1 layer, step 2"),
        ({"exit": None, "layers": 2, "source": AnswerSource.SERVER}, "width 0.5, 2 layers"),
        ({"width": None, "exit": None, "source": AnswerSource.REPEAT}, "repeated, nothing computed"),
        ({"width": None, "exit": None, "source": AnswerSource.FILTER}, "the filter alone"),
        ({"width": None, "exit": None, "source": AnswerSource.NONE}, "none"),
    ],
)
def test_an_operating_point_in_words(changes: dict[str, Any], words: str) -> None:
    assert point(row(0, 1.0, **changes)) == words


def test_an_answer_says_where_its_time_went() -> None:
    told = shown(row(0, 1.0, head_s=0.02, network_s=0.01, server_tail_s=0.003, server_queue_s=0.001), UP)
    assert told["parts"] == {"wait": 0.0, "head": 0.02, "encode": 0.0, "network": 0.01, "server": pytest.approx(0.004)}
    assert told["budget_s"] == pytest.approx(0.1)
