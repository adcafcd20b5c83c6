"""Streams that are given up end on the wire, whatever their device does: silence, a slow trickle, replies left unread."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.edge_server import connections
from isthmus.edge_server import service as services
from isthmus.edge_server.admission import HELLO_S
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto import messages as m
from live_server import live, running
from raw_http2 import END_STREAM, HEADERS, PREFACE, RST_STREAM, Peer, packed

PATIENCE_S = 30.0


@pytest.fixture
def service(served: Served, engine: Any) -> EdgeService:
    return EdgeService(served, engine)


async def beside(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a thread, as another process would be."""
    return await asyncio.to_thread(function, *arguments)


async def none_left(service: EdgeService) -> None:
    while service.metrics.registry.get_sample_value("isthmus_streams") != 0:
        await asyncio.sleep(0.05)


async def served_at(address: str, hello: m.Hello, frame: Any) -> None:
    """An honest device gets its answer."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = edge_pb2_grpc.EdgeStub(channel).Stream()
        for message in (hello, *frame(1)):
            await call.write(wire.to_device_pb(message))
        while not isinstance(wire.from_server_pb(await call.read()), m.Result):
            pass


def ends(peer: Peer, streams: set[int]) -> set[int]:
    """The streams among these that the server ends, by trailers or by a reset, until all are or the connection is."""
    ended: set[int] = set()
    for kind, flags, stream in peer.frames():
        if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            ended.add(stream)
        if ended >= streams:
            break
    return ended


def test_silent_streams_lock_nobody_out_and_are_ended(service: EdgeService, hello: m.Hello, frame: Any) -> None:
    async def check() -> None:
        async with running(service) as (address, _):
            peer = await beside(lambda: Peer(address, window=65_535))
            streams = {peer.open() for _ in range(100)}
            await served_at(address, hello, frame)
            assert await beside(ends, peer, streams) == streams
            peer.close()
            await none_left(service)

    live(check)


def test_a_stream_without_a_window_is_told_its_end_all_the_same(service: EdgeService, hello: m.Hello) -> None:
    """Trailers need no window, as long as no reply waits before them."""

    async def check() -> None:
        async with running(service) as (address, _):
            peer = await beside(lambda: Peer(address, window=0))
            stream = peer.open()
            assert await beside(ends, peer, {stream}) == {stream}
            await none_left(service)
            peer.close()

    live(check)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::]:0"])
def test_a_device_that_reads_nothing_loses_its_connection(
    service: EdgeService, hello: m.Hello, frame: Any, listen: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten of ten such streams once stayed on the wire for as long as their client liked, and were counted no more."""
    caplog.set_level("INFO")

    async def check() -> None:
        async with running(service, listen) as (address, _):
            address = f"127.0.0.1:{address.rpartition(':')[2]}"
            peer = await beside(lambda: Peer(address, window=0))
            greedy, quiet = peer.open(), peer.open()
            peer.say(quiet, hello)
            beats = [m.Heartbeat(n) for n in range(services.UNREAD + 10)]
            await beside(peer.say, greedy, hello, *beats)
            await beside(lambda: list(peer.frames()))  # to the connection's end
            peer.close()
            await none_left(service)
            await served_at(address, hello, frame)

    live(check)
    assert "'cam0' at 127.0.0.1:" in caplog.text
    assert "closed: unread: " in caplog.text
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


def test_one_reply_left_unread_is_enough_after_a_while(
    service: EdgeService, hello: m.Hello, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "UNREAD_S", 1.0)

    async def check() -> None:
        async with running(service) as (address, _):
            peer = await beside(lambda: Peer(address, window=0))
            await beside(peer.say, peer.open(), hello)
            await beside(lambda: list(peer.frames()))
            peer.close()
            await none_left(service)

    live(check)


@pytest.mark.parametrize("begin", [b"", PREFACE[:5], b"GET / HTTP/1.1\r\n"])
def test_a_trickle_of_bytes_is_no_connection(
    service: EdgeService, hello: m.Hello, frame: Any, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    """What never becomes HTTP/2 is ended; the limit is shortened here."""
    options = [
        (key, 3000 if key == "grpc.server_handshake_timeout_ms" else value)
        for key, value in wire.server_options(1 << 16)
    ]
    monkeypatch.setattr(wire, "server_options", lambda _: options)

    def trickle(address: str) -> None:
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(begin)
            while connection.recv(1 << 16):
                pass

    async def check() -> None:
        async with running(service) as (address, _):
            tricklers = [asyncio.create_task(beside(trickle, address)) for _ in range(4)]
            await served_at(address, hello, frame)
            await asyncio.gather(*tricklers)

    live(check)


def test_calls_that_are_never_finished_are_bounded_on_a_connection(
    service: EdgeService, hello: m.Hello, frame: Any
) -> None:
    """A call of one message whose message never comes is not even a stream of ours."""

    def refused(peer: Peer) -> int:
        calls = [peer.open() for _ in range(service.max_calls + 100)]
        assert len(calls) > 1000
        return sum(kind == RST_STREAM for kind, _, _ in itertools.takewhile(lambda f: f[2] != calls[-1], peer.frames()))

    async def check() -> None:
        async with running(service) as (address, _):
            peer = await beside(lambda: Peer(address, window=65_535, method="Describe"))
            assert await beside(refused, peer) >= 99
            await served_at(address, hello, frame)
            peer.close()

    live(check)


def test_a_hello_that_never_ends_is_no_hello(service: EdgeService, hello: m.Hello) -> None:
    async def trickle(peer: Peer, stream: int) -> None:
        for byte in packed(hello)[:-1]:
            await beside(peer.trickle, stream, bytes([byte]))
            await asyncio.sleep(0.2)

    async def check() -> None:
        async with running(service) as (address, _):
            peer = await beside(lambda: Peer(address, window=65_535))
            stream = peer.open()
            began_s = asyncio.get_running_loop().time()
            trickling = asyncio.create_task(trickle(peer, stream))
            assert await beside(ends, peer, {stream}) == {stream}
            assert asyncio.get_running_loop().time() - began_s >= HELLO_S
            trickling.cancel()
            peer.close()

    live(check)


@pytest.mark.parametrize(
    ("peer", "address", "name"),
    [
        ("ipv4:192.0.2.1:50551", "192.0.2.1", "192.0.2.1:50551"),
        ("ipv6:%5B2001:db8::1%5D:50551", "2001:db8::1", "[2001:db8::1]:50551"),
        ("ipv6:[::ffff:192.0.2.1]:7", "192.0.2.1", "[::ffff:192.0.2.1]:7"),
        ("unix:", "", ""),
    ],
)
def test_what_grpc_calls_a_peer_is_read(peer: str, address: str, name: str) -> None:
    assert (connections.address_of(peer), connections.name_of(peer)) == (address, name)


def test_a_connection_that_is_not_there_is_not_cut() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert not connections.cut("ipv4:127.0.0.1:1")
        assert not connections.cut("unix:")
