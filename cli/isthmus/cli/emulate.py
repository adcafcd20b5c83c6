"""`isthmus emulate`: what would happen in the field, from a trace, a device's profile, a bundle and a policy."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from isthmus.cli import standings
from isthmus.cli.links.calibrate import calibrate
from isthmus.cli.load import capacity
from isthmus.cli.options import FORMAT, Format, seconds
from isthmus.emulation.policies import BOUNDS, available
from isthmus.emulation.realtime.pace import run_real
from isthmus.emulation.reports.comparison import Comparison, Digest
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual import scenario as scenarios
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.emulation.virtual.world import World
from isthmus.models import bundle as bundles
from isthmus.models.bundling.writer import check_writable
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import ConfigError
from isthmus.proto.record import Run, save

ALL = "all"
LAG_BUDGET_S = 0.02
"""How far a run in real time may fall behind its schedule (99th percentile)."""

app = typer.Typer(help="Emulate devices, network and server: in virtual time, or calibrate the real-time back ends.")
app.command("calibrate")(calibrate)


@app.callback(invoke_without_command=True)
def emulate(
    context: typer.Context,
    scenario: str | None = typer.Option(None, help="A shipped scenario (`isthmus emulate scenarios`), or a TOML file."),
    trace: str | None = typer.Option(None, help="A network trace: a file, or the name of a shipped one [lte-drive]."),
    swap: bool | None = typer.Option(None, "--swap", help="Play the trace's downlink as the uplink."),
    profile: str | None = typer.Option(None, help="The device: a shipped profile or a TOML file [pi4]."),
    bundle: str | None = typer.Option(None, help="Zoo name or folder of the bundle [cifar10]."),
    deadline: str | None = typer.Option(None, help="From capture to answer [150ms]."),
    fps: float | None = typer.Option(None, help="Frames a second [15]."),
    duration: str | None = typer.Option(None, help="How long [once through the trace]."),
    policy: str = typer.Option(
        "expected-utility", help="A policy's name or module:Class, several with commas, or all."
    ),
    sessions: int | None = typer.Option(None, help="Devices [1]."),
    seed: int | None = typer.Option(None, help="Of everything that is drawn [1]."),
    set_: list[str] = typer.Option([], "--set", help="KEY=VALUE: any other key of a scenario, e.g. rtt_ms=80."),
    out: Path | None = typer.Option(None, help="Also write every run's records into this folder."),
    real_time: bool = typer.Option(False, "--real-time", help="Take as long as it would; fail when falling behind."),
    capacity_: bool = typer.Option(
        False, "--capacity", help="Only say how many devices the server carries with nine of ten frames in time."
    ),
    workers: int | None = typer.Option(None, help="Processes [one for each policy, up to the processors]."),
    format_: Format = FORMAT,
) -> None:
    """Play a scenario with one or all policies; accuracy by the deadline, latency, bytes and energy for each."""
    if context.invoked_subcommand is not None:
        return
    changes: dict[str, object] = {
        "trace": trace,
        "swap": swap,
        "profile": profile,
        "bundle": bundle,
        "deadline_s": seconds(deadline, "--deadline"),
        "fps": fps,
        "duration_s": seconds(duration, "--duration"),
        "sessions": sessions,
        "seed": seed,
    }
    if out is not None:
        check_writable(out, out)
    asked = {key: value for key, value in changes.items() if value is not None} | dict(map(_pair, set_))
    base = scenarios.load(scenario, asked) if scenario else scenarios.of(asked, where="emulate")
    if capacity_:
        capacity.emulated(base, format_)
        return
    chosen = available(bundles.load(base.bundle)) if policy == ALL else tuple(policy.split(","))
    names = (*chosen, *BOUNDS) if policy == ALL else chosen
    players = [msgspec.structs.replace(base, policy=name) for name in names]
    played: list[Digest] = []
    try:
        for digests in _play(players, out, real_time=real_time, workers=workers):
            played += digests
    except KeyboardInterrupt:
        if played:
            _tell(base, played, format_)
        where = f"; their records are in {out}" if out is not None else ""
        typer.echo(
            f"interrupted: {len(played) // base.sessions} of {len(players)} policies are played{where}", err=True
        )
        raise
    _tell(base, played, format_)


def _tell(base: Scenario, played: list[Digest], format_: Format) -> None:
    facts = standings.facts(Comparison(played))
    if format_ == "json":
        settings = {k: v for k, v in msgspec.to_builtins(base).items() if k != "policy" and v != math.inf}
        typer.echo(json.dumps({"scenario": settings, "policies": facts}, indent=2))
    else:
        _show(base, facts)


@app.command("scenarios")
def list_scenarios(format_: Format = FORMAT) -> None:
    """The scenarios that come with Isthmus."""
    found = [scenarios.load(name) for name in scenarios.shipped()]
    if format_ == "json":
        typer.echo(json.dumps([msgspec.to_builtins(one) for one in found], default=str))
        return
    for one in found:
        typer.echo(f"{one.name:14} {one.about}")


def _pair(text: str) -> tuple[str, object]:
    """KEY=VALUE as TOML would read it; a bare word is a string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set: '{text}' is not KEY=VALUE")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _play(
    players: Sequence[Scenario], out: Path | None, *, real_time: bool, workers: int | None
) -> Iterator[list[Digest]]:
    """Each scenario played, in their order; several at a time in processes of their own, which end with the iterator."""
    jobs = [(player, out, shlex.join(sys.argv), real_time) for player in players]
    count = min(len(jobs), workers or os.cpu_count() or 1)
    if count == 1 or real_time:
        yield from _shown(map(_digests, jobs), len(jobs))
        return
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        count, mp_context=spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield from _shown(pool.map(_digests, jobs), len(jobs))
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _shown(results: Iterable[list[Digest]], count: int) -> Iterable[list[Digest]]:
    """The scenarios behind a progress bar, where somebody looks and has to wait."""
    errors = Console(stderr=True)
    return track(
        results, "emulating", count, console=errors, transient=True, disable=count < 2 or not errors.is_terminal
    )


def _digests(job: tuple[Scenario, Path | None, str, bool]) -> list[Digest]:
    """One scenario's figures, session by session; its records go to `out`."""
    player, out, command, real_time = job
    digests = []
    runs = _in_real_time(player) if real_time else simulate(player)
    for device, run in enumerate(runs):
        name = player.policy.replace(":", ".")
        path = Path(f"{name}.jsonl" if len(runs) == 1 else f"{name}-{device}.jsonl")
        if out is not None:
            path = out / path
            save(path, run._replace(header=msgspec.structs.replace(run.header, command=command)))
        digests.append(Digest.of(path, run))
    return digests


def _in_real_time(player: Scenario) -> list[Run]:
    """The runs of one scenario, played by the clock; the bounds, which play no part in a world, take no time."""
    if player.policy in BOUNDS:
        runs, notes = simulate(player), tuple[str, ...]()
    else:
        world = World(OpenedScenario.of(player))
        lag = asyncio.run(run_real(world, until_s=world.ends_s, budget_s=LAG_BUDGET_S))
        typer.echo(
            f"{player.policy}: {lag.deliveries} events, {lag.p99_s * 1e3:.2f} ms late (99th percentile)", err=True
        )
        runs, notes = world.runs(), (f"in real time: {lag}",)
    return [
        run._replace(header=msgspec.structs.replace(run.header, kind="emulated", notes=(*run.header.notes, *notes)))
        for run in runs
    ]


def _show(base: Scenario, facts: dict[str, dict[str, Any]]) -> None:
    who = f"{base.sessions} x {base.profile}" if base.sessions > 1 else base.profile
    typer.echo(
        f"{base.name or 'a scenario'}: {base.bundle} on {who} over {Path(base.trace).stem}, {base.fps:g} frames/s, "
        f"{base.deadline_s * 1e3:g} ms, seed {base.seed}"
    )
    Console(width=120).print(standings.table(facts))
    typer.echo(standings.LEGEND)
