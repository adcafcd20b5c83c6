"""The roles that run in the field: `isthmus agent`, `serve`, `relay`, and the certificates between them.

Every key of a role's configuration file is also a flag and an environment variable (ISTHMUS_AGENT_DEADLINE_S, ...).
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from isthmus.device.config import AgentConfig
from isthmus.device.run import run_agent
from isthmus.emulation import traces
from isthmus.emulation.realtime import OPTIONS, Relay
from isthmus.proto import config
from isthmus.proto.errors import ConfigError

certs = typer.Typer(no_args_is_help=True, help="Certificates for TLS in both directions.")
CONFIG = typer.Option(None, "--config", "-c", help="TOML file; flags and environment win over it.")
INSECURE = typer.Option(None, "--insecure", help="Plaintext instead of TLS.")


def seconds(text: str | None, flag: str) -> float | None:
    """'100ms' or '0.1s' or '0.1' as seconds; ConfigError names the flag."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9.]+)\s*(ms|s|)", text.strip())
    try:
        value = float(match[1]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise ConfigError(f"{flag}: '{text}' is not a duration; write 100ms or 0.1s")
    return value / 1000 if match[2] == "ms" else value


def agent(
    config_file: Path | None = CONFIG,
    bundle: str | None = typer.Option(None, help="Zoo name or folder of the bundle [signs]."),
    source: str | None = typer.Option(None, help="Folder, video file, camera:N or generated:SEED [generated:0]."),
    server: str | None = typer.Option(None, help="HOST:PORT of the edge server; without it, the device answers alone."),
    deadline: str | None = typer.Option(None, help="From capture to answer, e.g. 100ms [100ms]."),
    fps: float | None = typer.Option(None, help="Frames a second [the source's own, or 10]."),
    frames: int | None = typer.Option(None, help="Stop after so many frames."),
    certs_: str | None = typer.Option(None, "--certs", help="Folder made by `isthmus certs init`."),
    insecure: bool | None = INSECURE,
    policy: str | None = typer.Option(None, help="expected-utility, always-offload or local-only."),
    threads: int | None = typer.Option(None, help="Threads of the head [1]."),
    client_id: str | None = typer.Option(None, help="What the server's log calls this device."),
    record: str | None = typer.Option(None, help="Also write answers, with the run's header, to this file."),
) -> None:
    """Run the device's half: one line of JSON for every answer, on standard output."""
    flags: dict[str, object] = {
        "bundle": bundle,
        "source": source,
        "server": server,
        "deadline_s": seconds(deadline, "--deadline"),
        "fps": fps,
        "frames": frames,
        "certs": certs_,
        "insecure": insecure,
        "policy": policy,
        "threads": threads,
        "client_id": client_id,
        "record": record,
    }
    settings = config.load(AgentConfig, config_file, flags, prefix="ISTHMUS_AGENT")
    _run(run_agent(settings, command=shlex.join(sys.argv)))


def serve(
    config_file: Path | None = CONFIG,
    bundle: str | None = typer.Option(None, help="Zoo name or folder of the bundle [signs]."),
    listen: str | None = typer.Option(None, help="HOST:PORT [127.0.0.1:50551]."),
    certs_: str | None = typer.Option(None, "--certs", help="Folder made by `isthmus certs init`."),
    insecure: bool | None = INSECURE,
    metrics: str | None = typer.Option(None, help="HOST:PORT of the Prometheus page [none]."),
    threads: int | None = typer.Option(None, help="Threads of the tail [1]."),
    max_batch: int | None = typer.Option(None, help="Largest batch [8]."),
    credits: int | None = typer.Option(None, help="Frames that a device may have in flight [8]."),
    max_streams: int | None = typer.Option(None, help="Devices served at a time [64]."),
    grace: str | None = typer.Option(None, help="How long to go on answering after SIGTERM [5s]."),
    debug: bool | None = typer.Option(None, "--debug", help="Also serve gRPC reflection."),
) -> None:
    """Run the server's half."""
    try:
        from isthmus.edge_server.config import ServerConfig
        from isthmus.edge_server.server import serve as run_server
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed; the server needs `pip install 'isthmus[server]'`") from error
    flags: dict[str, object] = {
        "bundle": bundle,
        "listen": listen,
        "certs": certs_,
        "insecure": insecure,
        "metrics": metrics,
        "threads": threads,
        "max_batch": max_batch,
        "credits": credits,
        "max_streams": max_streams,
        "grace_s": seconds(grace, "--grace"),
        "debug": debug,
    }
    settings = config.load(ServerConfig, config_file, flags, prefix="ISTHMUS_SERVER")
    _run(run_server(settings, ready=typer.echo))


def relay(
    listen: str = typer.Option("127.0.0.1:50552", help="HOST:PORT that the agent connects to."),
    to: str = typer.Option("127.0.0.1:50551", help="HOST:PORT of the edge server."),
    trace: str = typer.Option("demo", help="A network trace: a file, or the name of a shipped one."),
    start: str = typer.Option("0s", help="Begin so far into the trace."),
) -> None:
    """Shape the link between agent and server by a trace, without privileges: rates, delays, outages (no loss)."""
    options = replace(OPTIONS, start_s=seconds(start, "--start") or 0.0)
    _run(_relay(Relay(traces.find(trace), listen=listen, upstream=to, options=options), f"{to}, trace {trace}"))


async def _relay(shaper: Relay, beyond: str) -> None:
    async with shaper:
        typer.echo(f"{shaper.host}:{shaper.port} shapes the way to {beyond}")
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        lag = shaper.lag
        typer.echo(
            f"relay: {lag.deliveries} deliveries, behind their schedule by {lag.p50_s * 1000:.1f} ms at the median, "
            f"{lag.p99_s * 1000:.1f} ms at the 99th percentile"
        )


@certs.command("init")
def certs_init(
    folder: Path = typer.Argument(help="Where to put them; made if it is not there."),
    host: list[str] = typer.Option(["localhost", "127.0.0.1"], help="Names and addresses of the server; repeatable."),
) -> None:
    """Make a private authority, a server certificate and a device certificate."""
    try:
        from isthmus.edge_server import security
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed; this needs `pip install 'isthmus[server]'`") from error
    security.init(folder, tuple(host))
    typer.echo(
        f"{folder}: ca.pem, server.pem, server.key, device.pem, device.key\n"
        f"server: isthmus serve --certs {folder}    (needs ca.pem, server.pem, server.key)\n"
        f"device: isthmus agent --certs {folder}    (needs ca.pem, device.pem, device.key)"
    )


def _run(role: Coroutine[Any, Any, None]) -> None:
    """Run a role to its end; a reader that went away (`| head`) ends it quietly."""
    try:
        asyncio.run(role)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
