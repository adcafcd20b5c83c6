"""Slow work beside the event loop, in a thread of its own that keeps no process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def off_loop(work: Callable[[], T]) -> T:
    """What `work` returns, or raises. Whoever stops to wait leaves the thread to its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error, it is what `work` returned

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # the thread has nobody else to tell
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="off-loop", daemon=True).start()
    return await done
