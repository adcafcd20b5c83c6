"""Runs on disk: where they go, and `isthmus report`, which draws one again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import typer

from isthmus.emulation import traces
from isthmus.proto import record

RUNS = Path("runs")
RECORDS = "records.jsonl"


def new_folder(root: Path = RUNS) -> Path:
    """A fresh folder named after the time; two runs in one second do not share it."""
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        folder = root / (name + suffix)
        if not folder.exists():
            break
    folder.mkdir(parents=True)
    return folder


def report(
    run: Path = typer.Argument(help="A run's folder, or a file of records."),
    out: Path | None = typer.Option(None, help="Where to write the page [the run's folder]."),
) -> None:
    """Draw a run: one HTML page that opens without a network, its plots and its summary."""
    path = run / RECORDS if run.is_dir() else run
    typer.echo(write_report(path, out or path.parent))


def write_report(records_path: Path, out: Path) -> Path:
    """The page of a run at `records_path`, written into `out`; returns its path."""
    from isthmus.emulation import report as pages  # draws with matplotlib, which the field does not need

    header, records = record.read(records_path)
    trace = traces.find(header.trace) if header.trace else None
    return pages.write(out, header, records, trace=trace)
