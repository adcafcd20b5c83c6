"""`isthmus bench`: what machines can do. Fits the shipped profiles, and measures this machine as a device or a server."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import msgspec
import typer

from isthmus.cli.load import capacity
from isthmus.cli.options import FORMAT, NOTHING, Format, if_interrupted, missing
from isthmus.device import measure, sensors
from isthmus.models import bundle as bundles
from isthmus.models import profiles, rates
from isthmus.models.bundling.writer import check_writable
from isthmus.models.profiles import Cost, Observation, Profile, Timing
from isthmus.proto.errors import DataError
from isthmus.proto.operations.version import version

app = typer.Typer(no_args_is_help=True, help="Profiles: how well they fit, and a new one of this machine.")
app.command("serve")(capacity.serve)
OUT = typer.Option(None, help="Write the profile to this file.")
MEASURED = "measured"


@app.command("profiles")
def profiles_(
    name: list[str] = typer.Argument(None, help="Profiles or files [all that are shipped]."),
    write: bool = typer.Option(False, "--write", help="Store fit and error in the files again."),
    format_: Format = FORMAT,
) -> None:
    """Fit each profile's rates on its timings, and say how well they predict the networks left out of the fit."""
    rows = []
    for given in name or profiles.names():
        fitted, errors = rates.fit(profiles.load(given), source="fit")
        if write:
            _write(fitted, profiles.path_of(given))
        for r in fitted.rates:
            rows.append(
                {
                    "profile": fitted.name,
                    "threads": r.threads,
                    "left_out_median": r.left_out_median,
                    "left_out_worst": r.left_out_worst,
                    "left_out": {workload: round(e, 3) for workload, e in errors[r.threads].items()},
                }
            )
    typer.echo(json.dumps(rows) if format_ == "json" else _table(rows))


def _table(rows: list[dict[str, object]]) -> str:
    lines = ["error of the time predicted for a network that the fit had not seen"]
    for row in rows:
        left_out = row["left_out"]
        assert isinstance(left_out, dict)
        each = "  ".join(f"{workload} {error:+.0%}" for workload, error in left_out.items())
        head = f"{row['profile']}, {row['threads']}:"
        lines.append(f"{head:24} median {row['left_out_median']:.0%}, worst {row['left_out_worst']:.0%};  {each}")
    return "\n".join(lines)


@app.command()
def device(
    bundle: list[str] = typer.Option(["cifar10", "signs"], help="Bundles whose heads are timed."),
    check: list[str] = typer.Option([], help="Also say how well the profile predicts this bundle's head."),
    repeats: int = typer.Option(50, help="Calls of each stage; the median counts."),
    name: str | None = typer.Option(None, help="What the profile is called [the file's name, or this-device]."),
    out: Path | None = OUT,
    format_: Format = FORMAT,
) -> None:
    """Time heads on this machine, stage by stage, and write it down as a device's profile. Let the machine be idle."""
    if out is not None:
        check_writable(out, out.parent)
    idle = sensors.read()
    opened = [bundles.load(given, half="head") for given in bundle]
    found: list[measure.Measured] = []
    try:
        for each in opened:
            found.append(measure.head(each, repeats=repeats, source=MEASURED, counted="graph"))
    except KeyboardInterrupt:
        if not found:
            raise
        typer.echo(f"interrupted: the profile is of {', '.join(bundle[: len(found)])} alone", err=True)
    readings = tuple(reading for m in found for reading in m.readings)
    held_back = sorted({why for reading in readings for why in reading.throttling or ()})
    measured = Profile(
        schema=profiles.SCHEMA,
        name=name or (out.stem if out is not None else "this-device"),
        title=machine(),
        sources={
            MEASURED: f"{command()}; {'held back by ' + ', '.join(held_back) if held_back else 'not throttled'}"
            f"; {repeats} calls each, their median",
            "graph": "counted from the bundle's head.tflite: FLOPs, bytes that its operators read and write, operators",
            "fit": "isthmus bench device: least squares of the relative error, rates not negative",
        },
        rates=(),
        workloads={workload: cost for m in found for workload, cost in m.workloads.items()},
        timings=tuple(timing for m in found for timing in m.timings),
        power=measure.power(idle, readings, source=MEASURED),
        observed=measure.observations(opened[0], readings, repeats=repeats, source=MEASURED),
    )
    fitted, _ = rates.fit(measured, source="fit")
    fitted = msgspec.structs.replace(fitted, int8=rates.int8_factors(fitted, source="fit"))
    if held_back:
        typer.echo(f"throttled while it was measured ({', '.join(held_back)}): cool it and measure again", err=True)
    _show(fitted, out, format_)
    if len(found) < len(opened):
        raise KeyboardInterrupt
    for given in check:
        typer.echo(_checked(fitted, bundles.load(given, half="head"), repeats), err=True)


def _checked(profile: Profile, other: bundles.Bundle, repeats: int) -> str:
    """How far `profile` is off for the head of a bundle that it was not fitted on."""
    found = measure.head(other, repeats=repeats, source=MEASURED, counted="graph")
    lines = [f"predicted / measured - 1 for {other.manifest.name}"]
    for threads in measure.thread_counts():
        errors = []
        for t in (t for t in found.timings if t.threads == threads):
            cost = found.workloads[t.workload]
            predicted = profile.stage_s(cost.flops, cost.traffic_bytes, ops=cost.ops, threads=threads, int8=t.int8)
            errors.append(predicted / t.seconds - 1)
        middle = sorted(map(abs, errors))[len(errors) // 2]
        each = " ".join(f"{e:+.0%}" for e in errors)
        lines.append(f"{threads}: median {middle:.0%}, worst {max(map(abs, errors)):.0%};  {each}")
    return "\n".join(lines)


@app.command()
@if_interrupted(NOTHING)
def server(
    bundle: list[str] = typer.Option(["cifar10", "signs"], help="Bundles whose tails are timed; at least two."),
    threads: int = typer.Option(os.cpu_count() or 1, help="Threads of one batch."),
    max_batch: int = typer.Option(32, help="The largest batch."),
    name: str = typer.Option("edge-server", help="What the profile is called."),
    out: Path | None = OUT,
    format_: Format = FORMAT,
) -> None:
    """Time tails on this machine, batch by batch, and write it down as a server's profile."""
    if out is not None:
        check_writable(out, out.parent)
    timings: list[Timing] = []
    costs, bests = {}, []
    for given in bundle:
        found = bundles.load(given)
        workload = f"{found.manifest.name}-tail"
        costs[workload] = Cost(
            flops=found.manifest.tail_flops, traffic_bytes=0, ops=0, source="bundle", confidence="estimate"
        )
        times = _tail_times(found, threads, max_batch)
        bests.append(times[1])
        for size, seconds in times.items():
            seconds = float(f"{seconds:.4g}")
            timings.append(
                Timing(workload=workload, batch=size, seconds=seconds, source=MEASURED, confidence="measured")
            )
    measured = Profile(
        schema=profiles.SCHEMA,
        name=name,
        title=f"{threads} {'thread' if threads == 1 else 'threads'} of {machine()}",
        kind="server",
        sources={
            MEASURED: f"{command()}; best of a few runs",
            "bundle": "FLOPs of the bundle's tail, from its bundle.toml",
            "fit": "isthmus bench server: t(b) = call + b * FLOPs * flop, least squares of the relative error",
        },
        rates=(),
        workloads=costs,
        timings=tuple(timings),
        observed=_overheads(bundles.load(bundle[0], half="tail"), threads, bests[0]),
    )
    _show(rates.fit(measured, source="fit")[0], out, format_)


def _overheads(found: bundles.Bundle, threads: int, best_s: float) -> dict[str, Observation]:
    """What a server takes beyond its tail's best time."""
    from isthmus.emulation.load import overheads

    rest = asyncio.run(overheads.overheads(found))
    stretch = asyncio.run(overheads.stretch(found, threads, best_s))
    values = {capacity.LOOP: rest.loop_s, capacity.HOP: rest.hop_s, **dict(zip(capacity.STRETCH, stretch, strict=True))}
    return {
        name: Observation(value=float(f"{value:.4g}"), source=MEASURED, confidence="measured")
        for name, value in values.items()
    }


def _tail_times(found: bundles.Bundle, threads: int, max_batch: int) -> dict[int, float]:
    try:
        from isthmus.edge_server import engines, streams
        from isthmus.edge_server.repository.tail import warm_up
    except ImportError as error:
        raise missing(error, "server") from error
    engine = engines.Tail(found, threads)
    served = streams.Served(found.manifest.name, found.sha256, found.codec)
    rounds = [warm_up(engine, served, max_batch) for _ in range(5)]
    return {size: min(times[size] for times in rounds) for size in rounds[0]}


def _show(profile: Profile, out: Path | None, format_: str) -> None:
    """Show what was measured; write it where `out` says."""
    if out is not None:
        _write(profile, out)
    if format_ == "json":
        typer.echo(msgspec.json.encode(profile))
    else:
        typer.echo(str(out) if out is not None else profiles.render(profile), nl=out is not None)


def _write(profile: Profile, path: Path) -> None:
    """Raises DataError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(profiles.render(profile))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name another place for the profile") from error


def command() -> str:
    """What is running, on what and when: the source of everything that this run measures."""
    program = shlex.join(["isthmus", *sys.argv[1:]])
    return f"{program} (isthmus {version()}) on {machine()}, {date.today().isoformat()}"


def machine() -> str:
    """The machine in words: its model where the kernel knows it, else its processor."""
    model = Path("/proc/device-tree/model")
    if model.is_file():
        return model.read_text().rstrip("\0")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"
