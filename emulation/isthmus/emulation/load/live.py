"""The same devices against a real server, each with a connection of its own. Reads the clock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from isthmus.emulation.load.asking import Answered, Asker, Asking, OnWire
from isthmus.models.bundle import Bundle
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto.errors import IsthmusError
from isthmus.proto.printable import printable

SETTLING_S = 2.0
"""Not counted: a server that sheds finds its share within two seconds."""
LAG = 0.1
"""A device here that sends later than its time by more than this share of a deadline is not slow, this process is."""
LATE_SHARE = 0.05
"""So many may be."""


class GeneratorError(IsthmusError):
    """The load could not be made: what was measured says nothing of the server."""


@dataclass(frozen=True)
class Load:
    """Where to ask, and for what."""

    address: str
    bundle: Bundle
    asking: Asking
    seconds: float = 4.0
    """How long is counted."""
    credentials: grpc.ChannelCredentials | None = None


async def answered(load: Load, devices: int, *, seed: int) -> Answered:
    """What becomes of so many devices' frames. Raises GeneratorError where they cannot be made."""
    frame = OnWire.of(load.bundle)
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(_welcomed(load, frame)) for _ in range(devices)]
        begin_s = time.monotonic() + 0.1
        ends_s = begin_s + SETTLING_S + load.seconds
        askers = [
            Asker(n, frame, load.asking, begin_s=begin_s, counts_s=begin_s + SETTLING_S, seed=seed)
            for n in range(devices)
        ]
        late: list[bool] = []
        pairs = list(zip(calls, askers, strict=True))
        listening = [asyncio.create_task(_listen(call, asker)) for call, asker in pairs]
        await asyncio.gather(*(_send(call, asker, ends_s, load.asking, late) for call, asker in pairs))
        await asyncio.sleep(load.asking.deadline_s)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    _check(late, devices)
    return Answered.of(askers)


def _check(late: Sequence[bool], devices: int) -> None:
    if sum(late) > LATE_SHARE * len(late):
        raise GeneratorError(
            f"{devices} devices: {sum(late) / len(late):.0%} of their frames were sent late: the processor is taken; "
            "run this on another machine than the server, with --server HOST:PORT"
        )


@contextlib.asynccontextmanager
async def _welcomed(load: Load, frame: OnWire) -> AsyncIterator[Any]:
    """One device's stream, past its welcome. Raises IsthmusError with what the server says."""
    options = [*wire.channel_options(wire.max_message_bytes(load.bundle.codec)), ("grpc.use_local_subchannel_pool", 1)]
    if load.credentials is None:
        channel = grpc.aio.insecure_channel(load.address, options=options)
    else:
        channel = grpc.aio.secure_channel(load.address, load.credentials, options=options)
    async with channel:
        call: Any = edge_pb2_grpc.EdgeStub(channel).Stream()
        try:
            await call.write(wire.to_device_pb(frame.hello))
            if (first := await call.read()) is grpc.aio.EOF or first.WhichOneof("kind") != "welcome":
                raise IsthmusError(f"{load.address}: no welcome; is it a server of this bundle?")
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            details = await call.details() or str(error)
            raise IsthmusError(f"{load.address}: {printable(details)}") from error
        try:
            yield call
        finally:
            call.cancel()


async def _send(call: Any, asker: Asker, ends_s: float, asking: Asking, late: list[bool]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        while (due_s := asker.due_at) < ends_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            now = time.monotonic()
            late.append(now - due_s > LAG * asking.deadline_s)
            for message in asker.step(now):
                await call.write(wire.to_device_pb(message))


async def _listen(call: Any, asker: Asker) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while (message := await call.read()) is not grpc.aio.EOF:
            now = time.monotonic()
            if message.WhichOneof("kind") in ("result", "busy"):
                asker.hear(wire.from_server_pb(message), now)
