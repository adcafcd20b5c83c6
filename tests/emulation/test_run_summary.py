"""A run in figures: what is right and on time counts, and what was promised of the link stands beside what came."""

from __future__ import annotations

import msgspec
import pytest

from isthmus.emulation import run_summary
from isthmus.emulation.run_summary import Tenth
from isthmus.proto.record import Battery, FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Box
from record_rows import row
from runs import made_run


def test_an_answer_without_a_label_is_one_where_the_task_has_none() -> None:
    boxes = row(1, truth=None, label=None, source=AnswerSource.SERVER)
    assert run_summary.summary([boxes, row(2, label=None, source=AnswerSource.NONE)]).answered_by_deadline == 0.5


def test_accuracy_counts_what_is_right_and_on_time() -> None:
    rows = [
        row(1, source=AnswerSource.SERVER, local=2, bytes_up=300, latency_s=0.05),
        row(2, label=2),
        row(3, on_time=False, latency_s=0.2),
        row(4, truth=None, width=0.25),
        row(5, label=None, local=None, source=AnswerSource.NONE, width=None),
    ]
    figures = run_summary.summary(rows)
    assert (figures.frames, figures.labelled_frames) == (5, 4)
    assert figures.accuracy == 1 / 4
    assert figures.accuracy_local_only == 2 / 4
    assert figures.answered_by_deadline == 3 / 5
    assert figures.by_source == {"exit": 3, "none": 1, "server": 1}
    assert figures.by_width == {"0.25": 1, "0.5": 3}
    assert (figures.bytes_up, figures.bytes_per_frame) == (300, 60.0)
    assert figures.latency_p50_s == 0.01
    assert 0.05 < (figures.latency_p99_s or 0) <= 0.2


def test_boxes_in_time_are_scored_by_their_average_precision() -> None:
    """What came late was not found."""
    here, there = Box(1, 1.0, 0.1, 0.1, 0.3, 0.3), Box(1, 0.9, 0.6, 0.6, 0.8, 0.8)

    def seen(frame_id: int, *boxes: Box, on_time: bool = True) -> FrameRecord:
        return msgspec.structs.replace(row(frame_id, on_time=on_time), things=(here,), boxes=boxes)

    assert run_summary.summary([seen(1, here), seen(2, here)]).ap50 == pytest.approx(1.0)
    assert run_summary.summary([seen(1, here), seen(2, here, on_time=False)]).ap50 == pytest.approx(0.5, abs=0.01)
    assert run_summary.summary([seen(1, here), seen(2, there)]).ap50 == pytest.approx(0.5, abs=0.01)
    assert run_summary.summary([seen(1)]).ap50 == 0.0
    assert run_summary.summary([row(1)]).ap50 is None


def test_energy_is_that_of_the_frames_whose_energy_is_known() -> None:
    assert run_summary.summary(
        [row(1, energy_J=0.2), row(2), row(3, energy_J=0.4)]
    ).energy_per_frame_J == pytest.approx(0.3)
    assert run_summary.summary([row(1)]).energy_per_frame_J is None


def test_how_long_a_battery_lasts() -> None:
    """10 frames a second of 0.1 J are 1 W above idling's 3 W."""
    header = made_run("mine", 1, battery=Battery(20.0, 3.0)).header
    assert run_summary.battery_h(header, 0.1) == pytest.approx(5.0)
    assert run_summary.battery_h(header, None) is None
    assert run_summary.battery_h(made_run("mine", 1).header, 0.1) is None
    assert run_summary.battery_h(msgspec.structs.replace(header, fps=0.0), 0.1) is None


def test_a_run_of_nothing_or_without_truth_has_no_accuracy() -> None:
    assert run_summary.summary([]).accuracy is None
    assert run_summary.summary([]).latency_p50_s is None
    assert run_summary.summary([row(truth=None)]).accuracy is None
    assert run_summary.summary([row(truth=None)]).answered_by_deadline == 1.0


def test_what_was_promised_stands_beside_what_came_of_it() -> None:
    kept = [row(n, source=AnswerSource.SERVER, promised=0.9) for n in range(3)]
    late = [row(3, source=AnswerSource.SERVER, promised=0.98, on_time=False), row(4, promised=1.0)]
    rows = [*kept, *late, row(5, promised=0.32), row(6)]
    low, high = run_summary.reliability(rows)
    assert low == Tenth(1, 0.32, 0.0)
    assert (high.frames, high.kept) == (5, 0.6)
    assert high.promised == pytest.approx(0.936)
    figures = run_summary.summary(rows)
    assert figures.promises == 6
    assert figures.kept == pytest.approx(0.5)
    assert figures.promised == pytest.approx((4.68 + 0.32) / 6)
    assert figures.calibration_error == pytest.approx((5 * 0.336 + 0.32) / 6)
    assert run_summary.summary([row(1)]).calibration_error is None
