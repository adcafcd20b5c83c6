"""`isthmus traces`: list, describe and convert network traces. Rates in Mbit/s and delays in ms, as in the files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import typer

from isthmus.cli.options import FORMAT, Format
from isthmus.cli.traces import make, record
from isthmus.emulation import trace_readers, traces
from isthmus.emulation.trace_readers.forms import COLUMNS as FILE_COLUMNS
from isthmus.emulation.trace_readers.forms import Source
from isthmus.emulation.trace_summary import DelaySummary, RateSummary, TraceSummary, summary
from isthmus.emulation.traces import MBIT_PER_BYTE, PacketTrace
from isthmus.proto.errors import ConfigError, DataError

app = typer.Typer(no_args_is_help=True, help="Network traces: list, info, convert, make, record.")
app.add_typer(make.app, name="make")
app.command("record")(record.record)
app.command("answer")(record.answer)

NAME = typer.Argument(
    help="A .csv, a Mahimahi list or pair, `time rate` lines, JSON of iperf3 -J, or the name of a shipped trace."
)
COLUMNS = typer.Option(
    [], "--columns", help="`NAME=FACTOR*COLUMN`, e.g. `up_mbps=0.001*UL_kbps`: what a table calls otherwise; repeat it."
)


@app.command("list")
def list_(
    folder: Path | None = typer.Argument(None, help="A folder of traces [those that come with Isthmus]."),
    format_: Format = FORMAT,
) -> None:
    """One line a trace: length, rates, outages. A file that cannot be used is named with its reason."""
    found: list[tuple[str, TraceSummary]] = []
    refused: list[str] = []
    for name in traces.shipped() if folder is None else _in(folder):
        try:
            found.append((Path(name).stem, summary(traces.find(name))))
        except DataError as error:
            refused.append(str(error))
    if format_ == "json":
        typer.echo(json.dumps({"traces": [_shown(*one) for one in found], "refused": refused}))
        return
    widest = max((len(name) for name, _ in found), default=5)
    typer.echo(
        f"{'trace':{widest}} {'s':>6}  {'up: mean':>8} {'p5':>7} {'out s':>6}  {'down: mean':>10} {'p5':>7} {'out s':>6}"
    )
    for name, one in found:
        up, down = _cells(one.up), _cells(one.down)
        typer.echo(
            f"{name:{widest}} {one.length_s:6.4g}  {up[0]:>8} {up[1]:>7} {up[2]:>6}  {down[0]:>10} {down[1]:>7} {down[2]:>6}"
        )
    typer.echo("rates in Mbit/s over bins of 1 s; out: seconds below 0.1 Mbit/s")
    for reason in refused:
        typer.echo(reason)


@app.command()
def info(name: str = NAME, columns: list[str] = COLUMNS, format_: Format = FORMAT) -> None:
    """What a trace is like: mean, percentiles, outages, autocorrelation, delay."""
    trace = traces.find(name, dict(map(_source, columns)))
    one = summary(trace)
    if format_ == "json":
        typer.echo(json.dumps({**_shown(trace.name, one), "sha256": trace.sha256}))
        return
    typer.echo(f"{trace.name}: {one.length_s:g} s, {one.rows} rows, sha256 {trace.sha256[:12]}")
    for way, rates in (("up", one.up), ("down", one.down)):
        typer.echo(f"{way:5} {_sentence(rates)}")
    typer.echo(f"rtt   {_delay_sentence(one.rtt)}; loss {'unknown' if one.loss is None else f'{one.loss:.3%}'}")


@app.command()
def convert(
    name: str = NAME,
    out: Path = make.OUT,
    columns: list[str] = COLUMNS,
    scale: float = typer.Option(1.0, help="Both rates times this."),
    loop: int = typer.Option(1, help="The trace so many times over."),
    swap: bool = typer.Option(False, "--swap", help="Exchange up and down."),
    mirror: bool = typer.Option(False, "--mirror", help="Give a direction that nobody recorded the other's rates."),
    rtt_ms: float | None = typer.Option(None, help="Round trip where it is unknown."),
    loss: float | None = typer.Option(None, help="Loss (0 to 1) where it is unknown."),
    bin_ms: float = typer.Option(100.0, help="Bins in which packets are counted, from a Mahimahi pair."),
    format_: Format = FORMAT,
) -> None:
    """Change a trace's form: CSV to Mahimahi and back, scaled, looped, swapped, filled in."""
    if not (scale > 0 and loop >= 1 and bin_ms > 0):
        raise ConfigError("convert: --scale and --bin-ms must be above 0, --loop at least 1")
    trace = traces.find(name, dict(map(_source, columns)))
    changed = scale != 1 or loop != 1 or swap or mirror or not (rtt_ms is None and loss is None)
    if changed or out.suffix == ".csv":  # otherwise Mahimahi's lists are copied exactly
        rates = trace.binned(bin_ms / 1e3) if isinstance(trace, PacketTrace) else trace
        rates = rates.swapped() if swap else rates
        rates = rates.mirrored() if mirror else rates
        trace = rates.filled(rtt_s=_number(rtt_ms) / 1e3, loss=_number(loss)).scaled(scale).looped(loop)
    make.save(trace, out, format_)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _source(text: str) -> tuple[str, Source]:
    """NAME=FACTOR*COLUMN, or NAME=COLUMN as it stands. Raises ConfigError."""
    name, equals, value = text.partition("=")
    factor, star, column = value.partition("*")
    try:
        source = Source(float(factor), column.strip()) if star else Source(1.0, value.strip())
    except ValueError:
        source = None
    if not equals or source is None or not source.column or not math.isfinite(source.factor):
        raise ConfigError(f"--columns: '{text}' is not NAME=FACTOR*COLUMN, as in up_mbps=0.001*UL_kbps")
    if name.strip() not in FILE_COLUMNS:
        raise ConfigError(f"--columns: '{name.strip()}' is not one of {', '.join(FILE_COLUMNS)}")
    return name.strip(), source


def _in(folder: Path) -> list[str]:
    """The traces of a folder: every CSV, one of each Mahimahi pair, and whatever is one by what is in it."""
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; name one that holds .csv or .up and .down files")
    lists = {path.with_suffix(""): path for suffix in ("down", "up") for path in folder.glob(f"*.{suffix}")}
    named = [*sorted(folder.glob("*.csv")), *sorted(lists.values())]
    rest = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in (".csv", ".up", ".down"))
    return [str(path) for path in [*named, *(path for path in rest if trace_readers.recognised(path))]]


def _shown(name: str, one: TraceSummary) -> dict[str, Any]:
    """The summary for programs; what is unknown is null."""
    rtt = one.rtt
    return {
        "name": name,
        "length_s": one.length_s,
        "rows": one.rows,
        "up": _rates_shown(one.up),
        "down": _rates_shown(one.down),
        "rtt": None
        if rtt is None
        else {"median_ms": rtt.median_s * 1e3, "p95_ms": rtt.p95_s * 1e3, "p99_ms": rtt.p99_s * 1e3},
        "loss": one.loss,
    }


def _rates_shown(rates: RateSummary | None) -> dict[str, Any] | None:
    if rates is None:
        return None
    return {
        "mean_mbps": rates.mean_Bps * MBIT_PER_BYTE,
        "median_mbps": rates.median_Bps * MBIT_PER_BYTE,
        "p5_mbps": rates.p5_Bps * MBIT_PER_BYTE,
        "p95_mbps": rates.p95_Bps * MBIT_PER_BYTE,
        "variation": _known(rates.variation),
        "outage_s": rates.outage_s,
        "outages": rates.outages,
        "longest_outage_s": rates.longest_outage_s,
        "autocorrelation": {f"{lag}s": _known(value) for lag, value in rates.autocorrelation.items()},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _cells(rates: RateSummary | None) -> list[str]:
    if rates is None:
        return ["–"] * 3
    return [f"{rates.mean_Bps * MBIT_PER_BYTE:.4g}", f"{rates.p5_Bps * MBIT_PER_BYTE:.3g}", f"{rates.outage_s:.4g}"]


def _sentence(rates: RateSummary | None) -> str:
    if rates is None:
        return "unknown; `isthmus traces convert --mirror` gives it the other direction's rates"
    again = ", ".join(f"{lag} s {value:.2f}" for lag, value in rates.autocorrelation.items() if not math.isnan(value))
    return (
        f"mean {rates.mean_Bps * MBIT_PER_BYTE:.4g} Mbit/s, median {rates.median_Bps * MBIT_PER_BYTE:.4g}, "
        f"p5 {rates.p5_Bps * MBIT_PER_BYTE:.4g}, p95 {rates.p95_Bps * MBIT_PER_BYTE:.4g}, variation {rates.variation:.2f}; "
        f"below 0.1 Mbit/s {rates.outages} times, {rates.outage_s:g} s together, {rates.longest_outage_s:g} s the longest; "
        f"autocorrelation {again or 'undefined'}"
    )


def _delay_sentence(rtt: DelaySummary | None) -> str:
    if rtt is None:
        return "unknown; `--rtt-ms` of convert or of the emulator fills it in"
    return f"median {rtt.median_s * 1e3:.4g} ms, p95 {rtt.p95_s * 1e3:.4g}, p99 {rtt.p99_s * 1e3:.4g}"
