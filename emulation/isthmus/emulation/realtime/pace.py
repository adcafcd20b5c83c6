"""The other driver: a machine in real time. It waits for what is due, then does it as if it were never late.

The machine is stepped with the scheduled time, one due event at a time and in due order, so that its decisions are those
of the virtual run; how late the wake-ups were is recorded, and a run that fell too far behind fails.
"""

from __future__ import annotations

import asyncio

from isthmus.emulation.realtime.lag import Lags, LagSummary
from isthmus.proto.machine import Machine


async def run_real(machine: Machine, *, until_s: float, budget_s: float) -> LagSummary:
    """Step `machine` until `until_s` seconds have passed on the event loop's clock; how late its steps were.

    Raises LagError when the 99th percentile of the lag is over `budget_s`.
    """
    loop = asyncio.get_running_loop()
    began_s, lags = loop.time(), Lags()
    while (due_s := machine.due_at) is not None and due_s <= until_s:
        if began_s + due_s > loop.time():
            await _until(loop, began_s + due_s)
        lags.add(loop.time() - began_s - due_s)
        machine.step(due_s)
    await _until(loop, began_s + until_s)
    lag = lags.summary()
    lag.check(budget_s, who="emulate")
    return lag


async def _until(loop: asyncio.AbstractEventLoop, when_s: float) -> None:
    reached = loop.create_future()
    timer = loop.call_at(when_s, reached.set_result, None)
    try:
        await reached
    finally:
        timer.cancel()
