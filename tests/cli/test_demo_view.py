"""What the demo shows: all of it fits the terminal, whatever its size."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from isthmus.cli import demo
from isthmus.cli.demo_view import NAMES, View
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Reason

LABELS = ("nothing", "speed limit 30", "pedestrian crossing")


def answer(i: int, source: AnswerSource) -> FrameRecord:
    return FrameRecord(
        frame_id=i, captured_s=i / 15, deadline_s=i / 15 + 0.15, truth=2, label=2, confidence=0.9, source=source,
        reason=Reason.RETURNED if i % 2 else Reason.CONFIDENT, width=1.0, answered_s=i / 15 + 0.05,
        latency_s=0.05, on_time=True, bytes_up=150, layers=1, goodput_Bps=1e6,
    )  # fmt: skip


def shown(columns: int, rows: int, frames: int = 200) -> list[str]:
    view = View(LABELS, deadline_s=0.15, title="isthmus demo", columns=columns, rows=rows)
    pixels = np.full((128, 128, 3), 90, np.uint8)
    for i in range(frames):
        record = answer(i, AnswerSource.SERVER if i % 2 else AnswerSource.EXIT)
        view.show(record, pixels if i == frames - 1 else None, 0.0 if i > 190 else 1e6)
    out = io.StringIO()
    Console(file=out, width=columns, height=rows, force_terminal=False).print(view)
    return out.getvalue().rstrip("\n").splitlines()


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (100, 30), (200, 60)])
def test_it_fits_the_terminal(columns: int, rows: int) -> None:
    lines = shown(columns, rows)
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns
    assert len({len(line) for line in lines}) == 1, "nothing wraps out of the frame"
    text = "\n".join(lines)
    for told in ("pedestrian crossing", "edge server", "outage", "answered by the deadline 100.0%", "╳", "■"):
        assert told in text
    assert "…" not in text


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 36)])
def test_why_is_never_cut_off(columns: int, rows: int) -> None:
    for source, reason in itertools.product(AnswerSource, Reason):
        view = View(LABELS, deadline_s=0.15, title="isthmus demo", columns=columns, rows=rows)
        view.show(msgspec.structs.replace(answer(1, source), reason=reason), None, 1e6)
        out = io.StringIO()
        Console(file=out, width=columns, height=rows, force_terminal=False).print(view)
        assert f"{NAMES[source]} ({reason.value})" in out.getvalue()


def test_before_the_first_answer_it_says_so() -> None:
    assert "starting" in "\n".join(shown(80, 24, frames=0))


def test_nobody_else_draws_while_answers_are_taken_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A thread of the library's own drew what was being changed, and died of it: the screen stood still."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("os.nice", lambda _: 0)
    before = set(threading.enumerate())
    drawn: list[int] = []

    def screen(view: View) -> str:
        drawn.append(view._frames)
        return "screen"

    monkeypatch.setattr(View, "__rich__", screen)
    monkeypatch.setattr(demo, "DRAW_EVERY_S", 0.0)

    def answers() -> Iterator[str]:
        for i in range(20):
            assert set(threading.enumerate()) == before
            yield msgspec.json.encode(answer(i, AnswerSource.EXIT)).decode()

    plan = demo.DemoPlan(
        "generated:7", "demo", deadline_s=0.15, fps=15.0, frames=20, policy="local-only", page="127.0.0.1:1"
    )
    demo._watch(plan, answers(), tmp_path / "preview.png", 0.0)
    assert set(range(1, 21)) <= set(drawn)
