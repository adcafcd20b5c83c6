"""What a probe is told of a running server: that it starts, serves, fails, drains."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import grpc.aio
from numpy.typing import NDArray

from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto import messages as m
from isthmus.proto.tasks.task import Packed
from live_server import live, running


def probed(port: int, path: str = "/readyz") -> str:
    try:
        return str(urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


async def told(port: int, what: str) -> None:
    while await asyncio.to_thread(probed, port) != f"{what}\n":
        await asyncio.sleep(0.02)


class Moody:
    """A tail that does what it is told: answers, fails, or waits."""

    def __init__(self) -> None:
        self.fails, self.gate = False, threading.Event()
        self.gate.set()

    def run(self, frames: Sequence[NDArray[Any]]) -> list[Packed]:
        self.gate.wait(30)
        if self.fails:
            raise ValueError("out of memory")
        return [(1.0, -1.0)] * len(frames)


def test_the_truth_from_start_to_drain(served: Served, hello: m.Hello, frame: Any) -> None:
    async def check() -> None:
        engine = Moody()
        service = EdgeService(served, engine)
        port = service.metrics.serve("127.0.0.1:0")
        await told(port, "starting")
        async with running(service, grace_s=20.0) as (address, task), grpc.aio.insecure_channel(address) as channel:
            await told(port, "ok")
            call: Any = edge_pb2_grpc.EdgeStub(channel).Stream()
            await call.write(wire.to_device_pb(hello))
            await call.read()
            engine.fails = True
            frames = iter(range(1000))

            async def answered() -> None:
                for layer in frame(next(frames)):
                    await call.write(wire.to_device_pb(layer))
                while not isinstance(wire.from_server_pb(await call.read()), m.Result | m.Invalid):
                    pass

            for _ in range(3):
                await answered()
            await told(port, "every tail fails on every batch")
            assert await asyncio.to_thread(probed, port, "/healthz") == "ok\n", "a new process would fail as well"
            engine.fails = False
            await answered()
            await told(port, "ok")
            engine.gate.clear()
            for layer in frame(next(frames)):
                await call.write(wire.to_device_pb(layer))
            while not service._tasks:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await told(port, "draining")
            assert await asyncio.to_thread(probed, port, "/healthz") == "ok\n"
            engine.gate.set()
            await task
        service.metrics.close()

    live(check)
