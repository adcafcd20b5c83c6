"""The transport and real servers: connections that fail name their cause, certificates change under a running agent."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.device.certificates import Certificates
from isthmus.device.transport import Transport
from isthmus.proto import edge_pb2 as pb
from isthmus.proto import wire
from isthmus.proto.messages import Hello, ServerMessage, Welcome
from made_certificates import SERVED_AS, made

WELCOME = pb.ServerMessage(welcome=pb.Welcome(server_id="edge", credits=8, max_layer_bytes=1 << 20)).SerializeToString()
HELLO = Hello("signs", bytes(32), 1, "device")
PATIENCE_S = 60.0


class Edge(grpc.GenericRpcHandler):
    """Says its welcome, and nothing more."""

    def __init__(self, *welcome: bytes) -> None:
        self._welcome = welcome

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._stream)

    async def _stream(self, asked: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        for message in self._welcome:
            yield message
        async for _ in asked:
            pass


class Heard:
    """What a transport tells its listener."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.transport: Transport | None = None
        """Which is dialled again whenever its stream has ended."""

    def connected(self, welcome: Welcome) -> None:
        self.told.put_nowait("connected")

    def received(self, message: ServerMessage) -> None:
        pass

    def disconnected(self, why: str) -> None:
        self.told.put_nowait(why)
        if self.transport is not None:
            asyncio.get_running_loop().call_later(0.05, self.transport.dial)

    async def next(self, wanted: Callable[[str], bool] = bool) -> str:
        while not wanted(told := await asyncio.wait_for(self.told.get(), PATIENCE_S)):
            pass
        return told


async def serving(edge: Edge, credentials: grpc.ServerCredentials | None, port: int = 0) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((edge,))
    where = f"{SERVED_AS}:{port}"
    bound = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    await server.start()
    return server, bound


def transport(host: str, port: int, heard: Heard, certs: Path | None) -> Transport:
    heard.transport = Transport(
        f"{host}:{port}",
        HELLO,
        heard,
        expected=wire.Expected(),
        max_message_bytes=1 << 20,
        certificates=None if certs is None else Certificates(certs),
    )
    heard.transport.dial()
    return heard.transport


def first_told(
    credentials: grpc.ServerCredentials | None, certs: Path | None, *, host: str = SERVED_AS, edge: Edge
) -> str:
    async def tried() -> str:
        server, port = await serving(edge, credentials)
        heard = Heard()
        running = asyncio.ensure_future(transport(host, port, heard, certs).run())
        try:
            return await heard.next()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop(None)

    return asyncio.run(tried())


@pytest.mark.parametrize(
    ("days", "advice"),
    [
        ({"server_days": -1000}, "the server's certificate has expired, this clock says 20"),
        ({"server_days": 30}, "the server's certificate is not yet valid, this clock says 20"),
        ({"device_days": -1000}, "our device.pem held until 20"),
        ({"device_days": 30}, "our device.pem holds from 20"),
        (
            {"name": "elsewhere"},
            "the server's certificate does not name localhost: make one with `isthmus certs init --host",
        ),
    ],
)
def test_the_advice_is_the_clock_where_it_is_the_clock(tmp_path: Path, days: dict[str, Any], advice: str) -> None:
    told = first_told(made(tmp_path, **days), tmp_path, edge=Edge(WELCOME))
    assert advice in told
    assert "one `isthmus certs init`" not in told
    assert "\n" not in told


def test_of_another_authority_the_advice_is_the_authority(tmp_path: Path) -> None:
    credentials = made(tmp_path)
    made(tmp_path)
    assert "must come from one `isthmus certs init`" in first_told(credentials, tmp_path, edge=Edge(WELCOME))


def test_a_server_that_says_nothing_is_named_with_the_time_that_it_had() -> None:
    assert first_told(None, None, edge=Edge()).endswith(": no welcome within 3 s")


@pytest.mark.parametrize("hup", [False, True])
def test_certificates_are_read_anew_without_a_restart(tmp_path: Path, hup: bool) -> None:
    async def rotated() -> None:
        heard = Heard()
        server, port = await serving(Edge(WELCOME), made(tmp_path))
        link = transport(SERVED_AS, port, heard, tmp_path)
        running = asyncio.ensure_future(link.run())
        await heard.next(lambda told: told == "connected")
        fresh = made(tmp_path)  # another authority on both sides
        if hup:
            link.reload()
            shutil.rmtree(tmp_path)  # what was read is used
        await asyncio.sleep(0.2)
        assert heard.told.empty(), "a stream that is open stays"
        await server.stop(None)
        server, _ = await serving(Edge(WELCOME), fresh, port)
        await heard.next(lambda told: told == "connected")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)

    asyncio.run(rotated())


def agent(*more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "isthmus.cli", "agent", "--insecure", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_sighup_kills_nobody_whenever_it_comes() -> None:
    process = agent("--server", "127.0.0.1:9")
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err


def test_a_second_sigterm_ends_it_at_once() -> None:
    """The frames that are away keep it for up to a minute, unless it is told again."""

    async def session() -> int:
        server, port = await serving(Edge(WELCOME), None)
        more = ["--policy", "always-offload", "--deadline", "60s", "--server", f"{SERVED_AS}:{port}"]
        process = agent(*more)
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        while process.poll() is None:  # the first may find it before it listens
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        await asyncio.to_thread(process.communicate)
        await server.stop(None)
        return process.returncode

    assert asyncio.run(asyncio.wait_for(session(), 2 * PATIENCE_S)) == 143


def test_the_server_dies_and_so_does_the_folder_and_the_agent_goes_on(tmp_path: Path) -> None:
    async def bereft() -> None:
        heard = Heard()
        server, port = await serving(Edge(WELCOME), made(tmp_path))
        running = asyncio.ensure_future(transport(SERVED_AS, port, heard, tmp_path).run())
        await heard.next(lambda told: told == "connected")
        await server.stop(None)
        shutil.rmtree(tmp_path)
        for _ in range(3):
            await heard.next()
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(bereft())
