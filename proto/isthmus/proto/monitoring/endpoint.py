"""The port on which a half is watched: /metrics for Prometheus, /healthz and /readyz for probes, and nothing else.

It lives in a thread with an event loop of its own, so that no reader, however slow, costs a frame, and so that it can tell
when the half's own loop stands still. It reads the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.proto.errors import BindError
from isthmus.proto.monitoring import http
from isthmus.proto.monitoring.vitals import Vitals

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MOST_READERS = 16
"""Connections at a time; Prometheus and a few probes need three."""
CLOSING_S = 2.0
CLOSING_ROUNDS = 10
"""Of the event loop: from an accepted connection to its first step it takes four."""


def address_of(text: str) -> tuple[str, int]:
    """HOST and PORT of `HOST:PORT`; a port alone is on this machine, and an IPv6 host stands in brackets. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host if colon else LOOPBACK
    fits = bool(re.fullmatch(r"[^\s,/\[\]]+", host)) and (":" not in host or bracketed)
    if not fits or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"'{text}', expected HOST:PORT, or a port of this machine")
    return host, int(port)


@dataclass(frozen=True)
class Shown:
    """What an endpoint shows. All of it is asked from another thread."""

    vitals: Vitals
    metrics: Callable[[], tuple[bytes, str]]
    """The page for Prometheus, and its content type."""


class Endpoint:
    """One port."""

    def __init__(self, address: str, shown: Shown) -> None:
        """Take the port, from when on connections wait to be served. Raises BindError naming the way out."""
        self._shown, self._readers = shown, 0
        try:
            host, port = address_of(address)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=MOST_READERS)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise BindError(f"{address}: metrics: {why}; choose another --metrics HOST:PORT") from error
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the port go, and everybody who still reads."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._converse, sock=self._socket, limit=http.REQUEST_BYTES)
        await self._stop.wait()
        with contextlib.suppress(NotImplementedError):  # Windows
            self._loop.remove_reader(self._socket)
        for _ in range(
            CLOSING_ROUNDS
        ):  # who was accepted a moment ago begins: a closed server would lose his connection
            await asyncio.sleep(0)
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next round

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers += 1
        try:
            if self._readers > MOST_READERS:
                writer.write(http.answer(503, b"enough readers\n"))
            else:
                request = await http.read_request(reader)
                writer.write(http.answer(400, b"not understood\n") if request is None else self._answer(request))
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), http.REQUEST_S)
        except (ConnectionError, asyncio.TimeoutError, asyncio.CancelledError):
            pass  # cancelled: the port closes, and asyncio would log it
        finally:
            self._readers -= 1
            writer.transport.abort()

    def _answer(self, request: http.Request) -> bytes:
        if request.path not in ("/metrics", "/healthz", "/readyz"):
            return _cut(request, http.answer(404, b"here are /metrics, /healthz and /readyz\n"))
        if request.method not in ("GET", "HEAD"):
            return http.answer(405, b"this is to be read\n", more="Allow: GET, HEAD\r\n")
        return _cut(request, self._page() if request.path == "/metrics" else self._state(request.path))

    def _state(self, path: str) -> bytes:
        vitals, now = self._shown.vitals, time.monotonic()
        why = vitals.why_dead(now) if path == "/healthz" else vitals.why_not_ready(now)
        return http.answer(200, b"ok\n") if why is None else http.answer(503, f"{why}\n".encode())

    def _page(self) -> bytes:
        try:
            content, kind = self._shown.metrics()
        except Exception:  # whatever a counter throws costs this page, and is not hidden
            log.exception("metrics: cannot be shown")
            return http.answer(500, b"the log says why\n")
        return http.answer(200, content, kind)


def _cut(request: http.Request, whole: bytes) -> bytes:
    """An answer without its content, where only its head is asked for."""
    return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else whole
