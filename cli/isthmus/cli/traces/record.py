"""`isthmus traces record` on a device and `isthmus traces answer` beside its server: a real link as a trace."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import typer

from isthmus.cli.options import FORMAT, NOTHING, Format, if_interrupted, run_role, seconds, tell
from isthmus.cli.traces.make import OUT, check_out, save
from isthmus.emulation.realtime import record_link
from isthmus.emulation.traces import Direction
from isthmus.proto.errors import ConfigError

WAYS: dict[str, tuple[Direction, ...]] = {"up": ("up",), "down": ("down",), "both": ("up", "down")}


@if_interrupted(NOTHING)
def record(
    out: Path = OUT,
    server: str = typer.Option(help="HOST:PORT where `isthmus traces answer` listens."),
    ways: str = typer.Option("up", help="Which way to fill with a heavy flow: up, down or both."),
    length: str = typer.Option("60s", help="How long."),
    format_: Format = FORMAT,
) -> None:
    """Record a real link: goodput of a heavy flow, and the delay of a light ping beside it. It costs the data it sends."""
    length_s = seconds(length, "--length")
    if not length_s:
        raise ConfigError("--length: must be above 0")
    if ways not in WAYS:
        raise ConfigError(f"--ways: '{ways}' is not up, down or both")
    check_out(out)  # what is recorded cost time and data
    save(asyncio.run(record_link.record(server, name=out.stem, ways=WAYS[ways], length_s=length_s)), out, format_)


def answer(
    listen: str = typer.Option("127.0.0.1:50553", help="HOST:PORT, of an address that the device can reach."),
    format_: Format = FORMAT,
) -> None:
    """Be the far end of a recording, until Ctrl-C. Anybody who reaches the port may use it: open it for the recording only."""
    run_role(record_link.answer(listen, ready=partial(_ready, format_)))


def _ready(format_: Format, address: str) -> None:
    tell(format_, f"{address} answers recordings", address=address)
