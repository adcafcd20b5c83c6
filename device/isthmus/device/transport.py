"""The gRPC stream to one edge server: connect, say hello, pass messages both ways; again whenever it is asked to.

A thin adapter: it turns messages to protobuf and back, and tells its listener what the connection does. Nothing here
decides anything about frames, or when to try. While there is no connection, `send` drops messages: the session answers
those frames, or sends them elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any, Protocol

import grpc
import grpc.aio

from isthmus.device.certificates import Certificates
from isthmus.proto import edge_pb2, wire
from isthmus.proto.errors import HandshakeError, WireError
from isthmus.proto.messages import DeviceMessage, Hello, Invalid, ServerMessage, Welcome
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

WELCOME_TIMEOUT_S = 3.0
"""Connection, TLS, hello and welcome are four round trips: a link of 0.7 s still comes up."""
WHY_CHARACTERS = 400
"""Room for gRPC's reason and our advice on one line."""
COMPLAIN_EVERY_S = 60.0
"""What a server says that makes no sense is logged once in so long: it may say it a thousand times a second."""
STREAM = "/isthmus.v1.Edge/Stream"
"""Called by its name, so that what comes is read by `wire` and not by gRPC, which logs a traceback for what it cannot parse."""


class Listener(Protocol):
    """Who is told of the connection."""

    def connected(self, welcome: Welcome) -> None:
        """A server took us on."""

    def received(self, message: ServerMessage) -> None:
        """A message came."""

    def disconnected(self, why: str) -> None:
        """The stream ended or never came about."""


class Transport:
    """One stream to `address` for each `dial`; `run` lasts until it is cancelled or the first hello is refused."""

    def __init__(
        self,
        address: str,
        hello: Hello,
        listener: Listener,
        *,
        expected: wire.Expected,
        max_message_bytes: int,
        certificates: Certificates | None,
    ) -> None:
        """`expected` is what the server's messages must fit. Without `certificates` it speaks plaintext."""
        self._address, self._hello, self._listener, self._expected = address, hello, listener, expected
        self._certificates, self._options = certificates, wire.channel_options(max_message_bytes)
        self._outbox: asyncio.Queue[DeviceMessage | None] | None = None
        self._dialled = asyncio.Event()
        self._welcomed_once = False
        self._complaints, self._complain_at_s = 0, -math.inf

    def send(self, message: DeviceMessage) -> None:
        """Queue a message for the stream; dropped when there is none."""
        if self._outbox is not None:
            self._outbox.put_nowait(message)

    def dial(self) -> None:
        """Try once to open a stream; its end is told to the listener, whether or not it came about."""
        self._dialled.set()

    def hang_up(self) -> None:
        """End the stream, after all that was sent."""
        if self._outbox is not None:
            self._outbox.put_nowait(None)

    def reload(self) -> None:
        """Read the certificates anew, for the next connection; a stream that is open stays."""
        if self._certificates is not None:
            self._certificates.look()

    async def run(self) -> None:
        """Open a stream whenever one is dialled. Raises HandshakeError when the very first hello is refused."""
        while True:
            async with self._open() as channel:
                await self._streams(channel)

    async def _streams(self, channel: grpc.aio.Channel) -> None:
        """One stream after the other, until the certificates are others."""
        version = self._version
        while version == self._version:
            await self._dialled.wait()
            self.reload()
            if version != self._version:
                return  # dialled on the next channel
            self._dialled.clear()
            why = await self._stream_ended(channel)
            self._outbox = None
            self._listener.disconnected(f"{self._address}: {printable(why, WHY_CHARACTERS)}")

    @property
    def _version(self) -> int:
        return 0 if self._certificates is None else self._certificates.version

    def _open(self) -> grpc.aio.Channel:
        if self._certificates is None:
            return grpc.aio.insecure_channel(self._address, options=self._options)
        return grpc.aio.secure_channel(self._address, self._certificates.credentials(), options=self._options)

    async def _stream_ended(self, channel: grpc.aio.Channel) -> str:
        """Live through one stream; why it ended, or never came about."""
        try:
            await self._one_stream(channel)
        except grpc.aio.AioRpcError as error:
            self._refused(error)
            said = printable(error.details() or "")  # alone: a hint behind a long text must not be cut off
            return f"{error.code().name.lower()} ({said}){self._hint(error)}"
        except asyncio.TimeoutError:
            return f"no welcome within {WELCOME_TIMEOUT_S:g} s"
        except WireError as error:
            return printable(str(error))
        except Exception as error:  # whatever else a peer makes gRPC raise costs this stream, and not the agent
            log.debug("%s", self._address, exc_info=True)
            return printable(f"stream broken: {error!r}")
        return "stream closed"

    def _hint(self, error: grpc.aio.AioRpcError) -> str:
        """What to look at when the halves do not come to speak to each other."""
        details = (error.details() or "").lower()
        if "failed to connect" not in details:
            return ""
        if self._certificates is None:
            return "; a server with --certs does not speak plaintext" if "socket closed" in details else ""
        return _advice(details, self._address, self._certificates, datetime.now(timezone.utc))

    def _refused(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION and not self._welcomed_once:
            raise HandshakeError(f"{self._address}: refused: {printable(error.details() or '')}") from error

    async def _one_stream(self, channel: grpc.aio.Channel) -> None:
        outbox: asyncio.Queue[DeviceMessage | None] = asyncio.Queue()
        outbox.put_nowait(self._hello)
        call: Any = channel.stream_stream(STREAM, request_serializer=edge_pb2.DeviceMessage.SerializeToString)(
            _outgoing(outbox)
        )
        try:
            first = await _first(call)
            if first is None:
                await call.wait_for_connection()
                raise WireError("closed before the welcome")
            welcome = wire.read_server(first, self._expected)
            if not isinstance(welcome, Welcome):
                raise WireError(f"expected a welcome, got {type(welcome).__name__}")
            self._welcomed_once = True
            self._outbox = outbox
            self._listener.connected(welcome)
            while (raw := await _read(call)) is not None:
                self._hear(raw)
            if not call.done() or await call.code() is not grpc.StatusCode.OK:
                log.info("%s: stream ended with %s", self._address, await call.code())
        finally:
            outbox.put_nowait(None)
            call.cancel()
            await call.code()  # a call that is left alone leaks

    def _hear(self, raw: bytes) -> None:
        """Pass a message on; one that makes no sense is left out, and costs the frame that it was about at most."""
        try:
            message = wire.read_server(raw, self._expected)
        except WireError as error:
            self._complain(str(error))
            return
        if isinstance(message, Invalid):
            self._complain(f"frame {message.frame_id}: {message.why}")
        self._listener.received(message)

    def _complain(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        self._complaints += 1
        if now >= self._complain_at_s:
            more = f" (and {self._complaints - 1} more since)" if self._complaints > 1 else ""
            log.warning("%s: %s%s", self._address, printable(what), more)
            self._complaints, self._complain_at_s = 0, now + COMPLAIN_EVERY_S


def _advice(details: str, address: str, certificates: Certificates, now: datetime) -> str:
    """The way out of a handshake that failed with `details`, as they are in lower case; `now` is what our clock says."""
    clock = f"this clock says {now:%Y-%m-%d %H:%M} UTC"
    if wrong := certificates.wrong_at(now):
        return f"; our {wrong}, and {clock}: set it, or make new certificates"
    if "not yet valid" in details:
        return f"; the server's certificate is not yet valid, {clock}: set it"
    if "expired" in details:
        return f"; the server's certificate has expired, {clock}: set it, or make new certificates"
    if "hostname" in details or "peer name" in details:
        host = address.rpartition(":")[0]
        return f"; the server's certificate does not name {host}: make one with `isthmus certs init --host {host}`"
    if "handshake" in details:
        return "; the certificates of both halves must come from one `isthmus certs init`"
    return ""


async def _first(call: Any) -> bytes | None:
    """The first message; TimeoutError when it does not come. `wait_for` may let a cancellation pass before Python 3.12."""
    reading = asyncio.ensure_future(_read(call))
    try:
        await asyncio.wait({reading}, timeout=WELCOME_TIMEOUT_S)
        if not reading.done():
            raise asyncio.TimeoutError
        return reading.result()
    finally:
        reading.cancel()


async def _read(call: Any) -> bytes | None:
    """The next message as it came; None at the end of the stream."""
    raw = await call.read()
    return None if raw is grpc.aio.EOF else bytes(raw)


async def _outgoing(outbox: asyncio.Queue[DeviceMessage | None]) -> AsyncIterator[edge_pb2.DeviceMessage]:
    while (message := await outbox.get()) is not None:
        yield wire.to_device_pb(message)
