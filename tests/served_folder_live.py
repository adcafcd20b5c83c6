"""A server with a folder of bundles, in this process, and devices of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.repository.loading import Loader
from isthmus.edge_server.repository.push import MayPush, Receiver
from isthmus.edge_server.repository.repository import Repository
from isthmus.edge_server.service import EdgeService
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto import messages as m
from isthmus.proto.codec import CODEC_VERSION
from live_server import running
from tiny_bundles import hash_of

PATIENCE_S = 30.0
STATES = health_pb2.HealthCheckResponse


class Place:
    """A server with a folder of bundles."""

    def __init__(self, tmp_path: Path, limits: Limits | None = None) -> None:
        self.root, self.copies = tmp_path / "models", tmp_path / "copies"
        self.root.mkdir(exist_ok=True)
        self.service = EdgeService(limits=limits or Limits())
        loader = Loader(1, "onnx", 2, self.service.max_message_bytes, self.copies)
        self.repository = Repository(self.root, self.service, loader)

    @contextlib.asynccontextmanager
    async def serving(self, shown: Certificates | None = None) -> AsyncIterator[str]:
        await self.repository.begin()
        async with running(self.service, shown=shown, repository=self.repository) as (address, _):
            yield address

    def may_push(self, may: MayPush, shown: Certificates | None = None) -> None:
        revoked = (lambda: shown.revoked) if shown is not None else (lambda: frozenset[str]())
        self.service.on_push = Receiver(self.repository, may, revoked).receive

    async def until(self, condition: Any) -> None:
        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), PATIENCE_S)

    @property
    def offered(self) -> set[bytes]:
        return {served.sha256 for served in self.service.offered}

    def count(self, state: str) -> float | None:
        return self.service.metrics.registry.get_sample_value("isthmus_bundles", {"state": state})


class Device:
    """A stream with one bundle."""

    def __init__(self, channel: grpc.aio.Channel, folder: Path) -> None:
        self._call: Any = edge_pb2_grpc.EdgeStub(channel).Stream()
        self._hello = m.Hello("tiny", hash_of(folder), CODEC_VERSION, "cam0")

    async def greeted(self) -> Device:
        await self._call.write(wire.to_device_pb(self._hello))
        assert isinstance(await self.hear(), m.Welcome)
        return self

    async def hear(self) -> m.ServerMessage:
        return wire.from_server_pb(await asyncio.wait_for(self._call.read(), PATIENCE_S))

    async def answered(self, layers: tuple[m.Layer, ...]) -> None:
        for layer in layers:
            await self._call.write(wire.to_device_pb(layer))
        while not isinstance(message := await self.hear(), m.Result):
            assert isinstance(message, m.Ack)
        assert message.frame_id == layers[0].frame_id

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(wire.to_device_pb(self._hello))
            while await asyncio.wait_for(self._call.read(), PATIENCE_S) is not grpc.aio.EOF:
                pass
        return await self._call.code(), await self._call.details()

    async def leave(self) -> None:
        await self._call.done_writing()
        assert await self._call.code() is grpc.StatusCode.OK


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub  # its published types know no methods
    return int((await stub(channel).Check(health_pb2.HealthCheckRequest(service=service))).status)
