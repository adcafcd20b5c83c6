"""What an agent holds in memory: its resident set after a run against a server on this machine. Prints one JSON object.

    python benchmarks/footprint.py [--bundle signs] [--source generated:1] [--frames 300]

Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from isthmus.cli import processes

TARGET_MB = 90
"""The goal. It is missed: 96 to 120 MB when last measured; LiteRT, OpenCV, gRPC and numpy are 47 of them."""
BEFORE_THE_END = 10
"""Frames; the process must still be there when it is looked at."""


def resident_MB(pid: int) -> dict[str, float]:
    """Resident memory and its peak; the part that is the process's own, and what is mapped from files (libraries)."""
    names = {"VmRSS": "rss_MB", "VmHWM": "peak_MB", "RssAnon": "own_MB", "RssFile": "mapped_MB"}
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {names[key]: round(int(value.split()[0]) / 1024, 1) for key, _, value in lines if key in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", default="signs")
    parser.add_argument("--source", default="generated:1")
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    serve = ["serve", "--bundle", options.bundle, "--insecure", "--listen", "127.0.0.1:0"]
    with processes.started(*serve) as server:
        address = processes.address_in(processes.first_line(server, "server"))
        watch = ["agent", "--bundle", options.bundle, "--source", options.source, "--server", address, "--insecure"]
        with processes.started(*watch, "--fps", "30", "--frames", str(options.frames + BEFORE_THE_END)) as agent:
            sources = [json.loads(processes.first_line(agent, "agent"))["source"] for _ in range(options.frames)]
            found = resident_MB(agent.pid)
    print(
        json.dumps(
            {
                "bundle": options.bundle,
                "source": options.source,
                "frames": options.frames,
                "answered_by_server": sources.count("server"),
                **found,
                "target_MB": TARGET_MB,
                "met": found["peak_MB"] < TARGET_MB,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
