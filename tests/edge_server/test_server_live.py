"""The real gRPC server on loopback, with an engine of three lines: what only a real stream shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.server import bind, serve
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.proto import edge_pb2, edge_pb2_grpc, wire
from isthmus.proto import messages as m
from isthmus.proto.errors import BindError, ConfigError, SecurityError
from isthmus.proto.tasks.task import Packed
from live_server import live, running

PATIENCE_S = 20.0
Stream = grpc.aio.StreamStreamCall[edge_pb2.DeviceMessage, edge_pb2.ServerMessage]


class Device:
    """One stream as a device sees it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Stream = edge_pb2_grpc.EdgeStub(channel).Stream()

    async def say(self, *messages: m.DeviceMessage) -> None:
        for message in messages:
            await self.call.write(wire.to_device_pb(message))

    async def hear(self) -> m.ServerMessage:
        read: Any = await asyncio.wait_for(self.call.read(), PATIENCE_S)
        return wire.from_server_pb(read)

    async def hear_until(self, kind: type[Any]) -> Any:
        while not isinstance(message := await self.hear(), kind):
            pass
        return message

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await asyncio.wait_for(self.call.read(), PATIENCE_S) is not grpc.aio.EOF:
                pass
        return await self.call.code(), await self.call.details()


@pytest.fixture(autouse=True)
def blameless(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a device does, or a stream that we close, is no fault of the server's, and leaves no traceback in its log."""
    yield
    if "broken" not in request.node.name:
        assert not [record.getMessage() for record in caplog.records if record.exc_info]


@pytest.fixture
def service(served: Served, engine: Any) -> EdgeService:
    return EdgeService(served, engine)


def test_frames_are_answered(service: EdgeService, hello: m.Hello, frame: Any) -> None:
    async def check() -> None:
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            device = Device(channel)
            await device.say(hello)
            assert isinstance(await device.hear(), m.Welcome)
            for frame_id in range(5):
                await device.say(*frame(frame_id))
                result = await device.hear_until(m.Result)
                assert (result.frame_id, result.layers_used, len(result.outputs)) == (frame_id, 2, 2)
            await device.say(m.Heartbeat(9))
            assert (await device.hear_until(m.ServerHeartbeat)).sequence == 9
            page = await counters(service.metrics)
            assert page['isthmus_requests_total{bundle="tiny",device="cam0",outcome="result"}'] == 5
            assert page['isthmus_requests_total{bundle="tiny",device="cam0",outcome="late"}'] == 0
            assert page['isthmus_layers_total{bundle="tiny"}'] == 10
            assert page["isthmus_streams"] == 1
            assert page['isthmus_batch_size_count{bundle="tiny"}'] == 5
            await device.call.done_writing()
            assert (await device.ending())[0] is grpc.StatusCode.OK

    live(check)


async def counters(metrics: Metrics) -> dict[str, float]:
    port = metrics.serve("127.0.0.1:0")
    url = f"http://127.0.0.1:{port}/metrics"
    text = await asyncio.get_running_loop().run_in_executor(None, lambda: urllib.request.urlopen(url).read().decode())
    metrics.close()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def test_a_mismatch_is_refused_at_hello(service: EdgeService, hello: m.Hello) -> None:
    async def check() -> None:
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            device = Device(channel)
            await device.say(m.Hello("signs", b"\x89" * 32, hello.codec_version, "cam0"))
            code, why = await device.ending()
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert why.startswith("hello: bundle signs 898989898989…, this server serves tiny 000102030405…")

    live(check)


def empty() -> edge_pb2.DeviceMessage:
    return edge_pb2.DeviceMessage()


def huge() -> edge_pb2.DeviceMessage:
    return edge_pb2.DeviceMessage(layer=edge_pb2.Layer(payload=bytes(1_000_000)))


@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (empty, {grpc.StatusCode.INVALID_ARGUMENT}),
        (huge, {grpc.StatusCode.RESOURCE_EXHAUSTED}),
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_what_breaks_the_protocol_ends_that_stream_only(
    service: EdgeService, hello: m.Hello, frame: Any, make: Any, codes: Any, greeted: bool
) -> None:
    async def check() -> None:
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            good, bad = Device(channel), Device(channel)
            await good.say(hello)
            await good.hear_until(m.Welcome)
            if greeted:
                await bad.say(hello)
                await bad.hear_until(m.Welcome)
            await bad.call.write(make())
            assert (await bad.ending())[0] in codes
            await good.say(*frame(1))
            assert (await good.hear_until(m.Result)).frame_id == 1

    live(check)


def test_bytes_that_are_no_message_end_that_stream_only(service: EdgeService, hello: m.Hello, frame: Any) -> None:
    async def check() -> None:
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            good = Device(channel)
            await good.say(hello)
            await good.hear_until(m.Welcome)
            raw: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream("/isthmus.v1.Edge/Stream")()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await raw.write(b"\xff\xff\xff")
            assert await raw.code() is grpc.StatusCode.INVALID_ARGUMENT
            await good.say(*frame(1))
            assert (await good.hear_until(m.Result)).frame_id == 1

    live(check)


def test_one_stream_too_many(served: Served, engine: Any, hello: m.Hello) -> None:
    async def check() -> None:
        service = EdgeService(served, engine, limits=Limits(streams=1))
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            first = Device(channel)
            await first.say(hello)
            await first.hear_until(m.Welcome)
            second = Device(channel)
            await second.say(hello)
            code, why = await second.ending()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "max_streams = 1" in why
            first.call.cancel()
            third = Device(channel)  # the place is free again, after a moment
            while (again := await refused(third, hello)) is not None:
                assert again is grpc.StatusCode.RESOURCE_EXHAUSTED
                third = Device(channel)

    live(check)


async def refused(device: Device, hello: m.Hello) -> grpc.StatusCode | None:
    try:
        await device.say(hello)
        await device.hear()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return await device.call.code()
    return None if not device.call.done() else await device.call.code()


def test_a_device_that_vanishes_leaves_nothing_behind(
    service: EdgeService, hello: m.Hello, frame: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with running(service, grace_s=5.0) as (address, _):
            for abruptly in (True, False):
                async with grpc.aio.insecure_channel(address) as channel:
                    device = Device(channel)
                    await device.say(hello, *frame(1))
                    await device.hear_until(m.Result)
                    if abruptly:
                        device.call.cancel()
            async with grpc.aio.insecure_channel(address) as channel:
                stub = edge_pb2_grpc.EdgeStub(channel)
                while service.metrics.registry.get_sample_value("isthmus_streams") != 0:
                    await stub.Describe(edge_pb2.DescribeRequest())
                counted = service.metrics.registry.get_sample_value(
                    "isthmus_requests_total", {"bundle": "tiny", "device": "cam0", "outcome": "result"}
                )
                assert counted == 2

    live(check)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_sigterm_drains(served: Served, hello: m.Hello, frame: Any) -> None:
    async def check() -> None:
        engine = Held()
        service = EdgeService(served, engine)
        engine.gate.clear()
        async with running(service, grace_s=5.0) as (address, task), grpc.aio.insecure_channel(address) as channel:
            device, other = Device(channel), Device(channel)
            for greeting in (device, other):
                await greeting.say(hello)
                await greeting.hear_until(m.Welcome)
            await device.say(*frame(1))
            await device.hear_until(m.Ack)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (await device.hear_until(m.Drain)).grace_s == 5.0
            assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
            await device.say(*frame(2))
            assert (await device.hear_until(m.Busy)).frame_id == 2
            assert (await Device(channel).ending())[0] is grpc.StatusCode.UNAVAILABLE
            engine.gate.set()
            assert (await device.hear_until(m.Result)).frame_id == 1
            assert (await device.ending())[0] is grpc.StatusCode.UNAVAILABLE
            assert (await other.ending())[0] is grpc.StatusCode.UNAVAILABLE
            await asyncio.wait_for(task, PATIENCE_S)

    live(check)


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub  # its published types know no methods
    return int((await stub(channel).Check(health_pb2.HealthCheckRequest(service=service))).status)


class Held:
    """An engine that waits at its gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def run(self, frames: Sequence[NDArray[Any]]) -> list[Packed]:
        assert self.gate.wait(PATIENCE_S)
        return [(0.0, 0.0)] * len(frames)


class Broken:
    """An engine that fails once it is warm."""

    warm = True

    def run(self, frames: Sequence[NDArray[Any]]) -> list[Packed]:
        if not self.warm:
            raise RuntimeError("out of everything")
        return [(0.0, 0.0)] * len(frames)


def test_a_failing_engine_costs_its_batch_only(served: Served, hello: m.Hello, frame: Any) -> None:
    async def check() -> None:
        engine = Broken()
        service = EdgeService(served, engine)
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            device = Device(channel)
            engine.warm = False
            await device.say(hello, *frame(1))
            assert (await device.hear_until(m.Invalid)).frame_id == 1
            engine.warm = True
            await device.say(*frame(2))
            assert (await device.hear_until(m.Result)).frame_id == 2

    live(check)


def test_describe_health_and_reflection(service: EdgeService, served: Served) -> None:
    async def check() -> None:
        async with (
            running(service, debug=True, grace_s=5.0) as (address, _),
            grpc.aio.insecure_channel(address) as channel,
        ):
            description = await edge_pb2_grpc.EdgeStub(channel).Describe(edge_pb2.DescribeRequest())
            assert (description.bundle_name, description.bundle_sha256) == ("tiny", served.sha256)
            assert await health(channel, "isthmus.v1.Edge") == health_pb2.HealthCheckResponse.SERVING
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            stub: Any = reflection_pb2_grpc.ServerReflectionStub  # its published types know no `grpc.aio`
            replies = [reply async for reply in stub(channel).ServerReflectionInfo(iter([request]))]
            names = {service.name for service in replies[0].list_services_response.service}
            assert "isthmus.v1.Edge" in names

    live(check)


def test_a_port_in_use_is_named(service: EdgeService) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        async def check() -> None:
            with pytest.raises(BindError, match=f"{address}: cannot listen"):
                bind(service, address, None)

        live(check)
        with pytest.raises(BindError, match=f"{address}: metrics"):
            Metrics().serve(address)


@pytest.mark.parametrize(
    ("config", "error"),
    [(ServerConfig(), SecurityError), (ServerConfig(insecure=True, engine="abacus"), ConfigError)],
)
def test_serve_refuses_before_it_listens(config: ServerConfig, error: type[Exception]) -> None:
    with pytest.raises(error):
        live(serve, config)


def test_the_journal_says_who_came_was_refused_and_left_a_line_each(
    service: EdgeService, hello: m.Hello, caplog: pytest.LogCaptureFixture
) -> None:
    """A newline in a bundle's name once forged a line, and a client id of 60 kB was written whole."""
    caplog.set_level("INFO", "isthmus.edge_server.journal")

    async def check() -> None:
        async with running(service, grace_s=5.0) as (address, _), grpc.aio.insecure_channel(address) as channel:
            good, forger, giant = Device(channel), Device(channel), Device(channel)
            await good.say(hello)
            await good.hear_until(m.Welcome)
            await forger.say(m.Hello("x\nI isthmus: all is well", b"\x01" * 32, hello.codec_version, "cam\n1"))
            code, why = await forger.ending()
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "bundle x\\nI isthmus: all is well 0101" in why
            await giant.say(m.Hello("tiny", hello.bundle_sha256, hello.codec_version, "x" * 60_000))
            code, why = await giant.ending()
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert why == "message: hello: a client id of 60000 characters, at most 128 are welcome"
            await good.call.done_writing()
            await good.ending()

    live(check)
    come, forged, large, gone = (
        re.sub(r"stream \d+|127.0.0.1:\d+|after [0-9.]+ s", "…", line) for line in caplog.messages
    )
    assert come == "…: 'cam0' at …: welcome"
    assert forged.startswith("…: 'cam\\n1' at …: … refused: mismatch: hello: bundle x\\nI isthmus")
    assert large.startswith("…: at …: … refused: malformed: message: hello: a client id of 60000 characters")
    assert gone == "…: 'cam0' at …: … hung up"
    assert all(len(line) < 400 for line in caplog.messages)
