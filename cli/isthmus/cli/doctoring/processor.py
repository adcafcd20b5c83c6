"""Word size, what the processor can do, and whether every compiled package can be loaded here.

A package that was built for a newer processor kills whoever loads it. So another process does that first.
"""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.cli.doctoring.finding import Finding, failure, ok, text, warning

MODULES = ("msgspec", "numpy", "cv2", "grpc", "zstandard", "isthmus.models.litert", "onnxruntime")
"""What is loaded, in this order; `isthmus.models.litert` loads whichever runtime there is."""
NEEDED = MODULES[:-1]
LIMIT_S = 120.0
CHILD = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    try:
        importlib.import_module(name)
    except ImportError as error:
        print("-", str(error).splitlines()[0] if str(error) else "", flush=True)
"""
DOT_PRODUCT = {"aarch64": "asimddp", "x86_64": "avx2"}
"""What int8 heads are fast by, as /proc/cpuinfo calls it."""


@dataclass(frozen=True)
class Facts:
    """A processor, and what became of a process that loaded each package."""

    machine: str
    bits: int
    """Of this Python: 32 or 64."""
    features: frozenset[str]
    """Flags of /proc/cpuinfo; empty where there is none."""
    refused: Mapping[str, str]
    """Modules that could not be imported, and why."""
    died: tuple[str, int] | None = None
    """The module that ended the process, and the signal's number."""


def facts(modules: Sequence[str] = MODULES) -> Facts:
    """Look at this processor, and load `modules` in another process."""
    refused, died = loaded(modules)
    bits = 64 if sys.maxsize > 2**32 else 32
    return Facts(platform.machine(), bits, features(text("/proc/cpuinfo")), refused, died)


def features(cpuinfo: str) -> frozenset[str]:
    """The processor's flags, from the first line of /proc/cpuinfo that lists them (`flags` or `Features`)."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()


def loaded(modules: Sequence[str]) -> tuple[dict[str, str], tuple[str, int] | None]:
    """What was refused in words, and what ended the process, of `modules` loaded in turn; the rest is loaded again after."""
    refused: dict[str, str] = {}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *modules],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {modules[0]: f"did not end in {LIMIT_S:g} s"}, None
    name = ""
    for line in done.stdout.splitlines():
        if line.startswith("- "):
            refused[name] = line[2:]
        elif line in modules:
            name = line
    return refused, (name, -done.returncode) if done.returncode < 0 else None


def findings(seen: Facts) -> list[Finding]:
    """Judge it."""
    found = [_words(seen)]
    fast = DOT_PRODUCT.get(seen.machine)
    if fast and seen.features:
        there = "has" if fast in seen.features else "has no"
        note = (
            ""
            if fast in seen.features
            else ": int8 heads take the slower way, as on a Pi 4; the times below are with it"
        )
        found.append(ok("instructions", f"the processor {there} {fast}{note}"))
    for name, why in seen.refused.items():
        if name in NEEDED:
            found.append(
                failure(f"import {name}", why, "install it again; `pip check` says what does not fit together")
            )
    if seen.died is not None:
        name, number = seen.died
        cause = "wants instructions that this processor lacks" if number == signal.SIGILL else "ended the process"
        found.append(
            failure(
                f"import {name}",
                f"{cause} ({signal.Signals(number).name})",
                "its wheel was built for another processor: install an older version of it, or build it on this machine "
                "(pip install --no-binary NAME NAME)",
            )
        )
    if not any(finding.level == "failure" for finding in found):
        found.append(ok("imports", "every compiled package can be loaded"))
    return found


def _words(seen: Facts) -> Finding:
    name = f"{seen.machine}, {seen.bits}-bit"
    if seen.bits == 64:
        return ok("processor", name)
    if "64" in seen.machine:
        return warning(
            "processor", f"{name} Python on a 64-bit kernel",
            "install the 64-bit system: ai-edge-litert exists for nothing else, and newer heads need it",
        )  # fmt: skip
    return ok("processor", f"{name}: tflite-runtime is what runs here")


def blocked(seen: Facts) -> str:
    """The module because of which nothing compiled may be loaded into this process; '' where all may be."""
    if seen.died is not None and seen.died[0] in NEEDED:
        return seen.died[0]
    return next((name for name in NEEDED if name in seen.refused), "")
