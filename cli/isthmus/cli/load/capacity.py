"""How many devices a server carries: `isthmus bench serve` measures it, `isthmus emulate --capacity` computes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from isthmus.cli.options import FORMAT, Format, if_interrupted, require, seconds
from isthmus.emulation.load import live, search
from isthmus.emulation.load.asking import Answered, Asking
from isthmus.emulation.load.virtual import QUANTILES, VirtualServer, answered
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.models import bundle as bundles
from isthmus.models import profiles
from isthmus.models.bundle import Bundle
from isthmus.proto import security
from isthmus.proto.errors import ConfigError, IsthmusError

MOST_DEVICES = 4096
"""More connections than a process may have open by default; a server that carries more is measured at a higher rate."""
START = 8
LOOP, HOP = "loop_s", "hop_s"
"""What a profile calls the processor seconds of a frame outside the tail, and the time from the loop to it and back."""
STRETCH = tuple(f"tail_stretch_p{100 * share:g}" for share in QUANTILES)
"""And how many times longer than its best a tail takes in a server at work."""


def serve(
    bundle: str = typer.Option("signs", help="Zoo name or folder of the bundle."),
    fps: float = typer.Option(15.0, help="Frames a second of each device."),
    deadline: str = typer.Option("150ms", help="From capture to answer."),
    max_batch: int = typer.Option(8, help="Largest batch of the server that is started."),
    threads: int = typer.Option(1, help="Threads of its tail."),
    server: str | None = typer.Option(None, help="HOST:PORT of a server that runs already [one is started here]."),
    certs: Path | None = typer.Option(None, "--certs", help="A device's folder, for a server with mutual TLS."),
    rounds: int = typer.Option(3, help="How often it is measured; the spread is that of the rounds."),
    count: str = typer.Option("4s", help="How long each load is counted."),
    format_: Format = FORMAT,
) -> None:
    """Search for how many devices a server carries: the most of whose frames nine of ten are answered in time."""
    require("server", "emulation")
    asking, opened = _asking(fps, deadline), bundles.load(bundle)
    counted_s = seconds(count, "--count") or 4.0
    if not 0.2 <= counted_s <= 600 or not 1 <= rounds <= 100:
        raise ConfigError("bench serve: --count is 200ms to 10m, --rounds 1 to 100")
    started = contextlib.nullcontext(server) if server else _started(bundle, max_batch, threads)
    with started as address:
        credentials = None if certs is None else security.channel_credentials(certs)
        load = live.Load(str(address), opened, asking, counted_s, credentials)
        best = Best()
        with if_interrupted(best.said):
            carried, last = asyncio.run(_measured(load, rounds, best))
    facts = _facts(bundle, asking, carried) | _took(last)
    _show(facts, format_, str(address) if server else "a server on this machine", "rounds")


def emulated(scenario: Scenario, format_: Format, *, rounds: int = 3) -> None:
    """Say how many devices the scenario's server carries, at its rate and deadline, with its bundle."""
    opened, profile = bundles.load(scenario.bundle), profiles.load(scenario.server)
    asking = Asking(scenario.fps, scenario.deadline_s)
    loop, hop = profile.observed.get(LOOP), profile.observed.get(HOP)
    stretch = tuple(profile.observed[name].value for name in STRETCH if name in profile.observed)
    if stretch and (len(stretch) < len(STRETCH) or list(stretch) != sorted(stretch)):
        raise ConfigError(
            f"{profile.name}: observed: {', '.join(STRETCH)}: expected all of them, none less than the one before"
        )
    times = tuple(profile.tail_s(opened.manifest.tail_flops, size) for size in range(1, scenario.max_batch + 1))
    loop_s, hop_s = (0.0 if each is None else each.value for each in (loop, hop))
    server = VirtualServer(times, loop_s, hop_s, stretch, credits=scenario.credits)
    carried = [asyncio.run(_computed(server, opened, asking, scenario.seed + n)) for n in range(rounds)]
    facts = _facts(scenario.bundle, asking, carried) | {"server": scenario.server, LOOP: server.loop_s}
    _show(facts, format_, f"server {profile.name}, emulated", "seeds")
    if loop is None and format_ == "text":
        typer.echo(
            f"{profile.name} does not say what a frame costs outside the tail; `isthmus bench server` measures it"
        )


def _asking(fps: float, deadline: str) -> Asking:
    deadline_s = seconds(deadline, "--deadline") or 0.15
    if not 0.1 <= fps <= 1000 or not 0.01 <= deadline_s <= 60:
        raise ConfigError("bench serve: --fps is 0.1 to 1000, --deadline 10ms to 1m")
    return Asking(fps, deadline_s)


@dataclass
class Best:
    """The most devices that were carried until now, in any round."""

    devices: int = 0

    def said(self) -> str:
        """What is known where the search is interrupted."""
        return f"{self.devices} devices were carried; the search for more was not at its end"


async def _measured(load: live.Load, rounds: int, best: Best) -> tuple[list[int], Answered]:
    """What is carried in each round, and what became of the last load that was."""
    carried: list[int] = []
    last = Answered(0, 0, ())
    for seed in range(rounds):

        async def share(devices: int, seed: int = seed) -> float:
            nonlocal last
            found = await live.answered(load, devices, seed=seed)
            typer.echo(f"  {devices} devices: {found.share:.0%} in time", err=True)
            if found.share >= search.GOAL:
                last, best.devices = found, max(best.devices, devices)
            return found.share

        carried.append(await search.most(share, start=carried[-1] if carried else START, limit=MOST_DEVICES))
    return carried, last


async def _computed(server: VirtualServer, bundle: Bundle, asking: Asking, seed: int) -> int:
    async def share(devices: int) -> float:
        return answered(server, bundle, asking, devices, seed=seed).share

    return await search.most(share, start=START, limit=MOST_DEVICES)


def _facts(bundle: str, asking: Asking, carried: list[int]) -> dict[str, object]:
    middle = round(statistics.median(carried))
    return {
        "bundle": bundle,
        "fps": asking.fps,
        "deadline_s": asking.deadline_s,
        "in_time": search.GOAL,
        "devices": middle,
        "devices_least": min(carried),
        "devices_most": max(carried),
        "frames_per_s": round(middle * asking.fps, 1),
    }


def _took(last: Answered) -> dict[str, object]:
    took_s = sorted(last.took_s)
    if not took_s:
        return {"p50_s": None, "p99_s": None}
    return {"p50_s": round(took_s[len(took_s) // 2], 4), "p99_s": round(took_s[int(0.99 * (len(took_s) - 1))], 4)}


def _show(facts: dict[str, object], format_: Format, what: str, spread: str) -> None:
    if format_ == "json":
        typer.echo(json.dumps(facts))
        return
    typer.echo(
        f"{what} carries {facts['devices']} devices ({facts['devices_least']} to {facts['devices_most']} over the {spread}) "
        f"at {facts['fps']:g} frames/s with {facts['bundle']}, {facts['deadline_s']:g} s:\n"
        f"{facts['frames_per_s']:g} frames/s, of which {facts['in_time']:.0%} are answered in time"
    )


@contextlib.contextmanager
def _started(bundle: str, max_batch: int, threads: int) -> Iterator[str]:
    """A server of our own; its address."""
    options = ["--bundle", bundle, "--insecure", "--listen", "127.0.0.1:0", "--max-batch", str(max_batch)]
    options += ["--threads", str(threads), "--max-streams", str(MOST_DEVICES)]
    command = [sys.executable, "-m", "isthmus.cli", "serve", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " on " not in line:
            raise IsthmusError(
                f"{bundle}: the server did not start; `isthmus serve --bundle {bundle} --insecure` says why"
            )
        yield line.rpartition(" on ")[2].split(",")[0]
    finally:
        process.kill()
        process.wait()
