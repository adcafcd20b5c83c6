"""The emulated link in real time: an asyncio TCP relay between real processes. No privilege, any system.

The rule: `ShapedLink` says when each chunk arrives, the event loop's clock is read here and nowhere else, and the lag
between scheduled and actual delivery is recorded. The device's uplink and downlink are one each, shared by all
connections. A relay carries a byte stream: it can delay bytes and hold them through an outage, never lose them. When
its queue is full it stops reading, which slows the sender. Use stdlib asyncio: uvloop's timers are millisecond-grained.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType

from isthmus.emulation.link import LinkOptions, ShapedLink
from isthmus.emulation.realtime.child import STOP_FD, Announce
from isthmus.emulation.realtime.lag import Lags, LagSummary
from isthmus.emulation.traces import AnyTrace
from isthmus.proto.errors import BindError, ConfigError

LIMITS = "relay: shapes rate and delay; it holds bytes and cannot lose them, so recovery after an outage is flattered"
"""What every report on a relayed run must say."""
CHUNK_BYTES = 16_384
"""The largest read, hence step of the shaping; on narrow links it is what 2 ms carry, but a packet at least."""
_PACKET_BYTES = 1500
_STEP_S = 2e-3
"""The time that one read on a narrow link stands for: no chunk is shaped more coarsely."""
_SLACK_S = 3e-2
"""What a wide link may hold beyond the queue's limit, or timers that wake up late would leave it idle."""
_SOCKET_BYTES = 32_768
"""The kernel buffer to ask for: small, so that a sender feels the relay's queue soon."""
OPTIONS = LinkOptions(queue_bytes=32_768)
"""By default, as much waits in the relay as in the kernel's buffer before it."""
_CONTROL_BYTES = 40
"""What opening or closing a connection costs on the link."""
_log = logging.getLogger(__name__)


class Relay:
    """Listens on `listen`, connects to `upstream` (both `host:port`; port 0 listens on a free one), shapes between.

    `async with Relay(trace, listen=..., upstream=...) as relay:` serves until the block ends. `queue_bytes` of the
    options is what waits each way before the relay stops reading; the kernel's socket buffers, kept small, come on top.
    Raises ConfigError for an address or option that cannot be, BindError for a port in use, DataError as `ShapedLink`.
    """

    def __init__(
        self,
        trace: AnyTrace,
        *,
        listen: str,
        upstream: str,
        options: LinkOptions = OPTIONS,
    ):
        if options.outage != "hold":
            raise ConfigError("relay: cannot lose what waits in an outage; use outage 'hold'")
        stream = replace(options, queue_bytes=math.inf, lossless=True)  # its queue is bounded by not reading
        self._up, self._down = ShapedLink(trace, "up", stream), ShapedLink(trace, "down", stream)
        self._listen = host_port(listen)
        self._upstream = host_port(upstream)
        self._queue_bytes = options.queue_bytes
        self._lags = Lags()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.started_s = 0.0
        """When the trace began, on the event loop's clock (`time.monotonic` on every common system)."""
        self.refused = 0
        """Connections closed because the upstream could not be reached."""

    @property
    def host(self) -> str:
        """The address that is listened on."""
        return self._listen[0]

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._server is not None, "start the relay first"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Relay:
        host, port = self._listen
        try:
            listener = _listener(host, port)
        except OSError as error:
            raise BindError(f"{host}:{port}: {error.strerror}; free the port or name another to listen on") from error
        self.started_s = _clock()  # before the first connection can come in
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self:
            await asyncio.get_running_loop().create_future()

    @property
    def lag(self) -> LagSummary:
        """The lag of every delivery until now."""
        return self._lags.summary()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
            await _close(writer)
        except asyncio.CancelledError:
            pass  # the relay ends; a cancelled connection task is no news to the server that started it
        except OSError as error:
            _log.debug("relay: a connection ended: %s", error)
        finally:
            self._connections.discard(task)
            abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._until(self._up.send(_CONTROL_BYTES, self._elapsed()))  # the opening too must pass the link
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._upstream, limit=CHUNK_BYTES)
        except OSError as error:
            self.refused += 1
            _log.warning("relay: %s:%d: %s; the connection is closed", *self._upstream, error.strerror or error)
            return
        far_writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        pipes = (_Pipe(self, self._up, reader, far_writer), _Pipe(self, self._down, far_reader, writer))
        tasks = [asyncio.ensure_future(pipe.run()) for pipe in pipes]
        try:
            await asyncio.gather(*tasks)
            await _close(far_writer)
        finally:
            for task in tasks:
                task.cancel()
            abort(far_writer)

    def _elapsed(self) -> float:
        return _clock() - self.started_s

    async def _until(self, elapsed_s: float | None) -> None:
        """Wait for a time in the trace."""
        assert elapsed_s is not None, "a held link loses nothing"
        future = asyncio.get_running_loop().create_future()
        timer = future.get_loop().call_at(self.started_s + elapsed_s, _wake, future)
        try:
            await future
        finally:
            timer.cancel()


@dataclass(frozen=True)
class RelayJob:
    """A relay in a process of its own."""

    trace: AnyTrace
    listen: str
    upstream: str
    options: LinkOptions = OPTIONS

    def run(self, ready: Announce) -> LagSummary:
        """See `child.ChildJob`; announces the `port` that it listens on, and `began_s` on CLOCK_MONOTONIC."""
        return asyncio.run(self._run(ready))

    async def _run(self, ready: Announce) -> LagSummary:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_reader(STOP_FD, stopped.set)
        async with Relay(self.trace, listen=self.listen, upstream=self.upstream, options=self.options) as relay:
            ready({"port": relay.port, "began_s": relay.started_s})
            await stopped.wait()
            return relay.lag


class _Pipe:
    """One direction of one connection: reads as the link's queue allows, writes when the link says."""

    def __init__(self, relay: Relay, link: ShapedLink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._relay = relay
        self._link = link
        self._reader = reader
        self._writer = writer
        self._flying: deque[tuple[float, bytes]] = deque()
        self._landed = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Carry bytes until the reader's end has been delivered; raises OSError when either side breaks."""
        while chunk := await self._reader.read(self._step_bytes()):
            self._fly(chunk, len(chunk))
            await self._room()
        self._fly(b"", _CONTROL_BYTES)
        await self._landed

    def _step_bytes(self) -> int:
        step = int(self._link.rate_Bps(self._relay._elapsed()) * _STEP_S)
        return max(_PACKET_BYTES, min(CHUNK_BYTES, step))

    def _fly(self, chunk: bytes, size_bytes: int) -> None:
        due = self._link.send(size_bytes, self._relay._elapsed())
        assert due is not None, "a held link loses nothing"
        self._flying.append((due, chunk))
        asyncio.get_running_loop().call_at(self._relay.started_s + due, self._land)

    def _land(self) -> None:
        """Deliver the oldest chunk: timers that are due together may fire in any order, the bytes may not."""
        due, chunk = self._flying.popleft()
        self._relay._lags.add(self._relay._elapsed() - due)
        gone = self._writer.transport.is_closing()
        if chunk:
            if not gone:
                self._writer.write(chunk)
            return
        if not gone:
            with contextlib.suppress(OSError):
                self._writer.write_eof()
        _wake(self._landed)

    async def _room(self) -> None:
        """Back-pressure from both ends: the link's queue, and a receiver that does not read."""
        now = self._relay._elapsed()
        room_bytes = max(self._relay._queue_bytes, self._link.rate_Bps(now) * _SLACK_S)
        if self._link.backlog_bytes(now) > room_bytes:
            await self._relay._until(self._link.drained_at(room_bytes, now))
        await self._writer.drain()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name, or asyncio does not take what is accepted for TCP and leaves Nagle's algorithm on: 40 ms a message.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)  # inherited by what is accepted
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def host_port(text: str) -> tuple[str, int]:
    """'HOST:PORT' in its parts; raises ConfigError when it is none."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"'{text}': an address is HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close once everything written has left."""
    writer.close()
    await writer.wait_closed()


def abort(writer: asyncio.StreamWriter) -> None:
    """Drop a connection, with what it still had to send; changes nothing for one that has closed."""
    with contextlib.suppress(AttributeError):  # CPython's transport, once it closed by itself, has no loop to abort on
        writer.transport.abort()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _clock() -> float:
    return asyncio.get_running_loop().time()
