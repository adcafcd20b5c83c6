"""The gRPC stream to one edge server: connect, say hello, pass messages both ways, reconnect for ever.

A thin adapter: it turns messages to protobuf and back, and tells its listener what the connection does. Nothing here
decides anything about frames. While there is no connection, `send` drops messages: the session answers those frames.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import grpc
import grpc.aio

from isthmus.proto import edge_pb2, wire
from isthmus.proto.edge_pb2_grpc import EdgeStub
from isthmus.proto.errors import HandshakeError, WireError
from isthmus.proto.messages import DeviceMessage, Hello, ServerMessage, Welcome

log = logging.getLogger(__name__)

BACK_OFF_S = (0.1, 1.0)
"""First and longest pause between two attempts; each is halved or doubled at random by up to a half."""
WELCOME_TIMEOUT_S = 3.0


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
        max_message_bytes: int,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self._address, self._hello, self._listener = address, hello, listener
        self._secure = credentials is not None
        options = wire.channel_options(max_message_bytes)
        if credentials is None:
            self._open: Callable[[], grpc.aio.Channel] = lambda: grpc.aio.insecure_channel(address, options=options)
        else:
            self._open = lambda: grpc.aio.secure_channel(address, credentials, options=options)
        self._outbox: asyncio.Queue[DeviceMessage | None] | None = None
        self._welcomed_once = False

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
        async with self._open() as channel:
            while True:
                try:
                    await self._one_stream(channel)
                    pause = BACK_OFF_S[0]
                except grpc.aio.AioRpcError as error:
                    self._refused(error)
                    why = f"{self._address}: {error.code().name.lower()} ({error.details()}){self._hint(error)}"
                except (WireError, asyncio.TimeoutError) as error:
                    why = f"{self._address}: {error or 'no welcome'}"
                else:
                    why = f"{self._address}: stream closed"
                self._outbox = None
                self._listener.disconnected(why)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, BACK_OFF_S[1])

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
            raise HandshakeError(f"{self._address}: refused: {error.details()}") from error

    async def _one_stream(self, channel: grpc.aio.Channel) -> None:
        outbox: asyncio.Queue[DeviceMessage | None] = asyncio.Queue()
        outbox.put_nowait(self._hello)
        call = EdgeStub(channel).Stream(_outgoing(outbox))
        try:
            first = await asyncio.wait_for(call.read(), WELCOME_TIMEOUT_S)
            if first is grpc.aio.EOF:
                await call.wait_for_connection()
                raise WireError("closed before the welcome")
            welcome = wire.from_server_pb(first)
            if not isinstance(welcome, Welcome):
                raise WireError(f"expected a welcome, got {type(welcome).__name__}")
            self._welcomed_once = True
            self._outbox = outbox
            self._listener.connected(welcome)
            while (message := await call.read()) is not grpc.aio.EOF:
                self._listener.received(wire.from_server_pb(message))
            if not call.done() or await call.code() is not grpc.StatusCode.OK:
                log.info("%s: stream ended with %s", self._address, await call.code())
        finally:
            outbox.put_nowait(None)
            call.cancel()
            await call.code()  # a call that is left alone leaks


async def _outgoing(outbox: asyncio.Queue[DeviceMessage | None]) -> AsyncIterator[edge_pb2.DeviceMessage]:
    while (message := await outbox.get()) is not None:
        yield wire.to_device_pb(message)
