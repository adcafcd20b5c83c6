"""Anything that lives in time: it says when it wants to be woken, and takes one step when it is.

A machine owns no clock. The virtual driver jumps to the next due time; a live host (`agent`, `server`) waits for it.
"""

from __future__ import annotations

from typing import Protocol


class Machine(Protocol):
    """The one interface of everything that has timers."""

    @property
    def due_at(self) -> float | None:
        """The earliest of my timers, in seconds on my host's clock; None when I wait for nothing."""

    def step(self, now: float) -> None:
        """Do the one thing that is due at `now`."""


def earliest(*times: float | None) -> float | None:
    """The earliest of several due times, of which any may be None."""
    first = None
    for t in times:
        if t is not None and (first is None or t < first):
            first = t
    return first


def run_virtual(machine: Machine, *, until_s: float) -> int:
    """Step `machine` in due order until nothing is due up to `until_s`; returns the number of steps."""
    steps = 0
    while (due := machine.due_at) is not None and due <= until_s:
        machine.step(due)
        steps += 1
    return steps
