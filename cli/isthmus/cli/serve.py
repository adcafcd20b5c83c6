"""`isthmus serve`: the server's half, in the field. Its keys are flags and variables as the agent's are (ISTHMUS_SERVER_…)."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from isthmus.cli.options import CONFIG, INSECURE, Format, missing, require, run_role
from isthmus.proto import config
from isthmus.proto.operations import heap


def serve(
    config_file: Path | None = CONFIG,
    bundle: str | None = typer.Option(None, help="Zoo name or folder of the bundle [signs]."),
    models: str | None = typer.Option(None, help="Folder of bundles, DIR/NAME or DIR/NAME/VERSION, instead of one."),
    listen: str | None = typer.Option(None, help="HOST:PORT [127.0.0.1:50551]."),
    certs_: str | None = typer.Option(None, "--certs", help="Folder `server` of `isthmus certs init`."),
    insecure: bool | None = INSECURE,
    metrics: str | None = typer.Option(None, help="HOST:PORT of /metrics, /healthz and /readyz [none]."),
    traces: str | None = typer.Option(
        None, help="OpenTelemetry collector's URL, e.g. http://127.0.0.1:4318, or env [none]."
    ),
    traces_share: float | None = typer.Option(None, help="Share of frames whose traces are sent, e.g. 0.01 [1]."),
    engine: str | None = typer.Option(None, help="What runs the tail: onnx, litert, or ray for a cluster [onnx]."),
    replicas: str | None = typer.Option(None, help="With --engine ray: how many tails, such as 2 or 1-4 [1]."),
    ray: str | None = typer.Option(None, help="The Ray cluster's address, e.g. auto [one of its own]."),
    replica_cpus: float | None = typer.Option(None, help="Processors that Ray sets aside for a tail [its threads]."),
    threads: int | None = typer.Option(None, help="Threads of the tail [1]."),
    max_batch: int | None = typer.Option(None, help="Largest batch [8]."),
    credits: int | None = typer.Option(None, help="Frames that a device may have in flight [8]."),
    max_streams: int | None = typer.Option(None, help="Devices served at a time [64]."),
    max_fps: float | None = typer.Option(None, help="Frames a second that a device may send [1000]."),
    max_mbps: str | None = typer.Option(None, help="The most that is read of a device, e.g. 20Mbit/s [200Mbit/s]."),
    max_tails: int | None = typer.Option(None, help="Tails of --models that are loaded at a time [all]."),
    workers: int | None = typer.Option(None, help="Batches that run at a time [processors / threads]."),
    push: bool | None = typer.Option(None, "--push", help="Take pushed bundles from this machine; only --insecure."),
    push_from: str | None = typer.Option(
        None, help="Take pushed bundles from certificates of these names: a,b [none]."
    ),
    grace: str | None = typer.Option(None, help="How long to go on answering after SIGTERM [5s]."),
    announce: bool | None = typer.Option(
        None, "--announce", help="Be found by `isthmus agent --discover` (mDNS) [no]."
    ),
    stream_age: str | None = typer.Option(
        None, help="Behind a balancer: devices connect anew so often, e.g. 10m [never]."
    ),
    debug: bool | None = typer.Option(None, "--debug", help="Also serve gRPC reflection."),
    format_: Format = typer.Option("text", "--format", help="The line that it is ready with: text, or json."),
) -> None:
    """Run the server's half."""
    try:
        from isthmus.edge_server.config import DEFAULT_BUNDLE, ServerConfig
        from isthmus.edge_server.server import serve as run_server
    except ImportError as error:
        raise missing(error, "server") from error
    flags: dict[str, object] = {
        "bundle": bundle,
        "models": models,
        "listen": listen,
        "certs": certs_,
        "insecure": insecure,
        "metrics": metrics,
        "traces": traces,
        "traces_share": traces_share,
        "engine": engine,
        "replicas": replicas,
        "ray": ray,
        "replica_cpus": replica_cpus,
        "threads": threads,
        "max_batch": max_batch,
        "credits": credits,
        "max_streams": max_streams,
        "max_fps": max_fps,
        "max_mbps": max_mbps,
        "max_tails": max_tails,
        "workers": workers,
        "push": push,
        "push_from": push_from,
        "grace_s": grace,
        "announce": announce,
        "stream_age_s": stream_age,
        "debug": debug,
    }
    settings = config.load(ServerConfig, config_file, flags, prefix="ISTHMUS_SERVER")
    if settings.engine == "ray":
        require("ray")
    posture = "plaintext" if settings.certs is None else "mutual TLS"
    what = f"the bundles in {settings.models}" if settings.models is not None else settings.bundle or DEFAULT_BUNDLE

    def ready(address: str) -> None:
        heap.freeze()
        told = {"serves": what, "address": address, "tls": settings.certs is not None}
        typer.echo(json.dumps(told) if format_ == "json" else f"{what} on {address}, {posture}")

    run_role(run_server(settings, ready=ready))
