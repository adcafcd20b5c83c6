"""Counted work tells how far it is and when it will be over: seldom, and not at all where it is short."""

from __future__ import annotations

from isthmus.models.progress import Countdown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_every_few_seconds_with_what_is_left() -> None:
    clock, heard = Clock(), list[str]()
    tick = Countdown(heard.append, clock)
    for done in range(101):
        tick("pictures", done, 100)
        clock.now += 0.4
    assert heard[0] == "pictures: 13 of 100, about 35 s left"
    assert len(heard) == 7
    assert heard[-1] == "pictures: 91 of 100, about 4 s left"


def test_short_work_says_nothing_and_what_begins_anew_is_counted_anew() -> None:
    clock, heard = Clock(), list[str]()
    tick = Countdown(heard.append, clock)
    for what in ("one", "two", "two"):
        for done in range(11):
            tick(what, done, 10)
            clock.now += 0.4
    assert not heard
    tick("three", 0, 2)
    clock.now += 60
    tick("three", 1, 2)
    assert heard == ["three: 1 of 2, about 60 s left"]
