"""`isthmus sweep`: every combination of what a file lists, over processes, then one page that sets them side by side."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isthmus.cli.options import Format, require
from isthmus.cli.processes import command_line
from isthmus.cli.report import RUNS, show, write_comparison
from isthmus.emulation import ray_sweep
from isthmus.emulation import sweep as sweeps
from isthmus.emulation.simulate import simulate
from isthmus.emulation.sweep import Ended, SweepJob, SweepManifest
from isthmus.models.bundling.writer import check_writable
from isthmus.proto.errors import IsthmusError
from isthmus.proto.operations.version import version

COLUMNS = (TextColumn("sweeping"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
PLAIN_SHARE = 10
"""So many lines of progress are printed where there is no terminal."""


def sweep(
    file: Path = typer.Argument(help="A TOML file: a scenario's keys, each with a value or a list of values."),
    out: Path | None = typer.Option(None, help="The sweep's folder [runs/ and the file's name]."),
    workers: int | None = typer.Option(None, help="Processes [one for each processor]."),
    on: str | None = typer.Option(
        None,
        help="Play on Ray: `ray` for RAY_ADDRESS or else this machine, or a cluster's address, e.g. ray://head:10001.",
    ),
    format_: Format = typer.Option("text", "--format", help="text prints where the page is, json every figure of it."),
) -> None:
    """Play every combination of what FILE lists; interrupted or extended, the same command goes on where it stopped."""
    require("emulation", *(["ray"] if on is not None else []))
    listed = sweeps.read(file)
    sweeps.check(listed)
    code = sweeps.code_sha256()
    jobs = sweeps.jobs(listed, code)
    folder = out or RUNS / file.stem
    check_writable(folder, folder)
    left = sweeps.to_play(folder, jobs)
    made = SweepManifest.of(
        jobs,
        command=command_line(sys.argv[1:]),
        version=version(),
        code_sha256=code,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        host={"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
    )
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"{len(jobs)} runs in {folder}, {len(jobs) - len(left)} of them already played")
    try:
        ended = _watched(_played(folder, made, left, workers, on), len(left), console)
    except KeyboardInterrupt:
        console.print(f"{len(jobs) - len(sweeps.to_play(folder, jobs))} of {len(jobs)} runs are in {folder}; "
                      "the same command goes on from there")  # fmt: skip
        raise
    _draw(folder, format_)
    failed = [(one.job.name, one.error) for one in ended if one.error is not None]
    if failed:
        raise IsthmusError(f"{folder}: {len(failed)} of {len(jobs)} runs failed; {failed[0][0]}: {failed[0][1]}")


def _played(
    folder: Path, made: SweepManifest, left: list[SweepJob], workers: int | None, on: str | None
) -> Iterator[Ended]:
    """What was left, as it ends: in processes of this machine, or on Ray."""
    if on is None:
        return sweeps.run(folder, made, left, processes=workers or os.cpu_count() or 1, play=simulate)
    address = None if on == "ray" else on
    return ray_sweep.run(folder, made, left, address=address, cpus=workers, play=simulate)


def _watched(ending: Iterator[Ended], count: int, console: Console) -> list[Ended]:
    """Everything that was left, played, with progress for whoever watches."""
    ended: list[Ended] = []
    with Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=count)
        for one in ending:
            ended.append(one)
            progress.advance(bar)
            if one.error is not None:
                console.print(f"{one.job.name}: {one.error}")
            if not console.is_terminal and len(ended) % max(1, count // PLAIN_SHARE) == 0:
                console.print(f"  {len(ended)} of {count}")
    return ended


def _draw(folder: Path, format_: Format) -> None:
    files = sweeps.files(folder)
    if files:
        show(write_comparison(files, folder), format_)
