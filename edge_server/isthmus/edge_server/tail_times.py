"""How long a tail takes for a batch of b: its 95th percentile, learnt from what it took. Pure: no clock, no IO.

Observations count for a few seconds only. A tail that was slow once and is therefore given nothing to do would
otherwise never get the chance to show that it is fast again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import numpy as np

WINDOW = 64
"""The newest observations that are kept for each batch size: the 95th percentile is then the fourth largest."""
MEMORY_S = 3.0
"""How long an observation counts: longer than a hiccup of the machine, shorter than a user's patience."""
ENOUGH = 20
"""Fewer observations than this are filled up with the prior, so that one hiccup alone is never the 95th percentile."""


class TailTimes:
    """t(b) in seconds for b = 1 … `max_batch`; never falls as b grows."""

    def __init__(self, prior_s: Mapping[int, float], *, max_batch: int) -> None:
        """`prior_s` is a warm-up's time for some batch sizes, at least one; the sizes between are interpolated."""
        known = sorted(prior_s)
        sizes = np.arange(1, max_batch + 1)
        prior = np.interp(sizes, known, [prior_s[size] for size in known])
        prior = np.where(sizes > known[-1], prior * sizes / known[-1], prior)
        self._sizes = sizes
        self._prior = np.maximum.accumulate(prior)  # (max_batch,) s
        self._seen: dict[int, deque[tuple[float, float]]] = {}
        self._slow: dict[int, float] = {}
        self._stale_at = math.inf  # or earlier than the first observation really grows old
        self._table: list[float] = self._prior.tolist()

    def p95_s(self, batch: int) -> float:
        """The time within which 95 % of the batches of this size finish."""
        return self._table[batch - 1]

    def observe(self, batch: int, tail_s: float, *, now: float) -> None:
        """A batch of this size took `tail_s` and finished at `now`."""
        self._seen.setdefault(batch, deque(maxlen=WINDOW)).append((now, tail_s))
        self._stale_at = min(self._stale_at, now + MEMORY_S)
        self._judge(batch)

    def forget(self, *, now: float) -> None:
        """Let go of what is older than the memory."""
        if now < self._stale_at:
            return
        for batch, seen in list(self._seen.items()):
            if seen[0][0] + MEMORY_S > now:
                continue
            while seen and seen[0][0] + MEMORY_S <= now:
                seen.popleft()
            if not seen:
                del self._seen[batch]
            self._judge(batch)
        self._stale_at = min((seen[0][0] for seen in self._seen.values()), default=math.inf) + MEMORY_S

    def _judge(self, batch: int) -> None:
        """A percentile seldom moves: only when this size's has is the table laid out anew."""
        before = self._slow.pop(batch, None)
        if batch in self._seen:
            self._slow[batch] = self._slowdown(batch)
        if self._slow.get(batch) != before:
            self._learn()

    def _learn(self) -> None:
        known = sorted(self._slow)
        slowdown = np.interp(self._sizes, known, [self._slow[batch] for batch in known]) if known else 1.0
        self._table = np.maximum.accumulate(self._prior * slowdown).tolist()

    def _slowdown(self, batch: int) -> float:
        """95th percentile over prior; sizes that were not seen lately are assumed to be slowed alike."""
        prior = float(self._prior[batch - 1])
        seen = [tail_s for _, tail_s in self._seen[batch]]
        ranked = sorted(seen + [prior] * (ENOUGH - len(seen)))
        return ranked[math.ceil(0.95 * len(ranked)) - 1] / prior
