"""What signals mean to an agent: SIGTERM ends it, a second one at once; SIGHUP reads certificates anew and kills nothing.

Python's own handlers, not the event loop's: those are gone once the loop is closed, and the process is then still there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
from collections.abc import Callable

AT_ONCE = 128 + signal.SIGTERM
"""The exit code after a second SIGTERM, as a shell tells it."""


def handle(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Give the signals their meaning until the process ends. The main thread alone may call this, with its loop running."""
    loop, asked = asyncio.get_running_loop(), 0

    def soon(what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending anyway
            loop.call_soon_threadsafe(what)

    def end(*_: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(AT_ONCE)
        soon(stop)

    signal.signal(signal.SIGTERM, end)
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # the interpreter takes Python's handlers away last
    if hasattr(signal, "SIGHUP"):  # Windows has none
        signal.signal(signal.SIGHUP, lambda *_: soon(reload))
        atexit.register(signal.signal, signal.SIGHUP, signal.SIG_IGN)
