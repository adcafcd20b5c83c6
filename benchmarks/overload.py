"""What a server still answers in time when more is asked of it than it can do, beside first come, first served.

    python benchmarks/overload.py [--devices 200] [--seconds 4] [--rounds 3] [--only cpu|linear|fixed] [--out overload.png]

Goodput is what was answered within the budget of 150 ms; load 1 is what can just be done. `linear` and `fixed` are limited
by their tail, whose time is that of the profiles edge-server and edge-server-gpu: real `Streams` and `Batcher` in virtual
time, so that no other work on the machine shows; the devices send whatever they are told. `cpu` is the real server, in
a process of its own that is held to a share of one core (by a control group where one may be made, else it is stopped and
continued), with a real bundle's tail. Its devices do with `Busy` what Isthmus's own do: they send nothing for as long as
they were asked to; what they do not send counts as asked and not answered. `cpu, deaf` are devices that send all the same.
All of it takes turns, load by load, so that everybody meets the same machine. The last line is JSON: the least goodput
over the best, of all loads from 1 to 3.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import multiprocessing
import os
import random
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio
import numpy as np
from cpu_share import held_to

from isthmus.edge_server.batcher import Batcher, Item
from isthmus.edge_server.engines import Tail
from isthmus.edge_server.repository import tail as tails
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.shedding import Shedder
from isthmus.edge_server.streams import Compute, Limits, Ready, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.models import bundle as bundles
from isthmus.models import profiles
from isthmus.models.bundle import Bundle
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto.codec import CODEC_VERSION, Codec, checksum
from isthmus.proto.frame_codec import Crossed
from isthmus.proto.machine import earliest
from isthmus.proto.messages import DeviceMessage, Heartbeat, Hello, Layer, Result

LOADS = (1.0, 1.5, 2.0, 3.0, 6.0)
JUDGED = 3.0
"""The loads up to which the last line judges."""
BUDGET_S, MAX_BATCH, CREDITS = 0.15, 8, 8
TAILS = {"linear": "edge-server", "fixed": "edge-server-gpu"}
SHARE = 0.3
"""Of one core, for each real server: little enough that one core of clients can ask six times too much."""
BEAT_S = 3.0
"""A device that says nothing for ten seconds is closed, and must wait for its turn for longer."""
SETTLING_S = 2.0
"""Not counted: a server that sheds finds its share within two seconds."""
TARGETS = {"cpu": 0.75, "linear": 0.90, "fixed": 0.90}
OURS, FIFO, DEAF = "isthmus", "first come, first served", "isthmus, deaf devices"


class FifoBatcher(Batcher[Ready]):
    """Everything is admitted, in the order in which it comes; what is late runs all the same."""

    def hopeless(self, due_s: float, *, now: float) -> bool:
        """Nobody is turned away."""
        return False

    def submit(self, item: Item[Ready], *, now: float) -> bool:
        """A frame is at the door, and comes in."""
        self._seq += 1
        self._queue.append((0.0, 0, self._seq, item))
        self._inside[item.stream] = self.inside(item.stream) + 1
        self._wake_at = now
        return True

    def _give_way(self, now: float) -> None:
        """Nobody gives way."""

    def _drop_late(self, now: float) -> None:
        """Nobody is too late."""

    def _prefix(self, now: float, first: int = 0) -> int:
        return min(len(self._queue), self._max_batch)

    def _wait_until(self, size: int, now: float) -> float | None:
        return None


BATCHERS: dict[str, type[Batcher[Ready]]] = {OURS: Batcher, FIFO: FifoBatcher}


class Frames:
    """One bundle's facts and a frame that any device may send: two layers, as they are on the wire."""

    def __init__(self, bundle: Bundle) -> None:
        config = bundle.codec
        self.served = Served(bundle.manifest.name, bundle.sha256, config)
        features = np.random.default_rng(0).laplace(0, 1, (config.height, config.width, config.channels))
        self.payloads = Codec(config).encode(features.astype(np.float32), 0)
        self.crcs = [checksum(payload) for payload in self.payloads]

    @property
    def hello(self) -> Hello:
        """What a device says first."""
        return Hello(self.served.name, self.served.sha256, CODEC_VERSION, "benchmark")

    def layers(self, frame_id: int) -> list[Layer]:
        """One frame's messages."""
        last = len(self.payloads) - 1
        pairs = enumerate(zip(self.payloads, self.crcs, strict=True))
        return [Layer(frame_id, i, i == last, BUDGET_S, payload, crc) for i, (payload, crc) in pairs]


# In virtual time: the tail is the limit.


def virtual(kind: str, profile: str, bundle: Bundle, frames: Frames, *, load: float, devices: int, s: float) -> float:
    """Frames a second that one server answers in time, of `load` times what its tail can do."""
    batch_s = {n: profiles.load(profile).tail_s(bundle.manifest.tail_flops, n) for n in range(1, MAX_BATCH + 1)}
    batcher = BATCHERS[kind](TailTimes(batch_s, max_batch=MAX_BATCH), max_batch=MAX_BATCH, stream_credits=CREDITS)
    streams = Streams(frames.served, batcher, server_id="edge", limits=Limits(devices, CREDITS), codec=_NoCodec())
    numbers = [streams.open(now=0.0) for _ in range(devices)]
    for stream in numbers:
        streams.on_message(stream, frames.hello, now=0.0)
    rate, rng = load * MAX_BATCH / batch_s[MAX_BATCH], random.Random(f"{profile}/{load}")
    coming = [(rng.random() * devices / rate, stream, 0) for stream in numbers]
    heapq.heapify(coming)
    sent_s: dict[tuple[int, int], float] = {}
    done: tuple[float, Compute] | None = None
    now, in_time = 0.0, 0
    while (due := earliest(coming[0][0], streams.due_at, done[0] if done else None)) is not None and due < s:
        now = max(now, due)
        if done is not None and done[0] <= now:
            batch, took_s = done[1].batch, batch_s[len(done[1].batch.items)]
            done = None
            streams.on_computed(batch, [(0.0, 1.0)] * len(batch.items), took_s, now=now)
        elif coming[0][0] <= now:
            _, stream, frame_id = heapq.heappop(coming)
            heapq.heappush(coming, (now + rng.uniform(0.8, 1.2) * devices / rate, stream, frame_id + 1))
            sent_s[stream, frame_id] = now
            for layer in frames.layers(frame_id):
                streams.on_message(stream, layer, now=now)
        else:
            streams.step(now)
        for action in streams.actions():
            match action:
                case Compute():
                    done = now + batch_s[len(action.batch.items)], action
                case Reply(stream, Result(frame_id)):
                    in_time += now <= sent_s[stream, frame_id] + BUDGET_S + 1e-9
    return in_time / s


class _NoCodec:
    """The payloads are as long as real ones; what is in them does not matter."""

    max_layer_bytes = 1 << 20

    def crossed(self, payloads: object, reference: object = None) -> Crossed:
        return Crossed(np.zeros(1, np.float32), 1)


# In real time: the server's CPU is the limit.


def host(kind: str, name: str, devices: int, pipe: Connection) -> None:
    """One real server, in a process of its own; ends when `pipe` says so."""

    async def run() -> None:
        if kind == FIFO:
            tails.Batcher = FifoBatcher  # type: ignore[misc, assignment]
            Shedder.note = lambda *_, **__: None  # type: ignore[method-assign]
        bundle = bundles.load(name, half="tail")
        served = Served(bundle.manifest.name, bundle.sha256, bundle.codec)
        service = EdgeService(served, Tail(bundle, 1), limits=Limits(devices, CREDITS), max_batch=MAX_BATCH)
        server, _, address = bind(service, "127.0.0.1:0", None)
        await server.start()
        pipe.send(address)
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        os._exit(0)  # what is still on its way is of no interest

    asyncio.run(run())


class Device:
    """One device's stream: sends at its own pace, and skips what it cannot write in time.

    Told `Busy`, it sends nothing for as long as it was asked to, as Isthmus's own session does; a deaf one goes on.
    """

    deaf = False

    def __init__(self, address: str, frames: Frames, number: int) -> None:
        options = [*wire.channel_options(1 << 20), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(address, options=options)
        self._call = edge_pb2_grpc.EdgeStub(self.channel).Stream()  # type: ignore[no-untyped-call]
        self._frames, self._rng = frames, random.Random(number)
        self._sent_s: dict[int, float] = {}
        self._next = 0
        self._quiet_until_s = 0.0
        self.in_time = 0

    async def connect(self) -> None:
        """Say hello, and listen from then on."""
        await self._say(self._frames.hello)
        await self._call.read()
        self.tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat())]

    async def send(self, rate: float, until_s: float) -> None:
        """Send `rate` frames a second."""
        due_s = time.monotonic() + self._rng.random() / rate
        while due_s < until_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if due_s >= self._quiet_until_s:
                await self._send_frame(due_s)
            while due_s <= time.monotonic():  # a write that had to wait cost the frames of that time
                due_s += self._rng.uniform(0.8, 1.2) / rate

    async def _beat(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while True:
                await asyncio.sleep(BEAT_S * self._rng.random() * 2)
                await self._say(Heartbeat(1))

    async def _send_frame(self, due_s: float) -> None:
        self._next += 1
        self._sent_s[self._next] = due_s
        for layer in self._frames.layers(self._next):
            await self._say(layer)

    async def _say(self, message: DeviceMessage) -> None:
        await self._call.write(wire.to_device_pb(message))

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            while (message := await self._call.read()) is not grpc.aio.EOF:
                match message.WhichOneof("kind"):
                    case "result":
                        sent_s = self._sent_s.pop(message.result.frame, 0.0)
                        self.in_time += time.monotonic() <= sent_s + BUDGET_S
                    case "busy" if not self.deaf:
                        self._quiet_until_s = time.monotonic() + message.busy.retry_us / 1e6


async def goodput(devices: list[Device], rate: float, seconds: float, *, deaf: bool = False) -> float:
    """Answers in time a second, of `rate` frames a second from all devices together, once it has gone on for a while."""
    began, settling_s = time.monotonic(), SETTLING_S
    for device in devices:
        device.deaf = deaf
    senders = [asyncio.create_task(d.send(rate / len(devices), began + settling_s + seconds)) for d in devices]
    await asyncio.sleep(settling_s)
    before = sum(d.in_time for d in devices)
    await asyncio.sleep(began + settling_s + seconds - time.monotonic())
    found = sum(d.in_time for d in devices) - before
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    await asyncio.sleep(1.5)  # what is left over must not meet the next load
    return found / seconds


Found = tuple[dict[str, dict[float, float]], float]
"""Goodput by server and load, and load 1 in frames a second."""


async def real(addresses: dict[str, str], frames: Frames, args: argparse.Namespace) -> Found:
    """The median goodput of each server at each load."""
    fleets = {kind: [Device(address, frames, n) for n in range(args.devices)] for kind, address in addresses.items()}
    for fleet in fleets.values():
        for device in fleet:
            await device.connect()
    best = await capacity(fleets[OURS], args.seconds)
    print(f"cpu: load 1 is {best:.0f} frames a second", flush=True)
    rows: dict[str, dict[float, list[float]]] = {kind: {load: [] for load in LOADS} for kind in (OURS, FIFO, DEAF)}
    for _ in range(args.rounds):
        for load in LOADS:
            for kind, row in rows.items():
                fleet = fleets[FIFO if kind == FIFO else OURS]
                row[load].append(await goodput(fleet, load * best, args.seconds, deaf=kind != OURS))
                print(f"cpu: {load:g} x, {kind}: {row[load][-1]:.0f}", flush=True)
    return {kind: {load: statistics.median(each) for load, each in row.items()} for kind, row in rows.items()}, best


async def capacity(devices: list[Device], seconds: float) -> float:
    """The most that is answered in time a second: asked a quarter more each time, until less comes back twice."""
    rate, best = 20.0, 0.0
    while True:
        found = max(
            [await goodput(devices, rate, seconds) for _ in range(2)]
        )  # a busy machine is no limit of the server's
        best = max(best, found)
        if found < 0.9 * rate:
            return best
        rate *= 1.25


def on_this_machine(frames: Frames, args: argparse.Namespace) -> Found:
    spawn = multiprocessing.get_context("spawn")
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)  # whoever else works here must not make the clients late
    with contextlib.ExitStack() as stack:
        addresses, pipes = {}, []
        for kind in (OURS, FIFO):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=host, args=(kind, args.bundle, args.devices, theirs), daemon=True)
            process.start()
            pipes.append(ours)  # the server ends when its pipe does
            addresses[kind] = ours.recv()
            how = stack.enter_context(held_to(args.share, process.pid or 0))
            print(f"cpu: {kind} held to {args.share:.0%} of a core: {how}", flush=True)
        return asyncio.run(real(addresses, frames, args))


class Row(NamedTuple):
    """One limit, one server: goodput over the best that it reached, by load."""

    limit: str
    kind: str
    of_best: dict[float, float]

    @property
    def least(self) -> float:
        """What is judged."""
        return min(share for load, share in self.of_best.items() if load <= JUDGED)


def rows_of(limit: str, found: dict[str, dict[float, float]], one: float) -> list[Row]:
    """`one` is load 1 in frames a second; nobody answers more than was asked, where that was less than the best."""
    best = max(goodput for loads in found.values() for goodput in loads.values())
    return [
        Row(limit, kind, {load: x / min(best, load * one) for load, x in loads.items()})
        for kind, loads in found.items()
    ]


def plotted(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    limits = list(dict.fromkeys(row.limit for row in rows))
    figure = Figure(figsize=(4 * len(limits), 3.4), layout="constrained")
    for axes, limit in zip(figure.subplots(1, len(limits), sharey=True, squeeze=False)[0], limits, strict=True):
        for row in (r for r in rows if r.limit == limit):
            axes.plot(
                row.of_best.keys(), row.of_best.values(), marker="o", label=row.kind, lw=2 if row.kind == OURS else 1
            )
        axes.axhline(TARGETS[limit], color="0.7", lw=1, ls="--", xmax=0.5)
        axes.set(title=f"limit: {limit}", xlabel="load (× what it can do)", ylim=(0, 1.1))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("goodput / best")
    figure.axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--bundle", default="cifar10")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=SHARE, help="of one core, for each real server")
    parser.add_argument("--only", choices=["cpu", "linear", "fixed"])
    parser.add_argument("--out", type=Path, default=Path("overload.png"))
    args = parser.parse_args()
    bundle = bundles.load(args.bundle)
    frames, rows = Frames(bundle), []
    for limit in [args.only] if args.only else ["linear", "fixed", "cpu"]:
        if limit == "cpu":
            found, one = on_this_machine(frames, args)
        else:
            found = {
                kind: {
                    load: virtual(kind, TAILS[limit], bundle, frames, load=load, devices=args.devices, s=args.seconds)
                    for load in LOADS
                }
                for kind in BATCHERS
            }
            one = MAX_BATCH / profiles.load(TAILS[limit]).tail_s(bundle.manifest.tail_flops, MAX_BATCH)
        rows += rows_of(limit, found, one)
    print("| limit | server | " + " | ".join(f"{load:g} ×" for load in LOADS) + " |")
    print("|---" * (2 + len(LOADS)) + "|")
    for row in rows:
        print(f"| {row.limit} | {row.kind} | " + " | ".join(f"{row.of_best[load]:.2f}" for load in LOADS) + " |")
    plotted(rows, args.out)
    least = {row.limit: round(row.least, 3) for row in rows if row.kind == OURS}
    deaf = {f"{row.limit}_deaf": round(row.least, 3) for row in rows if row.kind == DEAF}
    print(json.dumps({"loads": [load for load in LOADS if load <= JUDGED], **deaf, **least}))


if __name__ == "__main__":
    main()
