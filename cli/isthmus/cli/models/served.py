"""`isthmus models served`: what a server that runs has, which version devices still use, and how busy each is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from isthmus.cli.models.push import CERTS, PLAINTEXT, asked
from isthmus.cli.options import FORMAT, Format
from isthmus.proto import edge_pb2
from isthmus.proto.printable import printable


def served(
    server: str = typer.Argument(help="HOST:PORT of a server."),
    certs: Path | None = CERTS,
    insecure: bool = PLAINTEXT,
    format_: Format = FORMAT,
) -> None:
    """The bundles of a server that runs: version, hash, whether its tail is loaded and works, devices, waiting time."""
    said = asked(server, certs, insecure, lambda stub: stub.Describe(edge_pb2.DescribeRequest()))
    rows = [_row(bundle) for bundle in said.bundles]
    if format_ == "json":
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        state = "not loaded" if not row["loaded"] else "serving" if row["serving"] else "FAILS"
        name = f"{row['name']} {row['version']}".rstrip()
        wait = f"a frame waits {1000 * row['wait_s']:.1f} ms and takes {1000 * row['tail_s']:.1f}"
        typer.echo(
            f"{name:24} {row['sha256'][:12]}  {state}, {row['streams']} devices"
            + (f"; {wait}" if row["loaded"] else "")
        )
    if not rows:
        typer.echo(f"{server}: no bundle")


def _row(bundle: edge_pb2.ServedBundle) -> dict[str, Any]:
    return {
        "name": printable(bundle.name),
        "version": printable(bundle.version),
        "sha256": bundle.sha256.hex(),
        "loaded": bundle.loaded,
        "serving": bundle.serving,
        "streams": bundle.streams,
        "wait_s": bundle.load.wait_us / 1e6,
        "tail_s": bundle.load.tail_us / 1e6,
    }
