"""A second signal: whoever asks twice is not kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from types import FrameType

BY_SIGNAL = 128
"""The exit code of a process that a signal n told to end at once is this + n, as a shell says it (docs/exit-codes.md)."""


def end_at_once_from_now_on() -> None:
    """SIGTERM and SIGINT now end this process at once with 143 or 130, whatever it waits for; SIGHUP does nothing any more.

    To be called where a role begins to end. It replaces the loop's handlers, which would leave with the loop, while
    threads are still waited for. Elsewhere than in the main thread, where no signal arrives, it does nothing.
    """
    with contextlib.suppress(ValueError, NotImplementedError, AttributeError, RuntimeError):  # another thread; Windows
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(BY_SIGNAL + number)
