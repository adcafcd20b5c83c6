"""What a frame costs a server outside its tail, in processor time: measured with a real server whose tail does nothing.

The event loop that carries all streams runs on one processor, whatever the machine has: where the tail is quick, or runs
elsewhere, this is what bounds the frames a second. Starts a process and reads its clock.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.engines import Frame
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.emulation.load import live
from isthmus.emulation.load.asking import Asking
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto.tasks.task import Packed

DEVICES, FPS = 12, 15.0
"""Some 200 frames a second: a load that a small board's loop carries too."""
SECONDS = 4.0


async def loop_s(bundle: Bundle) -> float:
    """Processor seconds of one frame of `bundle`: to receive and decode it, to batch it, and to answer."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_host, args=(str(bundle.folder), there), daemon=True)
    process.start()
    try:
        load = live.Load(await _said(here), bundle, Asking(FPS, 1.0), SECONDS)
        here.send(None)
        before_s = float(await _said(here))
        found = await live.answered(load, DEVICES, seed=1)
        here.send(None)
        cpu_s = float(await _said(here)) - before_s
        frames = found.asked * (1 + live.SETTLING_S / SECONDS)
        return cpu_s / max(1.0, frames)
    finally:
        process.kill()


async def _said(pipe: Connection) -> str:
    return str(await asyncio.get_running_loop().run_in_executor(None, pipe.recv))


class Nothing:
    """A tail that takes no time."""

    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        """The same answer to each."""
        return [(0.0, 1.0)] * len(frames)


def _host(folder: str, pipe: Connection) -> None:
    async def run() -> None:
        bundle = bundles.load(folder, half="tail")
        served = Served(bundle.manifest.name, bundle.sha256, bundle.codec)
        service = EdgeService(served, Nothing(), limits=Limits(streams=DEVICES))
        server, _, address = bind(service, "127.0.0.1:0", None)
        await server.start()
        pipe.send(address)
        while True:
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            pipe.send(time.process_time())

    try:
        asyncio.run(run())
    except EOFError:  # who asked is gone
        os._exit(0)
