"""Tells a service manager (systemd's `Type=notify`) that this process is ready, alive, stopping; nothing where none asked.

A datagram to the socket that NOTIFY_SOCKET names, as sd_notify(3) describes it. The watchdog's sign of life is sent by the
event loop: a loop that hangs sends none, and the manager starts the process anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

BEATS = 3.0
"""Signs of life in the time after which the manager gives the process up."""


class ServiceManager:
    """Whoever started this process and wants to hear of it."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address` is a path, or a name in the abstract namespace behind '@'; '' is nobody."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pause_s = None if watchdog_s is None else watchdog_s / BEATS
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], pid: int) -> ServiceManager:
        """The one that NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID name; what is no number is no watchdog."""
        watchdog, meant = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
        wanted = watchdog.isdecimal() and int(watchdog) > 0 and meant == str(pid)
        return cls(environ.get("NOTIFY_SOCKET", ""), int(watchdog) / 1e6 if wanted else None)

    def ready(self, status: str) -> None:
        """Everything is there; `status` is what the manager shows. To be called where an event loop runs."""
        self._say(f"READY=1\nSTATUS={status}")
        if self._address and self._pause_s is not None:
            self._beat()

    def stopping(self) -> None:
        """It is coming to its end, and answers what is in flight."""
        self._say("STOPPING=1\nSTATUS=answering what is in flight")

    def close(self) -> None:
        """Give no further sign of life."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._say("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._pause_s or 0.0, self._beat)

    def _say(self, what: str) -> None:
        if self._address:
            # A manager that does not listen is no reason to fail, nor to wait.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(what.encode(), self._address)


def service_manager() -> ServiceManager:
    """The manager of this process."""
    return ServiceManager.of_environment(os.environ, os.getpid())
