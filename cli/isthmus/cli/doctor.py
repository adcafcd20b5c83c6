"""`isthmus doctor`: what is wrong on this machine, and how to put it right."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata

import typer
from rich.console import Console
from rich.text import Text

from isthmus.cli.options import FORMAT, Format, install
from isthmus.device import sensors
from isthmus.device.executor import Executor, measure_stages
from isthmus.models import bundle
from isthmus.proto.errors import IsthmusError

PARTS = {
    "device": (
        "grpcio", "msgspec", "numpy", "opencv-python-headless", "protobuf", "rich", "tomli-w", "typer",
        "zstandard",
    ),
    "server": ("cryptography", "grpcio-health-checking", "grpcio-reflection", "onnxruntime", "prometheus-client"),
    "emulation": ("faster-coco-eval", "matplotlib"),
    "frigate": ("pyzmq",),
    "mqtt": ("paho-mqtt",),
}  # fmt: skip

RUNTIMES = ("ai-edge-litert", "tflite-runtime")
"""What runs the head, the better one first; one is enough."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `way_out` says what to do when it is not well."""

    what: str
    well: bool
    detail: str
    way_out: str = ""


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    well = (3, 10) <= sys.version_info < (3, 14)
    return [Finding("python", well, version, "use Python 3.10 to 3.13")]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    runtimes = [name for name in RUNTIMES if _version(name) is not None]
    detail = (
        ", ".join(f"{name} {_version(name)}" for name in runtimes) or f"neither {' nor '.join(RUNTIMES)} is installed"
    )
    findings = [Finding("runtime", bool(runtimes), detail, install())]
    for extra, names in PARTS.items():
        for name in names:
            needed, version = extra == "device", _version(name)
            way_out = install("" if needed else extra)
            absent = "not installed" if needed else f"not installed; the '{extra}' extra brings it: {way_out}"
            findings.append(Finding(name, version is not None or not needed, version or absent, way_out))
    return findings


def _namespace() -> list[Finding]:
    """A stray `isthmus/__init__.py` hides the other portions."""
    path = getattr(import_module("isthmus"), "__file__", None)
    return [Finding("namespace", path is None, path or "whole", "delete that file: isthmus is a namespace package")]


def _bundles() -> list[Finding]:
    findings = []
    for path in sorted(bundle.ZOO.glob("*/bundle.toml")):
        name = path.parent.name
        try:
            found = bundle.load(name)
            stages = measure_stages(Executor(found), found)
            widths = found.manifest.widths
            times = [sum(s for (_, w), s in stages.items() if w == width) * 1000 for width in (widths[0], widths[-1])]
            detail = f"verified; head {times[0]:.1f} ms at width {widths[0]}, {times[1]:.1f} ms at {widths[-1]}"
            findings.append(Finding(f"bundle {name}", True, detail))
        except IsthmusError as error:
            findings.append(Finding(f"bundle {name}", False, str(error), "fetch the bundle again"))
    return findings or [Finding("bundles", False, "none in the zoo", "reinstall isthmus")]


def _sensors() -> list[Finding]:
    """How hot it is, and whether the machine is held back; nothing where the kernel shows nothing."""
    reading = sensors.read()
    way_out = "cool it, or give it a better power supply: times and profiles are those of a slower machine"
    return [Finding("machine", not reading.throttling, str(reading), way_out)] if str(reading) else []


def _server(address: str) -> list[Finding]:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3):
            return [Finding(f"server {address}", True, "accepts connections")]
    except (OSError, ValueError) as error:
        return [
            Finding(f"server {address}", False, str(error), "is `isthmus serve` running there, and --listen right?")
        ]


def doctor(
    server: str | None = typer.Option(None, help="HOST:PORT of an edge server to look at too."),
    format_: Format = FORMAT,
) -> None:
    """Look at this machine: Python, packages, heat, bundles, the head's speed, the server."""
    checks: list[Callable[[], list[Finding]]] = [_python, _namespace, _packages, _sensors, _bundles]
    if server is not None:
        checks.append(lambda: _server(server))
    findings = [finding for check in checks for finding in check()]
    if format_ == "json":
        typer.echo(json.dumps([asdict(f) for f in findings]))
    else:
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)  # details are anybody's text
        for f in findings:
            mark = Text("ok  ", "green") if f.well else Text("FAIL", "red")
            console.print(mark, f"{f.what}: {f.detail}" + ("" if f.well else f"\n     {f.way_out}"))
    if not all(f.well for f in findings):
        raise typer.Exit(1)
