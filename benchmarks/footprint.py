"""Memory and time to the first answer of both halves, as ratios to a bare interpreter that has loaded what they run on.

    python benchmarks/footprint.py [--rounds 7] [--out footprint.json]

Every round starts each program once, one after the other, so that a busy machine slows all of them alike. `bare` imports LiteRT,
OpenCV and gRPC and ends; `bare server` ONNX Runtime and gRPC. Times are from the start of the process to the line that counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

IMPORTS = {
    "bare": "import numpy, cv2, grpc.aio\nfrom ai_edge_litert.interpreter import Interpreter",
    "bare server": "import numpy, grpc.aio, onnxruntime",
}
CLI = [sys.executable, "-m", "isthmus.cli"]
PROGRAMS = {
    **{name: [sys.executable, "-c", f"{code}\nprint('there')"] for name, code in IMPORTS.items()},
    "agent": [*CLI, "agent", "--bundle", "signs", "--source", "generated:1", "--fps", "30", "--frames", "90"],
    "server": [*CLI, "serve", "--bundle", "signs", "--insecure", "--listen", "127.0.0.1:0"],
}
RUNNING_S = 2.0
"""A server is looked at so long after it is ready."""
TARGETS = {"agent": {"peak_MB": 100, "first_s": 2.0}, "server": {"peak_MB": 130}}


def run(program: list[str], *, serves: bool) -> dict[str, float]:
    """Seconds to the first line, and the most memory (MB) that the process ever had."""
    began_s = time.monotonic()
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    first_s = time.monotonic() - began_s
    if serves:
        time.sleep(RUNNING_S)
        process.terminate()
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"first_s": first_s, "peak_MB": usage.ru_maxrss / 1000}


def measured(rounds: int) -> dict[str, dict[str, float]]:
    """The medians of interleaved rounds, by program; the first round warms the disk's cache, and is left out."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds + 1):
        for name, program in PROGRAMS.items():
            found[name].append(run(program, serves=name == "server"))
    return {
        name: {key: round(statistics.median(one[key] for one in each[1:]), 3) for key in each[0]}
        for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measured(arguments.rounds)
    ratios = {
        half: {key: round(found[half][key] / found[bare][key], 2) for key in found[half]}
        for half, bare in (("agent", "bare"), ("server", "bare server"))
    }
    from isthmus.cli.bench import command  # not before: a child's most memory begins with that of whoever starts it

    shown = {
        "command": command(),
        "rounds": arguments.rounds,
        "median": found,
        "ratio_to_bare": ratios,
        "targets": TARGETS,
    }
    text = json.dumps(shown, indent=2)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
