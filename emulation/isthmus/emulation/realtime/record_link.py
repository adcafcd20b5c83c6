"""Recording a real link: one end on the device, one beside the server, plain TCP between them. A thin adapter.

The device opens a connection for each heavy flow and one for the pings; a first byte says which. Whoever receives a flow
answers each read with the total that it has. Nothing but zeros, totals and pings crosses, and no clock of the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection

from isthmus.emulation.realtime.relay import abort, host_port
from isthmus.emulation.recorder import HeavyFlow, Recording
from isthmus.emulation.traces import Direction, Trace
from isthmus.proto.errors import BindError, SourceError

_UP, _DOWN, _PING = b"U", b"D", b"P"
_TOTAL_BYTES = 8
"""A total crosses as an integer of 64 bits."""
_READ_BYTES = 65_536
_PING_EVERY_S = 0.1
"""One ping for each row of the trace."""
_ZEROS = bytes(16_384)

Noted = Callable[[int], None]
Clock = Callable[[], float]
"""Seconds since the recording began."""


async def answer(listen: str, *, ready: Callable[[str], None]) -> None:
    """Be the far end for whoever records, until cancelled; `ready` is called with the address. Raises BindError."""
    host, port = host_port(listen)
    try:
        server = await asyncio.start_server(_answer, host, port)
    except OSError as error:
        raise BindError(f"{listen}: {error.strerror}; free the port or name another to listen on") from error
    async with server:
        ready("{}:{}".format(*server.sockets[0].getsockname()[:2]))
        await server.serve_forever()


async def record(server: str, *, name: str, ways: Collection[Direction], length_s: float) -> Trace:
    """Record the way to the far end at `server` for so long, with a heavy flow in each of `ways`.

    Raises SourceError when the far end cannot be reached or goes away.
    """
    recording, clock = Recording(), _started()
    flows = (_flow(server, way, recording, clock) for way in ways)
    try:
        await asyncio.wait_for(asyncio.gather(_ping(server, recording, clock), *flows), length_s)
    except asyncio.TimeoutError:
        return recording.trace(name, length_s)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise SourceError(
            f"{server}: {error}; is `isthmus traces answer` running there, and may this device reach it?"
        ) from error
    raise AssertionError("the pings never end by themselves")


def _started() -> Clock:
    began_s = time.monotonic()
    return lambda: time.monotonic() - began_s


@contextlib.asynccontextmanager
async def _connected(server: str, kind: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*host_port(server))
    try:
        writer.write(kind)
        yield reader, writer
    finally:
        abort(writer)


async def _ping(server: str, recording: Recording, clock: Clock) -> None:
    async with _connected(server, _PING) as (reader, writer):
        while True:
            sent_s = clock()
            writer.write(bytes(_TOTAL_BYTES))
            await reader.readexactly(_TOTAL_BYTES)
            recording.on_round_trip(clock() - sent_s, clock())
            await asyncio.sleep(max(0.0, sent_s + _PING_EVERY_S - clock()))


async def _flow(server: str, way: Direction, recording: Recording, clock: Clock) -> None:
    async with _connected(server, _UP if way == "up" else _DOWN) as (reader, writer):

        def noted(total_bytes: int) -> None:
            recording.on_total(way, total_bytes, clock())

        await (_flood if way == "up" else _absorb)(reader, writer, noted, clock)
        raise ConnectionResetError("the far end has closed")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        match await reader.readexactly(1):
            case b"U":
                await _absorb(reader, writer, _ignored, _started())
            case b"D":
                await _flood(reader, writer, _ignored, _started())
            case b"P":
                while ping := await reader.readexactly(_TOTAL_BYTES):
                    writer.write(ping)
    abort(writer)


async def _flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noted: Noted, clock: Clock) -> None:
    """Keep the link busy; `noted` is called with every total that the other end has."""
    flow = HeavyFlow()
    while True:
        while room_bytes := flow.room_bytes(clock()):
            part = _ZEROS[:room_bytes]
            writer.write(part)
            flow.on_sent(len(part), clock())
        await writer.drain()
        try:
            total = await asyncio.wait_for(reader.readexactly(_TOTAL_BYTES), flow.rests_s(clock()) or None)
        except asyncio.TimeoutError:
            continue  # it has rested
        flow.on_ack(int.from_bytes(total, "big"), clock())
        noted(int.from_bytes(total, "big"))


async def _absorb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noted: Noted, _: Clock) -> None:
    """Take what comes, and answer with how much that is."""
    total_bytes = 0
    while part := await reader.read(_READ_BYTES):
        total_bytes += len(part)
        noted(total_bytes)
        writer.write(total_bytes.to_bytes(_TOTAL_BYTES, "big"))


def _ignored(total_bytes: int) -> None:
    pass
