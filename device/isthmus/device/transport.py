"""The gRPC stream to one edge server: connect, say hello, pass messages both ways, reconnect for ever.

A thin adapter: it turns messages to protobuf and back, and tells its listener what the connection does. Nothing here
decides anything about frames. While there is no connection, `send` drops messages: the session answers those frames.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from isthmus.proto import edge_pb2, wire
from isthmus.proto.errors import HandshakeError, WireError
from isthmus.proto.messages import DeviceMessage, Hello, Invalid, ServerMessage, Welcome
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

BACK_OFF_S = (0.1, 1.0)
"""First and longest pause between two attempts; each is halved or doubled at random by up to a half."""
STEADY_S = 0.5
"""After a stream that lasted so long the next attempt is a first one; sooner, a server that hangs up at once is not pressed."""
WELCOME_TIMEOUT_S = 3.0
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
    """One stream at a time to `address`; `run` lasts until it is cancelled or the first hello is refused."""

    def __init__(
        self,
        address: str,
        hello: Hello,
        listener: Listener,
        *,
        expected: wire.Expected,
        max_message_bytes: int,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        """`expected` is what the server's messages must fit."""
        self._address, self._hello, self._listener, self._expected = address, hello, listener, expected
        self._secure = credentials is not None
        options = wire.channel_options(max_message_bytes)
        if credentials is None:
            self._open: Callable[[], grpc.aio.Channel] = lambda: grpc.aio.insecure_channel(address, options=options)
        else:
            self._open = lambda: grpc.aio.secure_channel(address, credentials, options=options)
        self._outbox: asyncio.Queue[DeviceMessage | None] | None = None
        self._welcomed = self._welcomed_once = False
        self._complaints, self._complain_at_s = 0, -math.inf

    def send(self, message: DeviceMessage) -> None:
        """Queue a message for the stream; dropped when there is none."""
        if self._outbox is not None:
            self._outbox.put_nowait(message)

    def reconnect(self) -> None:
        """End the stream, which `run` then opens anew."""
        if self._outbox is not None:
            self._outbox.put_nowait(None)

    async def run(self) -> None:
        """Keep a stream open. Raises HandshakeError when the very first server refuses the hello."""
        pause = BACK_OFF_S[0]
        loop = asyncio.get_running_loop()
        async with self._open() as channel:
            while True:
                began_s = loop.time()
                why = await self._stream_ended(channel)
                self._outbox = None
                self._listener.disconnected(f"{self._address}: {printable(why)}")
                if loop.time() - began_s >= STEADY_S and self._welcomed:
                    pause = BACK_OFF_S[0]
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, BACK_OFF_S[1])

    async def _stream_ended(self, channel: grpc.aio.Channel) -> str:
        """Live through one stream; why it ended, or never came about."""
        self._welcomed = False
        try:
            await self._one_stream(channel)
        except grpc.aio.AioRpcError as error:
            self._refused(error)
            return f"{error.code().name.lower()} ({error.details()}){self._hint(error)}"
        except asyncio.TimeoutError:
            return f"no welcome within {WELCOME_TIMEOUT_S:g} s"
        except WireError as error:
            return str(error)
        except Exception as error:  # whatever else a peer makes gRPC raise costs this stream, and not the agent
            log.debug("%s", self._address, exc_info=True)
            return f"stream broken: {error!r}"
        return "stream closed"

    def _hint(self, error: grpc.aio.AioRpcError) -> str:
        """What to look at when the halves speak, but not the same."""
        details = (error.details() or "").lower()
        if self._secure and "handshake" in details:
            return "; the certificates of both halves must come from one `isthmus certs init`"
        if not self._secure and "failed to connect" in details and "socket closed" in details:
            return "; a server with --certs does not speak plaintext"
        return ""

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
            first = await asyncio.wait_for(_read(call), WELCOME_TIMEOUT_S)
            if first is None:
                await call.wait_for_connection()
                raise WireError("closed before the welcome")
            welcome = wire.read_server(first, self._expected)
            if not isinstance(welcome, Welcome):
                raise WireError(f"expected a welcome, got {type(welcome).__name__}")
            self._welcomed = self._welcomed_once = True
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


async def _read(call: Any) -> bytes | None:
    """The next message as it came; None at the end of the stream."""
    raw = await call.read()
    return None if raw is grpc.aio.EOF else bytes(raw)


async def _outgoing(outbox: asyncio.Queue[DeviceMessage | None]) -> AsyncIterator[edge_pb2.DeviceMessage]:
    while (message := await outbox.get()) is not None:
        yield wire.to_device_pb(message)
