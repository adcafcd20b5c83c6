"""The transport against a small real gRPC server that does what a test says: welcomes, refuses, falls silent, ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.device import transport
from isthmus.device.certificates import Certificates as DeviceCertificates
from isthmus.device.transport import Transport
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.security import init
from isthmus.proto import edge_pb2, wire
from isthmus.proto.edge_pb2_grpc import EdgeServicer, add_EdgeServicer_to_server
from isthmus.proto.errors import HandshakeError
from isthmus.proto.messages import (
    DeviceMessage,
    Heartbeat,
    Hello,
    ServerHeartbeat,
    ServerMessage,
    Welcome,
)

PATIENCE_S = 20.0
PAUSE_S = 0.02
"""Shorter than a device's between two attempts."""
HELLO = Hello("tiny", bytes(32), 1, "cam0")
WELCOME = Welcome("edge", 8, 1000)
MAX_BYTES = 1 << 16


class Stream:
    """One stream as the server's script sees it."""

    def __init__(self, requests: AsyncIterator[edge_pb2.DeviceMessage], context: Any) -> None:
        self._requests, self._context = requests, context

    async def hear(self) -> DeviceMessage:
        return wire.from_device_pb(await anext(self._requests))

    async def say(self, *messages: ServerMessage) -> None:
        for message in messages:
            await self._context.write(wire.to_server_pb(message))

    async def say_nonsense(self) -> None:
        await self._context.write(edge_pb2.ServerMessage())

    async def refuse(self, code: grpc.StatusCode, why: str) -> None:
        await self._context.abort(code, why)

    async def welcome(self) -> DeviceMessage:
        """Take the device on; what it said first."""
        first = await self.hear()
        await self.say(WELCOME)
        return first

    async def stay(self) -> list[DeviceMessage]:
        """Everything that comes until the device hangs up."""
        return [wire.from_device_pb(message) async for message in self._requests]


Script = Callable[[Stream], Awaitable[Any]]


class Scripted(EdgeServicer):
    """Plays one script for each stream, the last one for all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts, self.streams = scripts, 0

    async def Stream(self, requests: AsyncIterator[edge_pb2.DeviceMessage], context: Any) -> None:
        script = self._scripts[min(self.streams, len(self._scripts) - 1)]
        self.streams += 1
        await script(Stream(requests, context))


class Listener:
    """Keeps what the transport says in order; `until` waits for an event of a kind."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[object] = asyncio.Queue()
        self.stream: Transport | None = None
        """Which is dialled again whenever its stream has ended."""

    def connected(self, welcome: Welcome) -> None:
        self.events.put_nowait(welcome)

    def received(self, message: ServerMessage) -> None:
        self.events.put_nowait(message)

    def disconnected(self, why: str) -> None:
        self.events.put_nowait(why)
        if self.stream is not None:
            asyncio.get_running_loop().call_later(PAUSE_S, self.stream.dial)

    async def until(self, kind: type[Any]) -> Any:
        while not isinstance(event := await asyncio.wait_for(self.events.get(), PATIENCE_S), kind):
            pass
        return event


@contextlib.asynccontextmanager
async def serving(
    *scripts: Script, port: int = 0, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_EdgeServicer_to_server(Scripted(*scripts), server)
    where = f"127.0.0.1:{port}"
    bound = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def running(
    address: str, certificates: DeviceCertificates | None = None
) -> AsyncIterator[tuple[Transport, Listener, asyncio.Task[None]]]:
    listener = Listener()
    stream = Transport(
        address, HELLO, listener, expected=wire.Expected(), max_message_bytes=MAX_BYTES, certificates=certificates
    )
    listener.stream = stream
    stream.dial()
    task = asyncio.create_task(stream.run())
    try:
        yield stream, listener, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def live(check: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), 3 * PATIENCE_S))


async def stay(stream: Stream) -> None:
    await stream.welcome()
    await stream.stay()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_the_hello_comes_first_and_messages_pass_both_ways() -> None:
    heard: list[DeviceMessage] = []

    async def echo(stream: Stream) -> None:
        heard.append(await stream.welcome())
        while isinstance(message := await stream.hear(), Heartbeat):
            await stream.say(ServerHeartbeat(message.sequence))

    async def check() -> None:
        async with serving(echo) as address, running(address) as (stream, listener, _):
            assert await listener.until(Welcome) == WELCOME
            stream.send(Heartbeat(1))
            stream.send(Heartbeat(2))
            assert [(await listener.until(ServerHeartbeat)).sequence for _ in range(2)] == [1, 2]
        assert heard == [HELLO]

    live(check)


def test_what_is_sent_without_a_stream_is_dropped() -> None:
    """Before the welcome, and between two streams: the session has answered those frames."""
    heard: list[list[DeviceMessage]] = []

    async def end_at_once(stream: Stream) -> None:
        await stream.welcome()

    async def keep(stream: Stream) -> None:
        await stream.welcome()
        await stream.say(ServerHeartbeat(0))
        heard.append(await stream.stay())

    async def check() -> None:
        async with serving(end_at_once, keep) as address, running(address) as (stream, listener, _):
            stream.send(Heartbeat(1))
            await listener.until(str)
            stream.send(Heartbeat(2))
            await listener.until(ServerHeartbeat)
            stream.send(Heartbeat(3))
            stream.hang_up()  # after all that was sent before
            await listener.until(str)
        assert heard[0] == [Heartbeat(3)]

    live(check)


def test_it_waits_for_a_server_that_is_not_there_yet() -> None:
    async def check() -> None:
        port = free_port()
        async with running(f"127.0.0.1:{port}") as (_, listener, _):
            assert f"127.0.0.1:{port}: unavailable (" in await listener.until(str)
            async with serving(stay, port=port):
                assert await listener.until(Welcome) == WELCOME

    live(check)


def test_a_server_that_goes_away_and_comes_back_is_found_again() -> None:
    async def check() -> None:
        port = free_port()
        async with running(f"127.0.0.1:{port}") as (_, listener, task):
            for _ in range(2):
                async with serving(stay, port=port):
                    await listener.until(Welcome)
                assert (await listener.until(str)).startswith(f"127.0.0.1:{port}: ")
            assert not task.done()

    live(check)


async def end(stream: Stream) -> None:
    await stream.welcome()


async def fail(stream: Stream) -> None:
    await stream.welcome()
    await stream.refuse(grpc.StatusCode.INTERNAL, "out of everything")


async def end_early(stream: Stream) -> None:
    await stream.hear()


async def beat_first(stream: Stream) -> None:
    await stream.hear()
    await stream.say(ServerHeartbeat(1))
    await stream.stay()


async def say_nonsense(stream: Stream) -> None:
    await stream.say_nonsense()
    await stream.stay()


async def crowded(stream: Stream) -> None:
    await stream.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "1 streams are open")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (end, "stream closed"),
        (fail, r"internal \(out of everything\)"),
        (end_early, "closed before the welcome"),
        (beat_first, "expected a welcome, got ServerHeartbeat"),
        (say_nonsense, "server message: "),
        (crowded, r"resource_exhausted \(1 streams are open\)"),
    ],
    ids=["end", "fail", "end-early", "beat-first", "nonsense", "crowded"],
)
def test_however_a_stream_ends_the_reason_names_the_server_and_the_next_one_is_opened(script: Script, why: str) -> None:
    async def check() -> None:
        async with serving(script, stay) as address, running(address) as (_, listener, _):
            assert re.match(f"{address}: {why}", await listener.until(str))
            assert await listener.until(Welcome) == WELCOME

    live(check)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(stream: Stream) -> None:
        await stream.stay()

    async def check() -> None:
        monkeypatch.setattr(transport, "WELCOME_TIMEOUT_S", 0.2)
        async with serving(say_nothing) as address, running(address) as (_, listener, _):
            assert await listener.until(str) == f"{address}: no welcome within 0.2 s"
            assert await listener.until(str) == f"{address}: no welcome within 0.2 s"

    live(check)


async def refuse(stream: Stream) -> None:
    await stream.hear()
    await stream.refuse(grpc.StatusCode.FAILED_PRECONDITION, "bundle 00: this server serves 'other'")


def test_a_refused_hello_ends_the_run_and_says_why() -> None:
    async def check() -> None:
        async with serving(refuse) as address, running(address) as (_, listener, task):
            with pytest.raises(HandshakeError, match=f"^{address}: refused: bundle 00: this server serves 'other'$"):
                await asyncio.wait_for(task, PATIENCE_S)
            assert listener.events.empty(), "nobody was connected"

    live(check)


def test_a_refusal_in_mid_run_is_no_end() -> None:
    """Another bundle was put on the server while the device ran: it goes on alone, and asks again."""

    async def check() -> None:
        async with serving(end, refuse, stay) as address, running(address) as (_, listener, task):
            assert await listener.until(Welcome) == WELCOME
            assert "stream closed" in await listener.until(str)
            assert "failed_precondition (bundle 00" in await listener.until(str)
            assert await listener.until(Welcome) == WELCOME
            assert not task.done()

    live(check)


def test_hanging_up_ends_the_stream_and_dialling_opens_another() -> None:
    async def check() -> None:
        async with serving(stay) as address, running(address) as (stream, listener, _):
            stream.hang_up()  # there is none yet: nothing happens
            for _ in range(3):
                await listener.until(Welcome)
                stream.hang_up()
                assert "stream closed" in await listener.until(str)

    live(check)


def test_a_run_that_is_cancelled_hangs_up() -> None:
    async def check() -> None:
        gone = asyncio.Event()

        async def watch(stream: Stream) -> None:
            try:
                await stay(stream)
            finally:
                gone.set()

        async with serving(watch) as address:
            async with running(address) as (_, listener, _):
                await listener.until(Welcome)
                assert not gone.is_set()
            await asyncio.wait_for(gone.wait(), PATIENCE_S)

    live(check)


@pytest.mark.parametrize("lacking", ["server", "device"])
def test_a_half_without_tls_is_told_apart_from_a_dead_one(lacking: str, tmp_path: Path) -> None:
    init(tmp_path, [])

    async def check() -> None:
        theirs = Certificates(tmp_path).credentials() if lacking == "device" else None
        ours = DeviceCertificates(tmp_path) if lacking == "server" else None
        async with serving(stay, credentials=theirs) as address, running(address, ours) as (_, listener, _):
            hint = "does not speak plaintext" if lacking == "device" else "one `isthmus certs init`"
            while hint not in (said := await listener.until(str)):
                assert said.startswith(f"{address}: unavailable")  # gRPC may name the handshake at its second try only

    live(check)
