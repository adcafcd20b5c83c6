"""`isthmus frigate`: Frigate's ZMQ detector, answered by the device and, when it comes earlier, by the server."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

import typer

from isthmus.cli.options import CONFIG, FORMAT, INSECURE, Format, check, missing, run_role, tell
from isthmus.models import bundle as bundles
from isthmus.models.bundling.writer import check_writable
from isthmus.proto import config
from isthmus.proto.errors import DataError


def frigate(
    config_file: Path | None = CONFIG,
    bundle: str | None = typer.Option(None, help="Folder of a detector's bundle."),
    listen: str | None = typer.Option(None, help="ipc://PATH or tcp://HOST:PORT [tcp://127.0.0.1:5555]."),
    channels: str | None = typer.Option(None, help="Frigate's input_pixel_format: rgb or bgr [rgb]."),
    server: str | None = typer.Option(None, help="HOST:PORT of the edge server, or of several with commas [none]."),
    deadline: str | None = typer.Option(None, help="From request to reply, less than Frigate's 200 ms [170ms]."),
    certs_: str | None = typer.Option(None, "--certs", help="Folder made by `isthmus certs init`."),
    insecure: bool | None = INSECURE,
    policy: str | None = typer.Option(None, help="expected-utility, always-offload or local-only."),
    threads: int | None = typer.Option(None, help="Threads of the head [1]."),
    client_id: str | None = typer.Option(None, help="What the server's log calls this device."),
    record: str | None = typer.Option(None, help="Append every reply to this file (JSON lines) [none]."),
    labelmap: Path | None = typer.Option(None, help="Write the bundle's names for Frigate's labelmap_path, and stop."),
    format_: Format = FORMAT,
) -> None:
    """Be Frigate's detector: every picture that it asks about is answered in time, with or without the server."""
    try:
        from isthmus.device.frigate.config import FrigateConfig
        from isthmus.device.frigate.run import run_frigate
    except ImportError as error:
        raise missing(error, "frigate") from error
    check("--channels", channels, ("rgb", "bgr"))
    flags: dict[str, object] = {
        "bundle": bundle,
        "listen": listen,
        "channels": channels,
        "server": server,
        "deadline_s": deadline,
        "certs": certs_,
        "insecure": insecure,
        "policy": policy,
        "threads": threads,
        "client_id": client_id,
        "record": record,
    }
    settings = config.load(FrigateConfig, config_file, flags, prefix="ISTHMUS_FRIGATE")
    if labelmap is not None:
        _write_labels(labelmap, settings.bundle)
        tell(format_, str(labelmap), file=labelmap)
        return
    logging.getLogger("isthmus.device.frigate").setLevel(logging.INFO)  # who asks, and what became of it

    def ready(endpoint: str) -> None:
        text = f"{settings.bundle} for Frigate on {endpoint}"
        tell(format_, text, serves=settings.bundle, address=endpoint)

    run_role(run_frigate(settings, ready, command=shlex.join(["isthmus", *sys.argv[1:]])))


def _write_labels(path: Path, bundle: str) -> None:
    check_writable(path, path.parent)
    names = bundles.load(bundle, half="head").manifest.labels
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(f"{number} {name}\n" for number, name in enumerate(names))
    except FileExistsError:
        raise DataError(f"{path}: is there already; name another file for the labels") from None
