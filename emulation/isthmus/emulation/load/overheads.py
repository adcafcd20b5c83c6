"""What a server takes beyond its tail's best time: measured with a real server in a process of its own, under a light load.

The event loop that carries all streams runs on one processor, whatever the machine has: where the tail is quick, or runs
elsewhere, this is what bounds the frames a second. From batch to batch the tail is idle while one is handed over to the
other. And a tail at work beside the loop, and beside all else that the machine does, is not as quick as the best of a few runs
alone. Starts processes and reads their clocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
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
"""A tail is looked at while it and the loop are at work for so much of the time: where they are full, no time is their own."""
KEPT = 0.95
"""Of the hops the longest are left out: a stall of the machine is not the server's, and one would outweigh all others."""


@dataclass(frozen=True)
class AtWork:
    """A tail in a server that is at work: the time from the loop to its thread and back, and how many times longer than its
    best a frame takes it, at the QUANTILES.
    """

    hop_s: float
    stretch: tuple[float, ...]


async def loop_s(bundle: Bundle) -> float:
    """Processor seconds of one frame of `bundle` outside the tail: to receive and decode it, to batch it, and to answer."""
    async with _server(bundle, None) as (address, pipe):
        pipe.send(None)
        before_s = float(await _said(pipe))
        found = await live.answered(live.Load(address, bundle, Asking(FPS, DEADLINE_S), SECONDS), DEVICES, seed=1)
        pipe.send(None)
        cpu_s = float(await _said(pipe)) - before_s
    return cpu_s / max(1.0, found.asked * (1 + live.SETTLING_S / SECONDS))


async def at_work(bundle: Bundle, threads: int, best_s: float, loop_s: float) -> AtWork:
    """The bundle's own tail, which takes `best_s` for one frame when it is alone, beside a loop that takes `loop_s`."""
    async with _server(bundle, threads) as (address, _):
        return await at_work_in(address, bundle, best_s, loop_s)


async def at_work_in(address: str, bundle: Bundle, best_s: float, loop_s: float) -> AtWork:
    """The same of a server that runs already, in batches of one."""
    asking = Asking(min(FPS, BUSY_SHARE / (best_s + loop_s) / DEVICES), DEADLINE_S)
    found = await live.answered(live.Load(address, bundle, asking, SECONDS), DEVICES, seed=1)
    ranked = sorted(t.tail_s / best_s for t in found.timings) or [1.0]
    stretch = tuple(ranked[min(len(ranked) - 1, int(share * len(ranked)))] for share in QUANTILES)
    hops_s = sorted(t.send_s for t in found.timings)
    return AtWork(statistics.mean(hops_s[: math.ceil(KEPT * len(hops_s))] or [0.0]), stretch)


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
