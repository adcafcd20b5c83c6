"""Python, the packages of each part, what runs the head, and whether the package is whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata

from isthmus.cli.doctoring.finding import Finding, failure, ok
from isthmus.cli.options import install

PARTS = {
    "device": (
        "grpcio", "msgspec", "numpy", "opencv-python-headless", "protobuf", "rich", "tomli-w", "typer",
        "zstandard",
    ),
    "server": ("cryptography", "grpcio-health-checking", "grpcio-reflection", "onnxruntime", "prometheus-client"),
    "emulation": ("faster-coco-eval", "matplotlib"),
    "discovery": ("zeroconf",),
    "frigate": ("pyzmq",),
    "mqtt": ("paho-mqtt",),
}  # fmt: skip
RUNTIMES = ("ai-edge-litert", "tflite-runtime")
"""What runs the head, the better one first; one is enough."""
SAME = {"opencv-python-headless": ("opencv-contrib-python-headless", "opencv-python", "opencv-contrib-python")}
"""Packages that bring the same module as one that is needed."""


@dataclass(frozen=True)
class Facts:
    """What is installed."""

    python: tuple[int, int, int]
    versions: dict[str, str]
    """Of the packages above, those that are installed."""
    hidden_by: str | None = None
    """A stray `isthmus/__init__.py`, which hides the other portions."""


def facts() -> Facts:
    """What this interpreter has."""
    names = {*RUNTIMES, *(n for part in PARTS.values() for n in part), *(n for same in SAME.values() for n in same)}
    found = {name: version for name in sorted(names) if (version := _version(name)) is not None}
    python = sys.version_info
    return Facts((python.major, python.minor, python.micro), found, getattr(import_module("isthmus"), "__file__", None))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def findings(seen: Facts, install: Callable[[str], str] = install) -> list[Finding]:
    """What is missing. `install` gives the command that brings an extra."""
    version = ".".join(map(str, seen.python))
    found = [
        ok("python", version)
        if (3, 10) <= seen.python < (3, 14)
        else failure("python", version, "use Python 3.10 to 3.13"),
        ok("namespace", "whole")
        if seen.hidden_by is None
        else failure("namespace", seen.hidden_by, "delete that file: isthmus is a namespace package"),
    ]
    runtimes = [f"{name} {seen.versions[name]}" for name in RUNTIMES if name in seen.versions]
    found.append(
        ok("runtime", ", ".join(runtimes))
        if runtimes
        else failure("runtime", f"neither {' nor '.join(RUNTIMES)} is installed", install(""))
    )
    for extra, names in PARTS.items():
        found += [_package(name, extra, seen, install) for name in names]
    return found


def _package(name: str, extra: str, seen: Facts, install: Callable[[str], str]) -> Finding:
    for other in (name, *SAME.get(name, ())):
        if other in seen.versions:
            return ok(name, seen.versions[other] if other == name else f"{other} {seen.versions[other]}")
    if extra == "device":
        return failure(name, "not installed", install(""))
    return ok(name, f"not installed; the '{extra}' extra brings it: {install(extra)}")
