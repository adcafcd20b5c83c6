"""Memory and time to the first answer of both halves, as ratios to a bare interpreter that has loaded what they run on.

    python benchmarks/footprint.py [--rounds 6] [--programs bare agent ...] [--out footprint.json]

Every round starts each program once, one after the other, so that a busy machine slows all of them alike. `bare` imports LiteRT,
OpenCV and gRPC and ends; `bare server` ONNX Runtime and gRPC. `agent` answers alone, from generated pictures; `agent, served`
has a server, and its pictures lie in a folder. Times are from the start of the process to the line that counts, an agent's first
answer: as the clock has it, and what it took of a processor, which is the same on a busy machine. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

IMPORTS = {
    "bare": "import numpy, cv2, grpc.aio\nfrom ai_edge_litert.interpreter import Interpreter",
    "bare server": "import numpy, grpc.aio, onnxruntime",
}
CLI = [sys.executable, "-m", "isthmus.cli"]
AGENT = [*CLI, "agent", "--bundle", "signs", "--fps", "30", "--frames", "30"]
SERVE = [*CLI, "serve", "--bundle", "signs", "--insecure", "--listen", "127.0.0.1:0", "--format", "json"]
PROGRAMS = {
    **{name: [sys.executable, "-c", f"{code}\nprint('there', flush=True)"] for name, code in IMPORTS.items()},
    "agent": [*AGENT, "--source", "generated:1"],
    "agent, served": [*AGENT, "--insecure", "--deadline", "1s", "--policy", "always-offload"],
    "server": SERVE,
}
BARE = {"agent": "bare", "agent, served": "bare", "server": "bare server"}
RUNNING_S = 1.0
"""A server is looked at so long after it is ready."""
TARGETS = {
    "agent": {"peak_MB": 100, "first_s": 2.0},
    "agent, served": {"peak_MB": 100, "first_s": 2.0},
    "server": {"peak_MB": 130},
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""What is installed is compiled once, and not at every start."""
PICTURES = """
import sys, cv2
from isthmus.models.scenes import Drive
drive = Drive(1)
for index in range(60):
    cv2.imwrite(f"{sys.argv[1]}/{index:03}.jpg", drive.frame(index).image[:, :, ::-1])
"""


def run(program: list[str], *, serves: bool) -> dict[str, float]:
    """Seconds to the first line, by the clock and of a processor, and the most memory (MB) that the process ever had."""
    began_s = time.monotonic()
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    assert process.stdout is not None
    process.stdout.readline()
    first_s, processor_s = time.monotonic() - began_s, processor_seconds(process.pid)
    if serves:
        time.sleep(RUNNING_S)
        process.terminate()
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"first_s": first_s, "first_processor_s": processor_s, "peak_MB": usage.ru_maxrss / 1000}


def processor_seconds(pid: int) -> float:
    """What a process has taken of the processors until now, in its own code and in the kernel: see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def programs(names: list[str]) -> Iterator[dict[str, list[str]]]:
    """The programs of these names; with a server and a folder of pictures, where one needs them."""
    chosen = {name: PROGRAMS[name] for name in names}
    if "agent, served" not in chosen:
        yield chosen
        return
    server = subprocess.Popen(SERVE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-c", PICTURES, folder], check=True)
            yield chosen | {"agent, served": [*chosen["agent, served"], "--server", address, "--source", folder]}
    finally:
        server.terminate()
        server.wait()


def measured(rounds: int, chosen: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """The medians of interleaved rounds, by program; the first of several warms the disk's cache, and is left out."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, program in chosen.items():
            found[name].append(run(program, serves=name == "server"))
    return {
        name: {key: round(statistics.median(one[key] for one in each[1:] or each), 3) for key in each[0]}
        for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with programs(arguments.programs) as chosen:
        found = measured(arguments.rounds, chosen)
    ratios = {
        half: {key: round(found[half][key] / found[bare][key], 2) for key in found[half]}
        for half, bare in BARE.items()
        if half in found and bare in found
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
