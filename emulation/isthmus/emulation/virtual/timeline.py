"""One heap of (due, seq, what): the virtual world's only clock. Ties are kept in the order in which they were made."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

INFINITY = float("inf")


class Timeline:
    """A machine made of things to do. What is due is called with its due time first: late is not later."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._made = 0
        self.now = 0.0
        """The due time of what was done last."""

    @property
    def due_at(self) -> float | None:
        """When the next thing is due."""
        return self._heap[0][0] if self._heap else None

    def at(self, due_s: float, what: Callable[..., None], *args: Any) -> None:
        """Call `what(due_s, *args)` then; at infinity means never."""
        if due_s < INFINITY:
            self._made += 1
            heapq.heappush(self._heap, (due_s, self._made, what, args))

    def step(self, now: float) -> None:
        """Do the one thing that is due, at its own time."""
        due_s, _, what, args = heapq.heappop(self._heap)
        self.now = due_s
        what(due_s, *args)
