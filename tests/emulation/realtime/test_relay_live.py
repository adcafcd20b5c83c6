"""The relay between real sockets. Times are compared as ratios or against what the trace makes impossible."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from isthmus.emulation.link import LinkOptions
from isthmus.emulation.realtime.relay import Relay, abort, host_port
from isthmus.emulation.traces import Trace
from isthmus.proto.errors import BindError, ConfigError, LagError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def steps(*rows: tuple[float, float, float], rtt_s: float = 0.0) -> Trace:
    """Rows of (time_s, up_Bps, down_Bps)."""
    time_s, up, down = np.array(rows, dtype=float).T
    return Trace("steps", time_s, up, down, np.full(len(rows), rtt_s), np.zeros(len(rows)))


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.write_eof()


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the number of bytes that came."""
    writer.write(str(len(await reader.read())).encode())


def connect(relay: Relay) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    return asyncio.open_connection("127.0.0.1", relay.port)


async def push(relay: Relay, size_bytes: int) -> int:
    """Send so many bytes and the end; what the upstream says that it got."""
    reader, writer = await connect(relay)
    writer.write(b"x" * size_bytes)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return int(answer)


def live(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 30.0)

    asyncio.run(bounded())


def test_bytes_pass_unchanged_both_ways_and_the_end_passes_too() -> None:
    async def test() -> None:
        data = bytes(np.random.default_rng(1).integers(0, 256, 50_000, dtype=np.uint8))
        trace = steps((0, 1e6, 1e6), rtt_s=0.01)
        async with upstream(echo) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            reader, writer = await connect(relay)
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
            writer.close()
            assert relay.lag.deliveries > 2 * 50_000 / 16_384

    live(test)


def test_a_slow_reader_gets_everything_after_the_sender_has_gone() -> None:
    async def test() -> None:
        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"y" * 400_000)
            await writer.drain()

        trace = steps((0, 1e7, 1e7))
        async with upstream(pour) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            reader, writer = await connect(relay)
            writer.write_eof()
            await asyncio.wait([asyncio.ensure_future(reader.readexactly(10))])
            assert len(await reader.read()) == 400_000 - 10
            writer.close()

    live(test)


@pytest.mark.alone
def test_goodput_is_the_trace_s() -> None:
    async def test() -> None:
        trace = steps((0, 100_000, 1e6))
        async with upstream(swallow) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            began = now()
            assert await push(relay, 60_000) == 60_000
            took = now() - began
            assert took >= 0.6 - 0.001
            assert took <= 0.6 * 1.1 + 2 * relay.lag.max_s + 0.1

    live(test)


def test_all_connections_share_one_uplink() -> None:
    async def test() -> None:
        trace = steps((0, 100_000, 1e6))
        async with upstream(swallow) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            began = now()
            assert await asyncio.gather(*(push(relay, 15_000) for _ in range(3))) == [15_000] * 3
            assert now() - began >= 0.45 - 0.001

    live(test)


@pytest.mark.alone
def test_an_outage_holds_bytes_and_openings_and_loses_none() -> None:
    async def test() -> None:
        trace = steps((0, 1e6, 1e6), (0.2, 0, 0), (0.7, 1e6, 1e6), (10.0, 1e6, 1e6))
        async with upstream(echo) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            reader, writer = await connect(relay)
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            assert now() - relay.started_s < 0.7, "nothing was held before the outage"
            await asyncio.sleep(max(0.0, relay.started_s + 0.3 - now()))
            writer.write(b"during")
            other_reader, other_writer = await connect(relay)
            other_writer.write(b"opened")
            assert await reader.readexactly(6) == b"during"
            assert await other_reader.readexactly(6) == b"opened"
            assert now() - relay.started_s >= 0.7 - 0.001
            writer.close()
            other_writer.close()

    live(test)


def test_a_full_queue_slows_the_sender() -> None:
    async def test() -> None:
        trace = steps((0, 50_000, 1e6))
        options = LinkOptions(queue_bytes=4_000)
        async with (
            upstream(swallow) as address,
            Relay(trace, listen="127.0.0.1:0", upstream=address, options=options) as relay,
        ):
            pushing = asyncio.ensure_future(push(relay, 30_000))
            worst = 0.0
            while not pushing.done():
                worst = max(worst, relay._up.backlog_bytes(now() - relay.started_s))
                await asyncio.wait([pushing], timeout=0.02)
            assert await pushing == 30_000
            assert 3_000 < worst < 4_000 + 1_500 + 40 + 1

    live(test)


def test_an_unreachable_upstream_costs_its_connection_and_nothing_else() -> None:
    async def test() -> None:
        with socket.socket() as placeholder:
            placeholder.bind(("127.0.0.1", 0))  # bound and not listening: refuses
            port = placeholder.getsockname()[1]
            relay = Relay(steps((0, 1e6, 1e6)), listen="127.0.0.1:0", upstream=f"127.0.0.1:{port}")
            async with relay:
                for refused in (1, 2):
                    reader, writer = await connect(relay)
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                    assert relay.refused == refused
                    writer.close()

    live(test)


def test_a_client_that_vanishes_takes_its_upstream_connection_along() -> None:
    async def test() -> None:
        ended = asyncio.Event()

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            ended.set()

        async with (
            upstream(watch) as address,
            Relay(steps((0, 1e6, 1e6)), listen="127.0.0.1:0", upstream=address) as relay,
        ):
            _, writer = await connect(relay)
            writer.write(b"x")
            await writer.drain()
            writer.transport.abort()
            await ended.wait()

    live(test)


def test_lag_is_recorded_and_can_be_held_to_a_budget() -> None:
    async def test() -> None:
        trace = steps((0, 1e6, 1e6))
        async with upstream(swallow) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            relay.lag.check(0.0, who="relay")
            assert relay.lag.deliveries == 0
            await push(relay, 20_000)
            lag = relay.lag
            assert 0.0 <= lag.p50_s <= lag.p99_s <= lag.max_s
            lag.check(lag.p99_s, who="relay")
            with pytest.raises(LagError, match=r"^relay: .* ms behind its schedule"):
                lag.check(-1e-9, who="relay")

    live(test)


def test_a_connection_that_closed_by_itself_can_be_dropped() -> None:
    """It had to wait for a slow reader before it closed; asyncio's own `abort` then raises."""

    async def test() -> None:
        sent = asyncio.Event()

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"y" * 8_000_000)
            writer.close()
            await writer.wait_closed()
            abort(writer)
            sent.set()

        async with upstream(pour) as address:
            reader, writer = await asyncio.open_connection(*host_port(address))
            assert len(await reader.read()) == 8_000_000
            await sent.wait()
            writer.close()

    live(test)


def test_a_port_in_use_is_named() -> None:
    async def test() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            relay = Relay(steps((0, 1, 1)), listen=f"127.0.0.1:{port}", upstream="127.0.0.1:1")
            with pytest.raises(BindError, match=f"^127.0.0.1:{port}: .* another"):
                await relay.__aenter__()

    live(test)


@pytest.mark.parametrize("address", ["localhost", "host:port", "host:70000"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        Relay(steps((0, 1, 1)), listen=address, upstream="127.0.0.1:1")


def test_a_relay_that_would_have_to_lose_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot lose"):
        Relay(steps((0, 1, 1)), listen="127.0.0.1:0", upstream="127.0.0.1:1", options=LinkOptions(outage="drop"))


@pytest.mark.alone
def test_small_messages_do_not_wait_for_acknowledgements() -> None:
    """Two small answers to one request: where Nagle's algorithm is on, the second waits for 40 ms."""

    async def test() -> None:
        async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1):
                writer.write(b"a")
                await asyncio.sleep(0.003)
                writer.write(b"b")

        trace, gaps = steps((0, 1e6, 1e6)), []
        async with upstream(twice) as address, Relay(trace, listen="127.0.0.1:0", upstream=address) as relay:
            reader, writer = await connect(relay)
            for _ in range(40):
                writer.write(b"?")
                await reader.readexactly(1)
                first_s = now()
                await reader.readexactly(1)
                gaps.append(now() - first_s)
            writer.close()
        assert np.median(gaps) < 0.02

    live(test)
