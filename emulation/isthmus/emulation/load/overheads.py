"""What a server takes beyond its tail's best time: measured with a real server in a process of its own, under a light load.

The event loop that carries all streams runs on one processor, whatever the machine has: where the tail is quick, or runs
elsewhere, this is what bounds the frames a second. From batch to batch the tail is idle while one is handed over to the
other. And a tail at work beside the loop, and beside all else that the machine does, is not as quick as the best of a few runs
alone. Starts processes and reads their clocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.engines import Engine, Frame, Tail
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.emulation.load import live
from isthmus.emulation.load.asking import Asking
from isthmus.emulation.load.virtual import QUANTILES
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto.tasks.task import Packed

DEVICES, FPS, DEADLINE_S = 12, 15.0, 1.0
"""Some 200 frames a second: a load that a small board's loop carries too."""
SECONDS = 4.0
BUSY_SHARE = 0.5
"""A tail is looked at while it is at work for so much of the time, by its best: beside its loop it takes longer than that, and
where it is full, what it takes is no longer its own."""


@dataclass(frozen=True)
class Overheads:
    """Processor seconds of one frame outside the tail: to receive and decode it, to batch it, and to answer; and the time from
    the loop to the tail's thread and back.
    """

    loop_s: float
    hop_s: float


async def overheads(bundle: Bundle) -> Overheads:
    """Those of a server whose tail does nothing."""
    async with _server(bundle, None) as (address, pipe):
        pipe.send(None)
        before_s = float(await _said(pipe))
        found = await live.answered(live.Load(address, bundle, Asking(FPS, DEADLINE_S), SECONDS), DEVICES, seed=1)
        pipe.send(None)
        cpu_s = float(await _said(pipe)) - before_s
    frames = found.asked * (1 + live.SETTLING_S / SECONDS)
    return Overheads(cpu_s / max(1.0, frames), hop_s([t.send_s for t in found.timings]))


async def stretch(bundle: Bundle, threads: int, best_s: float) -> tuple[float, ...]:
    """How many times longer than `best_s` the bundle's own tail takes for one frame in a server that is at work."""
    async with _server(bundle, threads) as (address, _):
        return await stretch_of(address, bundle, best_s)


async def stretch_of(address: str, bundle: Bundle, best_s: float) -> tuple[float, ...]:
    """The same of a server that runs already, in batches of one: the QUANTILES of it."""
    asking = Asking(min(FPS, BUSY_SHARE / best_s / DEVICES), DEADLINE_S)
    found = await live.answered(live.Load(address, bundle, asking, SECONDS), DEVICES, seed=1)
    ranked = sorted(t.tail_s / best_s for t in found.timings) or [1.0]
    return tuple(ranked[min(len(ranked) - 1, int(share * len(ranked)))] for share in QUANTILES)


def hop_s(sent_s: Sequence[float]) -> float:
    """What frames took on average beyond queue and tail: the tail is idle for all of it, long or short."""
    return statistics.mean(sent_s) if sent_s else 0.0


@contextlib.asynccontextmanager
async def _server(bundle: Bundle, threads: int | None) -> AsyncIterator[tuple[str, Connection]]:
    """One with the bundle's tail on so many threads, None for a tail that does nothing; its address, and the way to its clock."""
    here, there = multiprocessing.Pipe()
    arguments = str(bundle.folder), threads, there
    process = multiprocessing.get_context("spawn").Process(target=_host, args=arguments, daemon=True)
    process.start()
    try:
        yield await _said(here), here
    finally:
        process.kill()


async def _said(pipe: Connection) -> str:
    return str(await asyncio.get_running_loop().run_in_executor(None, pipe.recv))


class Nothing:
    """A tail that takes no time."""

    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        """The same answer to each."""
        return [(0.0, 1.0)] * len(frames)


def _host(folder: str, threads: int | None, pipe: Connection) -> None:
    async def run() -> None:
        bundle = bundles.load(folder, half="tail")
        engine: Engine = Nothing() if threads is None else Tail(bundle, threads)
        served = Served(bundle.manifest.name, bundle.sha256, bundle.codec)
        limits, size = Limits(streams=DEVICES), 8 if threads is None else 1
        server, _, address = bind(EdgeService(served, engine, limits=limits, max_batch=size), "127.0.0.1:0", None)
        await server.start()
        pipe.send(address)
        while True:
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            pipe.send(time.process_time())

    try:
        asyncio.run(run())
    except EOFError:  # who asked is gone
        os._exit(0)
