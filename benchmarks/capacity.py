"""Whether the emulator says of a server what a measurement of it says: how many devices it carries.

    python benchmarks/capacity.py [--rounds 3] [--bundle cifar10] [--only sleeping|real]

`sleeping`: a tail that sleeps 20 ms for every frame, one at a time, so that the machine's speed matters little. `real`: a
bundle's own tail in batches of up to eight, on one thread; its times are measured first. What a server takes beyond its tail's
best times is measured in both, as `isthmus bench server` does, under a load that it carries easily. Then devices ask a real
server in a process of its own, as `isthmus bench serve` does, and the same devices ask a virtual one, as `isthmus emulate
--capacity` does. They take turns, round by round. Let the machine be idle: the devices and the server need a core each. The last
line is JSON: both counts with their spread, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.engines import Engine, Frame, Tail
from isthmus.edge_server.repository.tail import warm_up
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.emulation.load import live, overheads, search, virtual
from isthmus.emulation.load.asking import Asking
from isthmus.emulation.load.virtual import VirtualServer
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto.tasks.task import Packed

EACH_S, MAX_BATCH, MOST = 0.020, 8, 4096
ASKING = {"sleeping": Asking(2.0, 0.15), "real": Asking(5.0, 0.15)}
"""Rates at which a device more or less is a few per cent of what is carried."""
WITHIN = 0.15


class Slow:
    """A tail that sleeps for every frame."""

    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        """The same answer to each."""
        time.sleep(EACH_S * len(frames))
        return [(0.0, 1.0)] * len(frames)


def served(bundle: Bundle) -> Served:
    return Served(bundle.manifest.name, bundle.sha256, bundle.codec)


def host(kind: str, name: str, pipe: Connection) -> None:
    """A server in a process of its own."""

    async def run() -> None:
        bundle = bundles.load(name, half="tail")
        engine: Engine = Slow() if kind == "sleeping" else Tail(bundle, 1)
        size = 1 if kind == "sleeping" else MAX_BATCH
        service = EdgeService(served(bundle), engine, limits=Limits(streams=MOST), max_batch=size)
        server, _, address = bind(service, "127.0.0.1:0", None)
        await server.start()
        pipe.send(address)
        with contextlib.suppress(EOFError):
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        os._exit(0)

    asyncio.run(run())


@contextlib.contextmanager
def child(kind: str, name: str) -> Iterator[str]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=host, args=(kind, name, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()


async def server_of(kind: str, bundle: Bundle, address: str) -> VirtualServer:
    """What is known of the server before it is asked how much it carries."""
    rest = await overheads.overheads(bundle)
    if kind == "sleeping":
        stretch = await overheads.stretch_of(address, bundle, EACH_S)
        modelled = VirtualServer((EACH_S,), rest.loop_s, rest.hop_s, stretch)
    else:
        best = warm_up(Tail(bundle, 1), served(bundle), MAX_BATCH)
        known = [(max(size for size in best if size <= n), n) for n in range(1, MAX_BATCH + 1)]
        stretch = await overheads.stretch(bundle, 1, best[1])
        modelled = VirtualServer(tuple(best[size] * n / size for size, n in known), rest.loop_s, rest.hop_s, stretch)
    first_ms, last_ms = 1e3 * modelled.tail_s[0], 1e3 * modelled.tail_s[-1]
    print(
        f"{kind}: tail {first_ms:.2f} ms for one, {last_ms:.2f} ms for {len(modelled.tail_s)}, times {stretch}; "
        f"loop {1e3 * rest.loop_s:.2f} ms, hop {1e3 * rest.hop_s:.2f} ms",
        flush=True,
    )
    return modelled


def compared(kind: str, name: str, rounds: int) -> dict[str, Any]:
    bundle, asking = bundles.load(name), ASKING[kind]
    found: dict[str, list[int]] = {"measured": [], "emulated": []}
    with child(kind, name) as address:
        modelled = asyncio.run(server_of(kind, bundle, address))
        load = live.Load(address, bundle, asking)
        for seed in range(rounds):

            async def here(devices: int, seed: int = seed) -> float:
                return (await live.answered(load, devices, seed=seed)).share

            async def there(devices: int, seed: int = seed) -> float:
                return virtual.answered(modelled, bundle, asking, devices, seed=seed).share

            found["emulated"].append(asyncio.run(search.most(there, start=20, limit=MOST)))
            found["measured"].append(asyncio.run(search.most(here, start=found["emulated"][-1], limit=MOST)))
            print(f"{kind}, round {seed}: { ({k: v[-1] for k, v in found.items()}) }", flush=True)
    middle = {which: statistics.median(each) for which, each in found.items()}
    return found | {"ratio": round(middle["emulated"] / max(1, middle["measured"]), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundle", default="cifar10")
    parser.add_argument("--only", choices=ASKING)
    args = parser.parse_args()
    kinds = [args.only] if args.only else list(ASKING)
    said = {kind: compared(kind, args.bundle if kind == "real" else "signs", args.rounds) for kind in kinds}
    for kind, each in said.items():
        kept = abs(each["ratio"] - 1) <= WITHIN
        print(
            f"{kind}: emulated over measured {each['ratio']:.2f}, {'kept' if kept else 'MISSED'} (within {WITHIN:.0%})"
        )
    print(json.dumps(said))


if __name__ == "__main__":
    main()
