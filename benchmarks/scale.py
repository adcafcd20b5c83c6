"""What a second server, and a second replica on Ray, is worth: goodput of 1, 2 and 4 of each in one run, and what Ray adds.

    python benchmarks/scale.py [--rounds 5] [--seconds 4] [--out scale.json]

The tail sleeps 20 ms for every frame, in batches of up to four, so that neither the processors nor the devices are the limit:
one server can do 50 frames a second. Devices ask for a quarter more, with 400 ms for each frame; what is answered in time is
goodput. `servers` are processes behind HAProxy with examples/balancers/haproxy-passthrough.cfg; `ray` is one server whose tail
is that many replicas of a Ray Serve deployment. Both, and all sizes, take turns in every round, so that all meet the same
machine.

Latency is that of two devices, which no queue delays: of the plain server, of one with its tail on Ray, and of Ray Serve's
own way in (its HAProxy, straight to the replicas), which is sent the same features over HTTP and knows no deadlines; its
goodput is measured too, at nine tenths of what its replicas can do, since beyond that its queue has no end.
The last line is JSON: the ratio at each doubling with its least and most, the latencies, and the processor time that servers
and replicas take for each frame that was asked: it bounds one server, and a busy machine changes it little.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.engines import Frame
from isthmus.edge_server.scale_out import ray_cluster
from isthmus.edge_server.scale_out.ray_tails import RayTails, Replicas
from isthmus.edge_server.server import bind
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.emulation.load import live
from isthmus.emulation.load.asking import Answered, Asking, OnWire
from isthmus.models import bundle as bundles
from isthmus.proto.tasks.task import Packed

HERE = "127.0.0.1"
BUNDLE, EACH_S, SIZES = "signs", 0.020, (1, 2, 4)
ASKING, OVER = Asking(fps=5.0, deadline_s=0.4), 1.25
MAX_BATCH = 4
DEVICES = round(OVER / EACH_S / ASKING.fps)
"""For each server or replica."""
FEW = 2
"""Devices where latency is looked at."""
INGRESS_LOAD = 0.9
TRIES = 5
"""A measurement in which the devices themselves were late says nothing, and is made again."""
TARGET = 1.8
CONFIGURATION = Path(__file__).parents[1] / "examples/balancers/haproxy-passthrough.cfg"


class Slow:
    """A tail that sleeps for every frame."""

    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        """The same answer to each."""
        time.sleep(EACH_S * len(frames))
        return [(0.0, 1.0)] * len(frames)


def host(replicas: Sequence[int], pipe: Connection) -> None:
    """Servers in a process of their own: one with its tail in it, or one for each number of replicas on one Ray."""

    async def run() -> None:
        bundle = bundles.load(BUNDLE, half="tail")
        served, limits = Served(bundle.manifest.name, bundle.sha256, bundle.codec), Limits(streams=1000)
        services = [EdgeService(served, Slow(), limits=limits, max_batch=MAX_BATCH)] if not replicas else []
        if replicas:
            travelling(ray_cluster.connect(None, cpus=8))
        for size in replicas:
            tails = RayTails(Slow, Replicas(size, size, 0.01), name=f"scale-{size}")
            services.append(EdgeService(served, tails, limits=limits, max_batch=MAX_BATCH, batches=tails.batches))
        bound = [bind(service, f"{HERE}:0", None) for service in services]
        for server, _, _ in bound:
            await server.start()
        pipe.send([address for _, _, address in bound])
        await asyncio.get_running_loop().run_in_executor(None, told_to_end, pipe)
        if replicas:
            ray_cluster.connect(None).shutdown()
        os._exit(0)

    asyncio.run(run())


def travelling(ray: Any) -> None:
    """Have Ray send what this file defines along: its workers do not find it by its name."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def told_to_end(pipe: Connection) -> None:
    """Wait for that, or for the end of whoever would say so."""
    with contextlib.suppress(EOFError):
        pipe.recv()


def ingress(replicas: int, pipe: Connection) -> None:
    """Ray Serve's own way in, with a Ray of its own: features in the body, a batch of one."""
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    ray = ray_cluster.connect(None, cpus=8)
    travelling(ray)
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": HERE, "port": port})
    options = {"num_replicas": replicas, "max_ongoing_requests": 2, "ray_actor_options": {"num_cpus": 0.01}}
    serve.run(serve.deployment(Ingress, **options).bind(), name="ingress", route_prefix="/")
    pipe.send([f"http://{HERE}:{port}/"])
    told_to_end(pipe)
    serve.shutdown()
    ray.shutdown()


class Ingress:
    """The same tail behind HTTP."""

    async def __call__(self, request: Any) -> str:
        """Answer one frame."""
        await request.body()
        time.sleep(EACH_S)
        return "[0.0, 1.0]"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def child(target: Callable[..., None], *arguments: object) -> Iterator[tuple[list[str], int]]:
    """A process, what it says first, and its number; it is told to end, and has ten seconds for it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, there))
    process.start()
    there.close()
    try:
        assert process.pid is not None
        yield here.recv(), process.pid
    finally:
        with contextlib.suppress(OSError):
            here.send(None)
        process.join(10.0)
        process.kill()


def replicas() -> list[int]:
    """The processes of all replicas on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica"):
                found.append(int(path.parent.name))
    return found


def cpu_s(processes: Sequence[int]) -> float:
    """The processor time that these have taken so far."""
    fields = [Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split() for number in processes]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def balancer(addresses: Sequence[str]) -> Iterator[str]:
    """HAProxy in front of these servers, by the file that ships; without --metrics, as it says, the port is the check."""
    if shutil.which("haproxy") is None:
        raise SystemExit("haproxy is not installed")
    place = f"{HERE}:{free_port()}"
    lines = CONFIGURATION.read_text().replace("bind :50551", f"bind {place}").splitlines()
    kept = [line.replace(" port 9464", "") for line in lines if "httpchk" not in line and "server edge" not in line]
    kept += [f"    server edge{n} {address}" for n, address in enumerate(addresses)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "haproxy.cfg"
        path.write_text("\n".join(kept) + "\n")
        process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stderr=subprocess.DEVNULL)
        try:
            time.sleep(1.0)
            yield place
        finally:
            process.kill()
            process.wait()


async def answered(address: str, size: int, seconds: float, seed: int) -> Answered:
    """What becomes of a quarter more frames than can be answered."""
    load = live.Load(address, bundles.load(BUNDLE), ASKING, seconds)
    for _ in range(TRIES):
        with contextlib.suppress(live.GeneratorError):
            return await live.answered(load, DEVICES * size, seed=seed)
    raise SystemExit("the devices were late themselves, again and again: this machine has no room for them")


async def latency(address: str, seconds: float, seed: int) -> tuple[float, ...]:
    """From capture to answer, in seconds, of every frame of a few devices."""
    load = live.Load(address, bundles.load(BUNDLE), ASKING, seconds)
    return (await live.answered(load, FEW, seed=seed)).took_s


async def over_http(address: str, rate: float, seconds: float) -> Answered:
    """The same features to Ray's own way in, `rate` times a second, each on time or not."""
    import aiohttp

    body = b"".join(OnWire.of(bundles.load(BUNDLE)).payloads)
    took_s: list[float] = []

    async def ask(due_s: float) -> None:
        await asyncio.sleep(due_s - time.monotonic())
        async with session.post(address, data=body) as answer:
            await answer.read()
        took_s.append(time.monotonic() - due_s)

    count = int(rate * seconds)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begin_s = time.monotonic() + 0.1
        await asyncio.gather(*(ask(begin_s + n / rate) for n in range(count)))
    return Answered(count, sum(took <= ASKING.deadline_s for took in took_s), tuple(took_s))


def percentile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def ratios(rounds: Sequence[dict[int, float]]) -> dict[str, dict[str, float]]:
    """What each doubling is worth: the middle of the rounds' ratios, their least and most."""
    found = {}
    for small, large in itertools.pairwise(SIZES):
        each = [one[large] / one[small] for one in rounds]
        found[f"{small} to {large}"] = {
            "median": round(statistics.median(each), 3), "least": round(min(each), 3), "most": round(max(each), 3)
        }  # fmt: skip
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, list[dict[int, float]]] = {"servers": [], "ray": []}
    costs: dict[str, list[float]] = {"servers": [], "ray": [], "replicas": []}
    took: dict[str, list[float]] = {"plain": [], "ray": []}
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(child(host, ())) for _ in range(max(SIZES))]
        plain = [address for (address,), _ in hosts]
        on_ray, ray_host = stack.enter_context(child(host, SIZES))
        processes = {"servers": [number for _, number in hosts], "ray": [ray_host], "replicas": replicas()}
        places = {
            "servers": {size: stack.enter_context(balancer(plain[:size])) for size in SIZES},
            "ray": dict(zip(SIZES, on_ray, strict=True)),
        }
        for number in range(args.rounds):
            for kind, addresses in places.items():
                rows[kind].append({})
                for size in SIZES:
                    before = {which: cpu_s(each) for which, each in processes.items()}
                    found = asyncio.run(answered(addresses[size], size, args.seconds, number))
                    frames = found.asked * (1 + live.SETTLING_S / args.seconds)
                    for which in (kind, "replicas") if kind == "ray" else (kind,):
                        costs[which].append((cpu_s(processes[which]) - before[which]) / frames)
                    rows[kind][-1][size] = found.in_time / args.seconds
                    print(f"round {number}: {size} {kind}: {rows[kind][-1][size]:.1f} frames/s in time", flush=True)
            for kind, address in (("plain", plain[0]), ("ray", places["ray"][1])):
                took[kind] += asyncio.run(latency(address, args.seconds, number))
    return {"goodput": rows, "took_s": took, "cpu_s": costs}


def measure_ingress(args: argparse.Namespace) -> dict[str, Any]:
    """Ray's own way in, size by size: its proxy and its replicas end between them."""
    rows: dict[int, list[float]] = {}
    took: list[float] = []
    for size in SIZES:
        with child(ingress, size) as ((address,), _):
            asyncio.run(over_http(address, 5.0, 2.0))
            if size == 1:
                took += asyncio.run(over_http(address, FEW * ASKING.fps, args.rounds * args.seconds)).took_s
            rate = INGRESS_LOAD * size / EACH_S
            rows[size] = [
                asyncio.run(over_http(address, rate, args.seconds)).in_time / args.seconds for _ in range(args.rounds)
            ]
        print(
            f"Ray's own way in, {size}: {statistics.median(rows[size]):.1f} frames/s in time of {rate:.0f}", flush=True
        )
    return {"goodput": rows, "took_s": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--without-ingress", action="store_true", help="leave Ray's own way in out")
    args = parser.parse_args()
    found = measure(args)
    said: dict[str, Any] = {
        "doubling": {kind: ratios(rounds) for kind, rounds in found["goodput"].items()},
        "goodput": {
            kind: {size: round(statistics.median(one[size] for one in rounds), 1) for size in SIZES}
            for kind, rounds in found["goodput"].items()
        },
    }
    said["cpu_ms_a_frame"] = {which: round(1e3 * statistics.median(each), 2) for which, each in found["cpu_s"].items()}
    took = found["took_s"]
    if not args.without_ingress:
        own = measure_ingress(args)
        took["ray's own way in"] = own["took_s"]
        said["goodput"]["ray's own way in"] = {
            size: round(statistics.median(own["goodput"][size]), 1) for size in SIZES
        }
        found["ingress"] = own
    said["latency_ms"] = {
        kind: {"p50": round(1e3 * percentile(each, 0.5), 1), "p99": round(1e3 * percentile(each, 0.99), 1)}
        for kind, each in took.items()
    }
    least = min(one["median"] for each in said["doubling"].values() for one in each.values())
    print(f"least of the doublings: {least:.2f}, {'reached' if least >= TARGET else 'MISSED'} (at least {TARGET})")
    if args.out is not None:
        args.out.write_text(json.dumps({"found": found, "said": said}, indent=2) + "\n")
    print(json.dumps(said))


if __name__ == "__main__":
    main()
