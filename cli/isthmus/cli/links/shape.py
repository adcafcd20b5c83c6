"""`isthmus shape`: run a command whose only way to a server is a link shaped by a trace, as `mm-link` does."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import typer

from isthmus.cli.options import seconds, size
from isthmus.emulation import traces
from isthmus.emulation.link import Bursts, LinkOptions
from isthmus.emulation.realtime.backends import opened
from isthmus.emulation.reports.link_stamp import LinkStamp
from isthmus.emulation.traces import AnyTrace, PacketTrace
from isthmus.proto.errors import ConfigError

PLACEHOLDER = "{server}"
VARIABLE = "ISTHMUS_AGENT_SERVER"


def shape(
    command: list[str] = typer.Argument(
        help="After `--`; {server} in it becomes the server's address beyond the link."
    ),
    to: str = typer.Option("127.0.0.1:50551", help="HOST:PORT of the edge server."),
    trace: str = typer.Option("demo", help="A network trace: a file, or the name of a shipped one."),
    backend: str = typer.Option("auto", help="auto, relay, tun, netem or tbf."),
    outage: str = typer.Option("hold", help="At rate 0, hold what waits or drop it."),
    queue_bytes: float | None = typer.Option(
        None, parser=size, metavar="SIZE", help="Of the link, drop-tail [the back end's own: a hundred packets]."
    ),
    start: str = typer.Option("0s", help="Begin so far into the trace."),
    rtt_ms: float | None = typer.Option(None, help="Round trip where the trace knows none."),
    jitter: str = typer.Option("0ms", help="Standard deviation of a delay on top."),
    bursts: str | None = typer.Option(
        None, help="GOOD:BAD[:LOSS]: seconds in each state, share lost in the bad one [1]."
    ),
    seed: int = typer.Option(0, help="Of jitter and loss."),
    record: Path | None = typer.Option(
        None, help="At the end, name this link in the header of the record that the command wrote."
    ),
    lag_budget: str = typer.Option("20ms", help="How late the 99th percentile of deliveries may be."),
) -> None:
    """Run a command over a shaped link; its exit code, or 10 when the link fell behind its schedule."""
    if outage not in ("hold", "drop"):
        raise ConfigError(f"--outage: '{outage}' is neither hold nor drop")
    options = LinkOptions(
        start_s=seconds(start, "--start") or 0.0,
        queue_bytes=math.inf if queue_bytes is None else queue_bytes,
        outage="drop" if outage == "drop" else "hold",
        jitter_s=seconds(jitter, "--jitter") or 0.0,
        bursts=None if bursts is None else _bursts(bursts),
        seed=seed,
    )
    budget_s = seconds(lag_budget, "--lag-budget") or 0.0
    with opened(backend, _found(trace, rtt_ms), upstream=to, options=options, say=_say) as link:
        words = [word.replace(PLACEHOLDER, link.address) for word in command]
        try:
            code = subprocess.call(link.command(words), env={**os.environ, VARIABLE: link.address})
        except FileNotFoundError:
            raise ConfigError(f"{words[0]}: no such command") from None
        lag = link.end()
    _say(f"{link.name}: {lag}")
    if record is not None:
        LinkStamp(trace, link.began_s, options.start_s, (link.limits, f"{link.name}: {lag}")).write_into(record)
    if code:
        sys.exit(code if code > 0 else 128 - code)  # as a shell says which signal ended it
    lag.check(budget_s, who=link.name)


def _found(name: str, rtt_ms: float | None) -> AnyTrace:
    trace = traces.find(name)
    if rtt_ms is None:
        return trace
    return replace(trace, rtt_s=rtt_ms / 1e3) if isinstance(trace, PacketTrace) else trace.filled(rtt_s=rtt_ms / 1e3)


def _bursts(text: str) -> Bursts:
    try:
        return Bursts(*(float(part) for part in text.split(":")))
    except (TypeError, ValueError):
        raise ConfigError(f"--bursts: '{text}' is not GOOD:BAD or GOOD:BAD:LOSS, as in 10:0.5") from None


def _say(text: str) -> None:
    typer.echo(text, err=True)
