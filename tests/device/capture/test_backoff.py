"""Pauses between attempts: they double up to a longest, and begin anew after what has worked for a while."""

from __future__ import annotations

from isthmus.device.capture.backoff import BackOff


def test_pauses_double_up_to_the_longest() -> None:
    back_off = BackOff(first_s=0.5, longest_s=4.0)
    assert [back_off.failed(now=float(n)) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_what_worked_for_a_while_is_tried_again_soon() -> None:
    back_off = BackOff(first_s=0.5, longest_s=4.0, steady_s=5.0)
    for now in (0.0, 1.0, 2.0):
        back_off.failed(now=now)
    back_off.worked(now=10.0)
    back_off.worked(now=14.9)
    assert back_off.failed(now=15.0) == 0.5


def test_what_gives_one_picture_and_fails_is_not_pressed() -> None:
    back_off = BackOff(first_s=0.5, longest_s=4.0, steady_s=5.0)
    pauses = []
    for n in range(4):
        back_off.worked(now=10.0 * n)
        pauses.append(back_off.failed(now=10.0 * n + 1.0))
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_a_time_without_an_attempt_is_no_time_that_it_worked() -> None:
    back_off = BackOff(first_s=0.5, steady_s=5.0)
    back_off.failed(now=0.0)
    assert back_off.failed(now=100.0) == 1.0
