"""Round trips of a 20 kB layer on loopback: the gRPC stream as Isthmus uses it, against raw asyncio TCP.

All run interleaved, so that they meet the same machine. `stream` carries the real wire messages with the real options
to an echo; its goal is raw + 0.15 ms at the median, which it misses (0.17 to 0.18 when last measured). `service` is the
real server with a tail that does nothing, and so includes checksum, acknowledgement, decoding 65,536 values, batching and
the hop to the tail's thread.

    python benchmarks/transport.py [--rounds 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.proto import codec, edge_pb2, edge_pb2_grpc, wire
from isthmus.proto.messages import Ack, Hello, Layer, Result, ServerMessage, Welcome
from isthmus.proto.vocabulary import ServerTimings

UP_BYTES, DOWN_BYTES = 20_000, 64
OUTPUTS = (0.0,) * (DOWN_BYTES // 4)
WARM_UP = 100
TARGET_OVER_RAW_MS = 0.15
SHAPE = (32, 32, 64)
"""Whose base layer takes about 20 kB when all levels are equally frequent."""


class NullEngine:
    """A tail that does nothing."""

    def run(self, features: NDArray[np.float32]) -> list[tuple[float, ...]]:
        """Features (B, H, W, C) to logits (B, K)."""
        return [OUTPUTS] * len(features)


class Echo(edge_pb2_grpc.EdgeServicer):
    """Answers each layer at once."""

    async def Stream(
        self, request_iterator: AsyncIterator[edge_pb2.DeviceMessage], context: grpc.aio.ServicerContext
    ) -> None:
        """One device's stream."""
        async for request in request_iterator:
            message = wire.from_device_pb(request)
            assert isinstance(message, Layer)
            await context.write(wire.to_server_pb(Result(message.frame_id, 1, OUTPUTS, ServerTimings())))


def served() -> tuple[Served, bytes]:
    """A codec of this size, and one frame's base layer."""
    features = np.random.default_rng(0).uniform(-7, 7, size=(8, *SHAPE)).astype(np.float32)
    config = codec.fit(features, (0.0,) * SHAPE[2], (1.0,))
    return Served("transport", bytes(32), config), codec.Codec(config).encode(features[0], 0)[0]


async def answer_raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof():
        try:
            await reader.readexactly(UP_BYTES)
        except asyncio.IncompleteReadError:
            break
        writer.write(bytes(DOWN_BYTES))
    writer.close()


async def host(ports: Connection) -> None:
    """The three servers, in a process of their own."""
    facts, _ = served()
    raw = await asyncio.start_server(answer_raw, "127.0.0.1", 0, limit=1 << 20)
    echo = grpc.aio.server(options=wire.server_options(UP_BYTES + 1024))
    edge_pb2_grpc.add_EdgeServicer_to_server(Echo(), echo)
    echo_port = echo.add_insecure_port("127.0.0.1:0")
    limits = Limits(frames_per_s=1e6, bytes_per_s=1e9)  # one frame after another, as fast as they come back
    service, _, address = bind(EdgeService(facts, NullEngine(), limits=limits), "127.0.0.1:0", None)
    await echo.start()
    await service.start()
    ports.send((raw.sockets[0].getsockname()[1], echo_port, int(address.rpartition(":")[2])))
    await asyncio.get_running_loop().run_in_executor(None, ports.recv)
    await asyncio.gather(echo.stop(1), service.stop(1))
    raw.close()


def host_process(ports: Connection) -> None:
    asyncio.run(host(ports))


Trip = Callable[[int], Awaitable[None]]


async def raw_trip(port: int) -> Trip:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = np.random.default_rng(1).bytes(UP_BYTES)

    async def trip(_: int) -> None:
        writer.write(payload)
        await reader.readexactly(DOWN_BYTES)

    return trip


async def grpc_trip(channel: grpc.aio.Channel, payload: bytes, hello: Hello | None) -> Trip:
    call = edge_pb2_grpc.EdgeStub(channel).Stream()
    crc = codec.checksum(payload)

    async def hear() -> ServerMessage:
        message: edge_pb2.ServerMessage = await call.read()
        return wire.from_server_pb(message)

    if hello is not None:
        await call.write(wire.to_device_pb(hello))
        assert isinstance(await hear(), Welcome)

    async def trip(frame_id: int) -> None:
        await call.write(wire.to_device_pb(Layer(frame_id, 0, True, 1.0, payload, crc)))
        while isinstance(message := await hear(), Ack):
            pass
        assert isinstance(message, Result), message

    return trip


async def measure(rounds: int, ports: tuple[int, int, int]) -> dict[str, list[float]]:
    facts, base = served()
    hello = Hello(facts.name, facts.sha256, codec.CODEC_VERSION, "benchmark")
    options = wire.channel_options(UP_BYTES + 1024)
    echo, service = (grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for port in ports[1:])
    async with echo, service:
        return await interleave(
            rounds,
            {
                "raw": await raw_trip(ports[0]),
                "stream": await grpc_trip(echo, np.random.default_rng(1).bytes(UP_BYTES), None),
                "service": await grpc_trip(service, base, hello),
            },
        )


async def interleave(rounds: int, trips: dict[str, Trip]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in trips}
    for frame_id in range(WARM_UP + rounds):
        for name, trip in trips.items():
            began = time.perf_counter()
            await trip(frame_id)
            if frame_id >= WARM_UP:
                times[name].append(time.perf_counter() - began)
    return times


def report(times: dict[str, list[float]]) -> dict[str, object]:
    rows = {
        name: {f"p{q}_ms": round(1000 * float(np.percentile(seconds, q)), 3) for q in (50, 99)}
        for name, seconds in times.items()
    }
    over = round(rows["stream"]["p50_ms"] - rows["raw"]["p50_ms"], 3)
    return {
        "benchmark": "transport",
        "up_bytes": UP_BYTES,
        "down_bytes": DOWN_BYTES,
        "service_up_bytes": len(served()[1]),
        "rounds": len(times["raw"]),
        **rows,
        "stream_over_raw_p50_ms": over,
        "target_over_raw_p50_ms": TARGET_OVER_RAW_MS,
        "met": over <= TARGET_OVER_RAW_MS,
        "grpcio": grpc.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=host_process, args=(theirs,), daemon=True)
    process.start()
    times = asyncio.run(measure(rounds, ours.recv()))
    ours.send("stop")
    process.join(10)
    print(json.dumps(report(times), indent=2))


if __name__ == "__main__":
    main()
