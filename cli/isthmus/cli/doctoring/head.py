"""The heads: verified, run by a real process, which delegate ran them, and whether they keep the deadline.

As a program (`python -m isthmus.cli.doctoring.head NAME…`) it runs each bundle's head and prints a line of JSON for each;
what ends that process ends nobody else's.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.cli.doctoring.finding import Finding, failure, ok, warning

REPEATS = 9
LIMIT_S = 300.0


@dataclass(frozen=True)
class Run:
    """One bundle's head, run here."""

    bundle: str
    error: str = ""
    widths: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    """Median seconds through all stages, one for each width."""
    accelerated: bool = False
    """Whether the delegate for vectors said that it is there."""


@dataclass(frozen=True)
class Facts:
    """Every head that was run, and how."""

    runs: tuple[Run, ...]
    deadline_s: float
    configured: str = ""
    """The bundle whose head is to keep the deadline; '' for none."""


def facts(names: Sequence[str], *, threads: int, deadline_s: float, configured: str = "") -> Facts:
    """Run each named bundle's head in another process."""
    command = [sys.executable, "-m", "isthmus.cli.doctoring.head", str(threads), *names]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        code, output, told = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as expired:
        code, output, told = 0, _text(expired.stdout), _text(expired.stderr)
    return Facts(runs(names, code, output, told), deadline_s, configured)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def runs(names: Sequence[str], code: int, output: str, told: str = "") -> tuple[Run, ...]:
    """What the process printed before it ended with `code`; the bundle that it was at when it ended is to blame."""
    found = [Run(**_tuples(json.loads(line))) for line in output.splitlines() if line.startswith("{")]
    if len(found) < len(names):
        why = f"signal {signal.Signals(-code).name}" if code < 0 else (told.strip().splitlines() or ["no answer"])[-1]
        found.append(Run(names[len(found)], f"the process that ran it ended: {why}"))
    return tuple(found)


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def findings(seen: Facts) -> list[Finding]:
    """Judge them."""
    if not seen.runs:
        return [failure("bundles", "none in the zoo", "reinstall isthmus")]
    found = [_bundle(run) for run in seen.runs]
    if any(not run.error for run in seen.runs):
        found.append(
            ok("delegate", "XNNPACK ran the heads")
            if any(run.accelerated for run in seen.runs)
            else warning(
                "delegate",
                "plain kernels ran the heads, several times slower than XNNPACK's",
                "install ai-edge-litert, or a tflite-runtime that was built with XNNPACK",
            )
        )
    return found + [found for run in seen.runs if run.bundle == seen.configured for found in _deadline(run, seen)]


def _bundle(run: Run) -> Finding:
    if run.error:
        return failure(f"bundle {run.bundle}", run.error, "fetch the bundle again")
    first, last = run.seconds[0] * 1000, run.seconds[-1] * 1000
    return ok(
        f"bundle {run.bundle}",
        f"verified; head {first:.1f} ms at width {run.widths[0]}, {last:.1f} ms at {run.widths[-1]}",
    )


def _deadline(run: Run, seen: Facts) -> list[Finding]:
    if not run.seconds:
        return []
    fastest, budget = min(run.seconds), f"the deadline of {seen.deadline_s * 1000:.0f} ms"
    if fastest >= seen.deadline_s:
        return [failure("deadline", f"the narrowest head takes {fastest * 1000:.0f} ms, {budget} cannot be kept",
                        "give a longer --deadline, more --threads, or a smaller bundle")]  # fmt: skip
    if fastest >= 0.5 * seen.deadline_s:
        return [warning("deadline", f"the narrowest head takes {fastest * 1000:.0f} ms of {budget}: little is left for the link",
                        "give a longer --deadline, more --threads, or a smaller bundle")]  # fmt: skip
    return [ok("deadline", f"the narrowest head takes {fastest * 1000:.1f} ms of {budget}")]


def shipped() -> list[str]:
    """The bundles that come with Isthmus."""
    from isthmus.models.bundle import ZOO

    return sorted(path.parent.name for path in ZOO.glob("*/bundle.toml"))


def _run(name: str, threads: int) -> Run:
    from isthmus.device.executor import Executor, measure_stages
    from isthmus.models import bundle, litert
    from isthmus.proto.errors import IsthmusError

    try:
        found = bundle.load(name, half="head")
        stages = measure_stages(Executor(found, threads=threads), found, repeats=REPEATS)
    except IsthmusError as error:
        return Run(name, str(error))
    widths = found.manifest.widths
    seconds = tuple(sum(s for (_, w), s in stages.items() if w == width) for width in widths)
    return Run(name, "", tuple(widths), seconds, litert.is_accelerated())


if __name__ == "__main__":
    for given in sys.argv[2:]:
        print(json.dumps(vars(_run(given, int(sys.argv[1])))), flush=True)
