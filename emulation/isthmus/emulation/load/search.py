"""The largest load of which a share is still answered in time. Pure; what is measured may be noisy."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

GOAL = 0.9
"""A server carries a load while so many of its frames are answered in time: its goodput, not its throughput."""
PRECISION = 0.03
"""The search ends when so small a share of devices more or less decides: below that lies the noise of a measurement."""
STEP = 1.5
"""From one load to the next, before one is found that is too much."""

Measure = Callable[[int], Coroutine[Any, Any, float]]
"""The share in time of so many devices."""


async def most(measure: Measure, *, start: int = 1, limit: int = 100_000) -> int:
    """The largest number of devices, up to `limit`, of whose frames `GOAL` are in time; 0 where not even one's are.

    It looks from `start` on, up or down, until one number is enough and another too much, and halves what is between.
    """
    carried, refused, devices = 0, limit + 1, min(max(1, start), limit)
    while refused - carried > max(1, round(PRECISION * carried)):
        if await measure(devices) >= GOAL:
            carried = devices
        else:
            refused = devices
        if refused > limit:
            devices = min(limit, max(carried + 1, round(carried * STEP)))
        elif carried == 0:
            devices = max(1, int(refused / STEP))
        else:
            devices = (carried + refused) // 2
    return carried
