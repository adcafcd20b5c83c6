"""Runs on disk: where they go, and `isthmus report`, which draws one again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from isthmus.cli.options import Format, check, require
from isthmus.emulation import sweep
from isthmus.models.bundling.writer import check_writable
from isthmus.proto import record
from isthmus.proto.errors import DataError
from isthmus.proto.record import Run

if TYPE_CHECKING:
    from isthmus.emulation.reports.figure_style import Form  # draws with matplotlib, which the field does not need

RUNS = Path("runs")
RECORDS = "records.jsonl"
RECORD_FILES = ("*.jsonl", "*.jsonl.zst")


def new_folder(root: Path = RUNS) -> Path:
    """A fresh folder named after the time; two runs in one second do not share it."""
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        folder = root / (name + suffix)
        if not folder.exists():
            break
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; go to a folder that this user may write to") from error
    return folder


def report(
    runs: list[Path] = typer.Argument(
        help="Files of records, runs' folders, a sweep's folder; live, emulated, simulated."
    ),
    out: Path | None = typer.Option(None, help="Where to write the page [the folder named, or a new one under runs/]."),
    plots: str = typer.Option("png", help="The plots' own files beside the page: png, svg, pdf, several with commas."),
    table: Path | None = typer.Option(None, help="Also write every frame of the runs into this CSV, a row each."),
    format_: Format = typer.Option("text", "--format", help="text prints where the page is, json every figure of it."),
) -> None:
    """Draw a run, or runs against each other: one HTML page that opens without a network, its plots, its summary."""
    require("emulation")
    forms = _forms(plots)
    files = [file for path in runs for file in found(path)]
    if table is not None:
        _write_table(table, files)
    if out is not None:
        check_writable(out, out)
    else:
        out = new_folder() if len(runs) > 1 else runs[0] if runs[0].is_dir() else runs[0].parent
    alone = len(files) == 1 and len(record.load_all(files[0])) == 1
    show(write_report(files[0], out, forms) if alone else write_comparison(files, out, forms), format_)


def _forms(text: str) -> list[Form]:
    """The forms that `--plots` names. Raises ConfigError."""
    from isthmus.emulation.reports.figure_style import FORMS

    words = [word.strip() for word in text.split(",")]
    for word in words:
        check("--plots", word, FORMS)
    return [form for form in FORMS if form in words]


def _write_table(path: Path, files: Sequence[Path]) -> None:
    from isthmus.emulation.reports import frames_table

    check_writable(path, path.parent)
    frames_table.write(path, (named for file in files for named in _runs(file)))
    typer.echo(path, err=True)


def show(page: Path, format_: Format) -> None:
    """Where the page is, or every figure of it."""
    typer.echo((page.parent / "summary.json").read_text() if format_ == "json" else page)


def found(path: Path) -> list[Path]:
    """The files of records that a path names: itself, a sweep's results, or all within a folder. Raises DataError."""
    if not path.is_dir():
        return [path]
    if (path / sweep.MANIFEST).is_file():
        return sweep.files(path)
    files = sorted(file for pattern in RECORD_FILES for file in path.rglob(pattern))
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not visible:
        raise DataError(f"{path}: no file of records within ({', '.join(RECORD_FILES)}); name a run's folder")
    return visible


def write_report(
    records_path: Path, out: Path, forms: Sequence[Form] = ("png",), *, pictures: Sequence[bytes] = ()
) -> Path:
    """The page of the newest run at `records_path`, written into `out`; returns its path. `pictures`, as JPEG, it shows too."""
    from isthmus.emulation.reports import run_report as pages  # draws with matplotlib, which the field does not need

    header, records = record.read(records_path)
    trace, why_not = pages.replayed(header)
    if why_not:
        header = msgspec.structs.replace(header, notes=(*header.notes, why_not))
    return pages.write(out, header, records, trace=trace, forms=forms, pictures=pictures)


def _runs(file: Path) -> list[tuple[Path, Run]]:
    """The runs of a file with what they are called: by the file, and by their number where there are several."""
    runs = record.load_all(file)
    return [(file if len(runs) == 1 else Path(f"{file}#{n}"), run) for n, run in enumerate(runs, start=1)]


def write_comparison(files: Sequence[Path], out: Path, forms: Sequence[Form] = ("png",)) -> Path:
    """The page of several runs, written into `out`; returns its path, and shows how the policies stand."""
    from isthmus.cli import standings
    from isthmus.emulation.reports import comparison_report
    from isthmus.emulation.reports.comparison import Comparison, Digest

    console = Console(stderr=True, width=120)
    reading = track(files, "reading", console=console, transient=True, disable=not console.is_terminal)
    comparison = Comparison([Digest.of(name, run) for file in reading for name, run in _runs(file)])
    page = comparison_report.write(out, comparison, forms=forms)
    console.print(standings.table(standings.facts(comparison)))
    console.print(standings.LEGEND, style="dim")
    return page
