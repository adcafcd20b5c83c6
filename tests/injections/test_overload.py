"""Injections of load: more streams, more devices, more frames than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from injections import tails
from injections.invariants import invariants, oracle
from injections.lab import Lab, Server, busy
from injections.machine import cpu_s, limited
from injections.peers import STREAM, hello, layer, probe, same
from isthmus.device.servers.pauses import FIRST_S, LONGEST_S
from isthmus.proto import edge_pb2 as pb
from isthmus.proto import wire

Call = grpc.aio.StreamStreamCall[Any, Any]
HELLO = wire.to_device_pb(hello()).SerializeToString()
BUDGET_S = 1.0
"""Long, and rates are low: what is measured must be the server's work, not this process's."""
SETTLE_S = 2.5
"""Before anything is counted."""
SHARE_KEPT = 0.5
"""Of the best goodput that must be left when three times as much is asked, on a machine that others use too. This guards against
a collapse, which leaves next to nothing; how much more is left is for the benchmark of overload to show."""
CPU_ROOM = 1.3
"""Of the CPU that the gentle rate needs on this machine, whatever its speed: what the server has."""
MOST_IN_BATCH = 8


def _raw(read: object) -> bytes:
    """A message as it came."""
    assert isinstance(read, bytes), "the stream has ended"
    return read


async def _welcomed(own: grpc.aio.Channel, greeting: bytes = HELLO) -> Call | None:
    """A call that the server has welcomed; None where it was refused."""
    call: Call = own.stream_stream(STREAM)()
    try:
        await call.write(greeting)
        first = await call.read()
        return (
            call if first is not grpc.aio.EOF and pb.ServerMessage.FromString(_raw(first)).HasField("welcome") else None
        )
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return None


@contextlib.asynccontextmanager
async def _channels(address: str, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(count)
        ]


@pytest.mark.parametrize(("max_streams", "welcomed"), [(64, 64), (1200, 1000)])
def test_23_thousand_streams(lab: Lab, max_streams: int, welcomed: int) -> None:
    """23: a thousand streams of one process: as many as there are places are taken, the others refused, all answered rightly."""
    server = lab.server("--max-streams", str(max_streams))
    payload = oracle().payloads(oracle().picture(5, 40))[0]
    right = oracle().logits([payload])

    async def check() -> int:
        async with _channels(server.address, 10) as channels:
            calls = await asyncio.gather(*(_welcomed(channels[n % 10]) for n in range(1000)))
            taken = [call for call in calls if call is not None]
            for call in taken:
                await call.write(wire.to_device_pb(layer(1, payload)).SerializeToString())
            for call in taken:
                while not (message := pb.ServerMessage.FromString(_raw(await call.read()))).HasField("result"):
                    assert not message.HasField("invalid"), message
                assert same(tuple(message.result.outputs), right)
            return len(taken)

    assert asyncio.run(asyncio.wait_for(check(), 120)) == welcomed
    probe(server.address)
    invariants([], [server], log_lines=4100, growth_bytes=96 << 20)


def test_24_thundering_herd(lab: Lab) -> None:
    """24: two hundred devices lose their server at once, and all come back to the next one."""
    first = lab.server("--max-streams", "256")
    where = first.address
    rng = random.Random(24)

    async def device(own: grpc.aio.Channel, restarted: asyncio.Event, back: list[int]) -> None:
        async def connected() -> Call:
            pause_s = FIRST_S
            while (call := await _welcomed(own)) is None:
                await asyncio.sleep(pause_s * rng.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, LONGEST_S)
            return call

        call = await connected()
        back.append(0)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.read()
        await restarted.wait()
        await connected()
        back.append(1)

    async def check() -> Server:
        async with _channels(where, 50) as channels:
            restarted, back = asyncio.Event(), list[int]()
            tasks = [asyncio.create_task(device(channels[n % 50], restarted, back)) for n in range(200)]
            while back.count(0) < 200:
                await asyncio.sleep(0.05)
            first.kill()
            restarted.set()
            second = await asyncio.to_thread(lab.server, "--max-streams", "256", listen=where)
            await asyncio.gather(*tasks)
            return second

    second = asyncio.run(asyncio.wait_for(check(), 120))
    probe(where)
    invariants([], [second], log_lines=2000, growth_bytes=96 << 20)


class Load:
    """Devices that ask at a rate, whatever comes back: how many right answers come in time."""

    def __init__(self, address: str, devices: int, bundle: str = "signs") -> None:
        self._address, self._devices = address, devices
        self._greeting = wire.to_device_pb(hello(oracle(bundle))).SerializeToString()
        pictures = [oracle().picture(5, index) for index in range(10, 90, 10)]
        self._payloads = [oracle().payloads(picture)[0] for picture in pictures]
        self._right = [oracle().logits([payload]) for payload in self._payloads]

    def goodputs(self, rates: list[float], *, duration_s: float = 4.0) -> list[float]:
        """Right answers in time a second, at each of the rates in turn."""
        return asyncio.run(asyncio.wait_for(self._all(rates, duration_s), 300))

    def tail_s(self, number: int) -> float:
        """What the tail took for a batch while the rate of that number was asked for: the machine may have been slower then."""
        return statistics.median(self._tails_s[number])

    async def _all(self, rates: list[float], duration_s: float) -> list[float]:
        async with _channels(self._address, 10) as channels:
            asked = [await _welcomed(channels[n % 10], self._greeting) for n in range(self._devices)]
            calls = [call for call in asked if call is not None]
            assert len(calls) == self._devices
            self.good: Counter[int] = Counter()
            self._tails_s: defaultdict[int, list[float]] = defaultdict(list)
            self._sent: dict[tuple[int, int], tuple[float, int]] = {}
            readers = [asyncio.create_task(self._read(n, call)) for n, call in enumerate(calls)]
            goodputs = []
            for number, rate in enumerate(rates):
                began_s = asyncio.get_running_loop().time()
                await asyncio.gather(
                    *(self._ask(n, call, number, rate, began_s, duration_s) for n, call in enumerate(calls))
                )
                goodputs.append(self.good[number] / duration_s)
                await asyncio.sleep(1.0)
            for reader in readers:
                reader.cancel()
            return goodputs

    async def _ask(self, n: int, call: Call, number: int, rate: float, began_s: float, duration_s: float) -> None:
        loop = asyncio.get_running_loop()
        every_s, count = self._devices / rate, 0
        due_s = began_s + every_s * n / self._devices
        while due_s < began_s + SETTLE_S + duration_s:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            frame_id, which = number * 100_000 + count, (n + count) % len(self._payloads)
            counted = number if due_s >= began_s + SETTLE_S else -1
            self._sent[n, frame_id] = (loop.time() + BUDGET_S, counted)
            message = layer(frame_id, self._payloads[which], budget_s=BUDGET_S)
            await call.write(wire.to_device_pb(message).SerializeToString())
            due_s, count = due_s + every_s, count + 1

    async def _read(self, n: int, call: Call) -> None:
        loop = asyncio.get_running_loop()
        while (raw := await call.read()) is not grpc.aio.EOF:
            message = pb.ServerMessage.FromString(_raw(raw))
            if message.HasField("result"):
                until_s, counted = self._sent[n, message.result.frame]
                right = self._right[(n + message.result.frame % 100_000) % len(self._right)]
                assert same(tuple(message.result.outputs), right), "an answer to another picture"
                self.good[counted] += loop.time() <= until_s
                self._tails_s[counted].append(message.result.tail_us / 1e6)


@pytest.mark.alone
def test_25_cpu_is_the_limit(lab: Lab) -> None:
    """25: the server has too little CPU: asked for three times as much, it does not collapse, and recovers."""
    server = lab.server()
    load = Load(server.address, 16)
    began_s = cpu_s(server.pid)
    (answers,) = load.goodputs([25])
    needed = (cpu_s(server.pid) - began_s) / (SETTLE_S + 4.0) * 25 / answers
    with limited([server.pid], cpu=CPU_ROOM * needed):
        gentle, hard, again = Load(server.address, 16).goodputs([25, 75, 25])
    assert min(hard, again) >= SHARE_KEPT * gentle, (gentle, hard, again)
    invariants([], [server], log_lines=200)


@pytest.mark.alone
def test_25_tail_is_the_limit(lab: Lab) -> None:
    """25: the tail is the limit, at a fixed cost a batch: asked for three times as much, it does not collapse, and recovers."""
    slow = tails.bundle(lab.folder / "slow", tails.slow(0.2))
    server = lab.server(bundle=slow)
    load = Load(server.address, 16, slow)
    gentle, hard, again = load.goodputs([25, 120, 25])
    assert hard >= SHARE_KEPT * MOST_IN_BATCH / load.tail_s(1), (gentle, hard, again)
    assert again >= SHARE_KEPT * gentle, (gentle, hard, again)
    invariants([], [server], log_lines=200)


def test_25_six_devices(lab: Lab) -> None:
    """25: six real devices and a server with a third of a core: every frame is answered once, and some by the server."""
    server = lab.server()
    with limited([server.pid], cpu=0.3):
        agents = [lab.agent(server.address, fps=10, client_id=f"cam{n}", frames=50) for n in range(6)]
        for agent in agents:
            assert agent.wait() == 0, agent.last_words
    assert sum(agent.sources.count("server") for agent in agents) > 0
    invariants(agents, [server], log_lines=200)


@pytest.mark.alone
def test_34_busy_device(lab: Lab) -> None:
    """34: four processes that only compute beside the device: every frame has its answer."""
    server = lab.server()
    agent = lab.agent(server.address, frames=150)
    agent.answered_by("server", 5)
    agent.settle()
    with busy(4):
        assert agent.wait() == 0, agent.last_words
    invariants([agent], [server])


def test_33_throttled_device(lab: Lab) -> None:
    """33: a device that gets hot and has a fifth of a core left: it answers less well, and in time."""
    server = lab.server()
    agent = lab.agent(server.address, fps=10)
    agent.answered_by("server", 5)
    agent.settle()
    with limited([agent.pid], cpu=0.3):
        agent.more(60)
    invariants([agent], [server])
