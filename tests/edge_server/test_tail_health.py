"""A tail that fails, in virtual time: when it counts as broken, and what the log says."""

from __future__ import annotations

from isthmus.edge_server.tail_health import FAILURES, LOG_S, TailHealth


def test_one_line_a_minute_however_many_batches_fail() -> None:
    health = TailHealth()
    lines = [line for step in range(3000) if (line := health.on_failure("failed", now=step * 0.05))]
    assert lines == [
        "tail: failed",
        "tail: failed; 1200 such failures since the last such line",
        "tail: failed; 1200 such failures since the last such line",
    ]
    assert LOG_S == 60.0


def test_broken_while_every_batch_fails_and_well_with_the_first_that_does_not() -> None:
    health = TailHealth()
    for count in range(1, 10):
        health.on_failure("failed", now=0.0)
        assert health.serving == (count < FAILURES)
    health.on_success()
    assert health.serving


def test_frames_that_fail_beside_others_that_do_not_are_no_broken_tail() -> None:
    health = TailHealth()
    for _ in range(10):
        health.on_success()
        health.on_failure("1 of 8 answers are not a number", now=0.0, whole=False)
    assert health.serving
