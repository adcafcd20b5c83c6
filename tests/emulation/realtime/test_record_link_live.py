"""A recording through the relay: both ends as they run in the field."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import numpy as np
import pytest

from isthmus.emulation import synthetic
from isthmus.emulation.realtime import record_link
from isthmus.emulation.realtime.relay import Relay
from isthmus.emulation.traces import Direction, Trace
from isthmus.proto.errors import BindError, SourceError


def record(link: Trace, ways: tuple[Direction, ...], length_s: float) -> Trace:
    async def run() -> Trace:
        heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        answering = asyncio.ensure_future(record_link.answer("127.0.0.1:0", ready=heard.set_result))
        async with Relay(link, listen="127.0.0.1:0", upstream=await heard) as relay:
            made = await record_link.record(f"127.0.0.1:{relay.port}", name="made", ways=ways, length_s=length_s)
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        return made

    return asyncio.run(asyncio.wait_for(run(), 30.0))


@pytest.mark.parametrize("ways", [("up",), ("down",), ("up", "down")])
def test_both_ways_are_recorded_and_never_faster_than_the_link(ways: tuple[Direction, ...]) -> None:
    link = synthetic.constant(up_mbps=2, down_mbps=4, rtt_ms=30)
    made = record(link, ways, 2.0)
    for way, limit_mbps in (("up", 2.0), ("down", 4.0)):
        rates = made.up_Bps if way == "up" else made.down_Bps
        if way in ways:
            assert 0.2 * limit_mbps < rates.mean() * 8e-6 <= 1.05 * limit_mbps
        else:
            assert np.isnan(rates).all()
    assert np.nanmin(made.rtt_s) >= 0.03


def test_a_far_end_that_is_not_there_or_goes_away_is_named() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        where = f"127.0.0.1:{placeholder.getsockname()[1]}"
        ways: tuple[Direction, ...] = ("up",)
        with pytest.raises(SourceError, match=f"^{where}: .*isthmus traces answer"):
            asyncio.run(record_link.record(where, name="t", ways=ways, length_s=5.0))

    async def rude() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            await record_link.record(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", name="t", ways=(), length_s=5.0)

    with pytest.raises(SourceError, match=r"isthmus traces answer"):
        asyncio.run(rude())


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"^{where}: .*another to listen on"):
            asyncio.run(record_link.answer(where, ready=print))
