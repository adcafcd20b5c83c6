"""An agent and a server that lies: whatever it sends costs at most the frame it is about, and the agent can be ended."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.device.capture.sources import open_source
from isthmus.device.config import AgentConfig
from isthmus.device.run import answer_all, open_device
from isthmus.proto import edge_pb2 as pb
from isthmus.proto.record import FrameRecord

FRAMES = 30
BIG = 2**32 - 1
OVERLOADED = {"overloaded"}
"""What a busy machine may do to a frame; no server can."""
HONEST = pb.ServerMessage(welcome=pb.Welcome(server_id="edge", credits=8, max_layer_bytes=1 << 20)).SerializeToString()


class Liar(grpc.GenericRpcHandler):
    """Says `welcome`, and to every layer that comes whatever `lies` makes of it, as bytes."""

    def __init__(self, lies: Callable[[int], Iterable[bytes]], welcome: bytes = HONEST) -> None:
        self._lies, self._welcome = lies, welcome
        self.streams = 0

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._stream)

    async def _stream(self, asked: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.streams += 1
        yield self._welcome
        async for raw in asked:
            message = pb.DeviceMessage.FromString(raw)
            if message.WhichOneof("kind") == "layer":
                for lie in self._lies(message.layer.frame):
                    yield lie


@asynccontextmanager
async def lying(liar: Liar) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((liar,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def answers(liar: Liar, frames: int = FRAMES) -> list[FrameRecord]:
    """The answers of an agent that sends every frame to `liar`."""
    rows: list[FrameRecord] = []
    async with lying(liar) as address:
        config = AgentConfig(
            server=address, insecure=True, policy="always-offload", fps=20, deadline_s=1.0, frames=frames
        )
        await asyncio.wait_for(answer_all(open_device(config), open_source("generated:3"), rows.append), 60)
    return rows


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the agent logged; gRPC's server, the liar's, says things of its own."""
    return [record for record in caplog.records if record.name.startswith("isthmus.")]


def said(**kind: Any) -> bytes:
    return pb.ServerMessage(**kind).SerializeToString()


def result(frame: int, **fields: Any) -> bytes:
    given: dict[str, Any] = {"frame": frame, "layers_used": 2, "outputs": [0.0] * 25} | fields
    return said(result=pb.Result(**given))


LIES: dict[str, Callable[[int], list[bytes]]] = {
    "layers used": lambda n: [result(n, layers_used=BIG)],
    "20 logits": lambda n: [result(n, outputs=[0.0] * 20)],
    "3001 logits": lambda n: [result(n, outputs=[0.0] * 3001)],
    "label 60000": lambda n: [result(n, outputs=[], packed=b"\x60\xea" * 16 + bytes(68))],
    "a huge rest": lambda n: [result(n, outputs=[], packed=bytes(96) + b"\x00\x00\x00\x60")],
    "not finite": lambda n: [result(n, outputs=[float("nan")] * 25)],
    "no bytes of a message": lambda n: [b"\xff\xff\xff\xff"],
    "empty": lambda n: [b""],
    "timings": lambda n: [result(n, receive_us=BIG, queue_us=BIG, tail_us=BIG, send_us=BIG)],
    "acks": lambda n: [said(ack=pb.Ack(frame=BIG, layer=BIG)), said(ack=pb.Ack(frame=n + 1, layer=1))] * 50,
    "busy for an hour": lambda n: [said(busy=pb.Busy(frame=n, retry_us=BIG))],
    "invalid": lambda n: [said(invalid=pb.Invalid(frame=n, why="x\n2026-01-01 W isthmus: forged" * 1000))],
    "a load": lambda n: [said(load=pb.Load(queue=BIG, wait_us=BIG, tail_us=BIG), late=pb.Late(frame=n))],
    "drain": lambda n: [said(drain=pb.Drain(grace_us=BIG))],
    "another welcome": lambda n: [said(welcome=pb.Welcome(credits=BIG))],
    "too large": lambda n: [bytes(1 << 20)],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_costs_no_answer(lie: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = asyncio.run(answers(Liar(LIES[lie])))
    assert sorted(row.frame_id for row in rows) == list(range(FRAMES))
    assert "server" not in {row.source.value for row in rows}
    assert {row.reason.value for row in rows if row.label is None} <= OVERLOADED
    logged = ours(caplog)
    assert not any(record.exc_info for record in logged)
    assert max((len(record.getMessage()) for record in logged), default=0) < 450
    assert not any("\n" in record.getMessage() for record in logged)
    assert len(logged) < 60  # in seconds, some of them a connection that is ended and comes again


def test_the_frames_that_a_lie_is_not_about_are_answered_by_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """Every third frame gets a lie; nothing that is not about them is lost, and the stream stays."""

    def some(frame: int) -> list[bytes]:
        return [result(frame)] if frame % 3 else [result(frame, layers_used=BIG), b"\xff\xff"]

    liar = Liar(some)
    rows = asyncio.run(answers(liar))
    assert liar.streams == 1
    by_lie = {row.source.value for row in rows if row.frame_id % 3 == 0}
    by_truth = [row.source.value for row in rows if row.frame_id % 3]
    assert by_lie == {"exit"}
    assert (
        by_truth.count("server") >= len(by_truth) // 2
    )  # the first come before the connection, a busy machine may cost some
    assert caplog.text.count("layers, this bundle has") == 1  # once a minute, however often


@pytest.mark.parametrize(
    "welcome",
    [
        b"\xff",
        b"",
        said(welcome=pb.Welcome(credits=8)),
        said(ack=pb.Ack()),
        said(welcome=pb.Welcome(max_layer_bytes=BIG)),
    ],
)
def test_a_welcome_that_is_none_is_a_connection_that_did_not_come_about(welcome: bytes) -> None:
    rows = asyncio.run(answers(Liar(lambda _: [], welcome), 10))
    assert "disconnected" in {row.reason.value for row in rows}
    assert {row.reason.value for row in rows} <= {"disconnected", *OVERLOADED}


def test_sigterm_ends_an_agent_that_is_lied_to() -> None:
    async def session() -> tuple[int, list[dict[str, Any]]]:
        async with lying(Liar(lambda n: [result(n, layers_used=BIG), b"\xff"])) as address:
            arguments = ["--server", address, "--insecure", "--policy", "always-offload", "--deadline", "400ms"]
            command = [sys.executable, "-m", "isthmus.cli", "agent", *arguments]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert process.stdout is not None
            rows = [json.loads(await process.stdout.readline()) for _ in range(30)]
            process.send_signal(signal.SIGTERM)
            rest, _ = await asyncio.wait_for(process.communicate(), 60)
            return process.returncode or 0, [*rows, *map(json.loads, rest.splitlines())]

    code, rows = asyncio.run(session())
    assert code == 0
    assert sorted(row["frame_id"] for row in rows) == list(range(len(rows)))
    assert "server" not in {row["source"] for row in rows}
