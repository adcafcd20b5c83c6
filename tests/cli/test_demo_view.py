"""What the demo shows: all of it fits the terminal, whatever its size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from isthmus.cli.demo_view import View
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Reason

LABELS = ("nothing", "speed limit 30", "pedestrian crossing")


def shown(columns: int, rows: int, frames: int = 200) -> list[str]:
    view = View(LABELS, deadline_s=0.15, title="isthmus demo", columns=columns, rows=rows)
    pixels = np.full((128, 128, 3), 90, np.uint8)
    for i in range(frames):
        source = AnswerSource.SERVER if i % 2 else AnswerSource.EXIT
        record = FrameRecord(
            frame_id=i, captured_s=i / 15, deadline_s=i / 15 + 0.15, truth=2, label=2, confidence=0.9, source=source,
            reason=Reason.RETURNED if i % 2 else Reason.CONFIDENT, width=1.0, answered_s=i / 15 + 0.05,
            latency_s=0.05, on_time=True, bytes_up=150, layers=1, goodput_Bps=1e6,
        )  # fmt: skip
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


def test_before_the_first_answer_it_says_so() -> None:
    assert "starting" in "\n".join(shown(80, 24, frames=0))
