"""`isthmus relay`: a shaped link between two real processes, without privileges."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import typer

from isthmus.cli.options import FORMAT, Format, run_role, seconds, tell
from isthmus.emulation import traces
from isthmus.emulation.realtime.relay import LIMITS, OPTIONS, Relay
from isthmus.emulation.reports.link_stamp import LinkStamp


def relay(
    listen: str = typer.Option("127.0.0.1:50552", help="HOST:PORT that the agent connects to."),
    to: str = typer.Option("127.0.0.1:50551", help="HOST:PORT of the edge server."),
    trace: str = typer.Option("demo", help="A network trace: a file, or the name of a shipped one."),
    start: str = typer.Option("0s", help="Begin so far into the trace."),
    record: Path | None = typer.Option(None, help="At the end, name this link in the header of an agent's record."),
    format_: Format = FORMAT,
) -> None:
    """Shape the link between agent and server by a trace, without privileges: rates, delays, outages (no loss)."""
    options = replace(OPTIONS, start_s=seconds(start, "--start") or 0.0)
    shaper = Relay(traces.find(trace), listen=listen, upstream=to, options=options)
    try:
        run_role(_relay(shaper, to, trace, format_))
    finally:
        if record is not None and record.exists():
            LinkStamp(trace, shaper.started_s, options.start_s, (LIMITS, f"relay: {shaper.lag}")).write_into(record)


async def _relay(shaper: Relay, to: str, trace: str, format_: Format) -> None:
    async with shaper:
        address = f"{shaper.host}:{shaper.port}"
        tell(format_, f"{address} shapes the way to {to}, trace {trace}", address=address, to=to, trace=trace)
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        tell(format_, f"relay: {shaper.lag}", lag=shaper.lag)
