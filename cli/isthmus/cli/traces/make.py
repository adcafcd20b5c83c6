"""`isthmus traces make`: traces from generators. The same seed makes the same file, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from isthmus.cli.options import FORMAT, Format, seconds, tell
from isthmus.emulation import synthetic, traces
from isthmus.emulation.traces import AnyTrace, PacketTrace, Trace
from isthmus.models.bundling.writer import check_writable
from isthmus.proto.errors import ConfigError, DataError

app = typer.Typer(no_args_is_help=True, help="Make a trace: constant, steps, on-off, markov, sinusoid.")

OUT = typer.Argument(help="A .csv to write, or the .up or .down of a Mahimahi pair.")
UP = typer.Option(help="Mbit/s.")
DOWN = typer.Option(None, help="Mbit/s [four times up].")
RTT = typer.Option(40.0, help="Round trip without a queue.")
LOSS = typer.Option(0.0, help="Share of messages lost, 0 to 1.")
LENGTH = typer.Option("60s", help="How long the trace is.")
SEED = typer.Option(0, help="The same seed makes the same trace.")
STEP = typer.Option("100ms", help="A row for each.")


def check_out(out: Path) -> None:
    """Raises ConfigError for a suffix that is none of a trace, DataError when the folder is not there or not for this user."""
    if out.suffix not in (".csv", ".up", ".down"):
        raise ConfigError(f"{out}: a trace is written as .csv, or as the .up or .down of a Mahimahi pair")
    check_writable(out, out.parent)
    if not out.parent.is_dir():
        raise DataError(f"{out}: No such file or directory; make the folder first")


def save(trace: AnyTrace, out: Path, format_: Format) -> None:
    """Write `trace` in the form that the suffix of `out` names, and say so.

    Raises what `check_out` does, and DataError when the form cannot hold the trace.
    """
    tell(format_, _saved(trace, out), file=out, length_s=trace.length_s)


def _saved(trace: AnyTrace, out: Path) -> str:
    """What was written, in words."""
    check_out(out)
    try:
        if out.suffix == ".csv":
            rates = trace.binned() if isinstance(trace, PacketTrace) else trace
            traces.write_csv(rates, out)
            return f"{out}: {len(rates.time_s)} rows, {rates.length_s:g} s"
        lists = traces.packets(trace) if isinstance(trace, Trace) else trace
        traces.write_mahimahi(replace(lists, name=out.stem), out.parent)
    except OSError as error:
        raise DataError(f"{out}: {error.strerror}") from error
    known = [f".{way}" for way, ms in (("up", lists.up_ms), ("down", lists.down_ms)) if ms is not None]
    return f"{out.with_suffix('')}: {' and '.join(known)}, {lists.length_s:g} s; Mahimahi's form keeps no delay and no loss"


@app.command()
def constant(
    out: Path = OUT,
    up_mbps: float = UP,
    down_mbps: float | None = DOWN,
    rtt_ms: float = RTT,
    loss: float = LOSS,
    length: str = LENGTH,
    format_: Format = FORMAT,
) -> None:
    """One rate throughout."""
    down = 4 * up_mbps if down_mbps is None else down_mbps
    made = synthetic.constant(up_mbps=up_mbps, down_mbps=down, rtt_ms=rtt_ms, loss=loss, length_s=_length(length))
    save(made, out, format_)


@app.command()
def steps(
    out: Path = OUT,
    row: list[str] = typer.Option(help="SECONDS:UP:DOWN:RTT in s, Mbit/s, Mbit/s, ms; repeat it, in order."),
    loss: float = LOSS,
    format_: Format = FORMAT,
) -> None:
    """Rates that you name, one after the other: --row 10:8:20:40 --row 5:0:0:40 is 8 Mbit/s, then an outage."""
    save(synthetic.steps([_row(text) for text in row], loss=loss), out, format_)


@app.command("on-off")
def on_off(
    out: Path = OUT,
    up_mbps: float = UP,
    down_mbps: float | None = DOWN,
    on: str = typer.Option("10s", help="How long the link is there, in the mean."),
    off: str = typer.Option("2s", help="How long it is gone, in the mean."),
    rtt_ms: float = RTT,
    loss: float = LOSS,
    length: str = LENGTH,
    step: str = STEP,
    seed: int = SEED,
    format_: Format = FORMAT,
) -> None:
    """A link that comes and goes: a Markov chain of two states."""
    made = synthetic.on_off(
        up_mbps=up_mbps,
        down_mbps=4 * up_mbps if down_mbps is None else down_mbps,
        on_s=_above_zero(on, "--on"),
        off_s=_above_zero(off, "--off"),
        rtt_ms=rtt_ms,
        loss=loss,
        length_s=_length(length),
        step_s=_above_zero(step, "--step"),
        seed=seed,
    )
    save(made, out, format_)


@app.command()
def markov(
    out: Path = OUT,
    states_mbps: str = typer.Option("0.2,0.8,2,5,9,12", help="Rates up that it walks between, comma-separated."),
    stay: float = typer.Option(0.9, help="Probability to stay in a state for another step."),
    rtt_ms: str = typer.Option("35,110", help="Round trip at the highest rate and at the lowest."),
    loss: float = LOSS,
    length: str = LENGTH,
    step: str = STEP,
    seed: int = SEED,
    format_: Format = FORMAT,
) -> None:
    """A cell seen from a moving device: a walk between neighbouring rates, the delay longer where the rate is lower."""
    states, delays = _numbers(states_mbps, "--states-mbps"), _numbers(rtt_ms, "--rtt-ms")
    if len(delays) != 2:
        raise ConfigError(f"--rtt-ms: '{rtt_ms}', expected two numbers, as in 35,110")
    made = synthetic.markov(
        states,
        stay=stay,
        rtt_ms=(delays[0], delays[1]),
        loss=loss,
        length_s=_length(length),
        step_s=_above_zero(step, "--step"),
        seed=seed,
    )
    save(made, out, format_)


@app.command()
def sinusoid(
    out: Path = OUT,
    mean_mbps: float = typer.Option(help="Mean rate up, Mbit/s."),
    swing: float = typer.Option(0.5, help="Amplitude, as a share of the mean."),
    period: str = typer.Option("20s", help="One swing up and down."),
    noise: float = typer.Option(0.0, help="Standard deviation of each step, as a share of the mean."),
    rtt_ms: float = RTT,
    loss: float = LOSS,
    length: str = LENGTH,
    step: str = STEP,
    seed: int = SEED,
    format_: Format = FORMAT,
) -> None:
    """A cell whose load comes and goes, with noise."""
    made = synthetic.sinusoid(
        mean_mbps=mean_mbps,
        swing=swing,
        period_s=_above_zero(period, "--period"),
        noise=noise,
        rtt_ms=rtt_ms,
        loss=loss,
        length_s=_length(length),
        step_s=_above_zero(step, "--step"),
        seed=seed,
    )
    save(made, out, format_)


def _length(text: str) -> float:
    return _above_zero(text, "--length")


def _above_zero(text: str, flag: str) -> float:
    value = seconds(text, flag)
    if not value:
        raise ConfigError(f"{flag}: must be above 0")
    return value


def _numbers(text: str, flag: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{flag}: '{text}' is not a list of numbers; write 1,2.5,10") from None


def _row(text: str) -> tuple[float, float, float, float]:
    try:
        length_s, up, down, rtt = (float(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(f"--row: '{text}' is not SECONDS:UP:DOWN:RTT, as in 10:8:20:40") from None
    if not length_s > 0:
        raise ConfigError(f"--row: '{text}': must hold for more than 0 s")
    return length_s, up, down, rtt
