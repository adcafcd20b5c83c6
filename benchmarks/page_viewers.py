"""What the live page costs an agent: its processor time with four viewers at 10 pictures a second, and without any.

    python benchmarks/page_viewers.py [--viewers 4] [--seconds 20] [--rounds 3]

An agent with its page is a process of its own. Without and with viewers take turns, in every round; what the viewers cost is
the difference of the agent's processor time (of the process, all threads), so that other work on the machine does not count.
Late frames are counted in both. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def cpu_s(pid: int) -> float:
    """The processor time of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(port: int, until_s: float, seen: list[int]) -> None:
    """Read events as a browser does, and count them."""
    count = 0
    with socket.create_connection(("127.0.0.1", port), 10) as page:
        page.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while time.monotonic() < until_s:
            count += page.recv(1 << 20).count(b"event: answer")
    seen.append(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder) / "rows", Path(folder) / "log"
        with rows.open("wb") as out, log.open("wb") as err:
            command = [
                "agent",
                "--source",
                "generated:7",
                "--fps",
                "10",
                "--deadline",
                "150ms",
                "--page",
                "127.0.0.1:0",
            ]
            agent = subprocess.Popen([sys.executable, "-m", "isthmus.cli", *command], stdout=out, stderr=err)
        try:
            while not (found := re.search(r"page: http://127\.0\.0\.1:(\d+)", log.read_text())):
                time.sleep(0.1)
            figures = rounds(agent.pid, int(found[1]), rows, asked)
        finally:
            agent.terminate()
            agent.wait()
    print(json.dumps(figures))


def rounds(pid: int, port: int, rows: Path, asked: argparse.Namespace) -> dict[str, object]:
    """Both in turns."""
    time.sleep(3.0)
    shares: dict[int, list[float]] = {0: [], asked.viewers: []}
    late: dict[int, int] = {0: 0, asked.viewers: 0}
    frames: dict[int, int] = {0: 0, asked.viewers: 0}
    seen: list[int] = []
    for _ in range(asked.rounds):
        for viewers in shares:
            known = len(rows.read_bytes().splitlines())
            began_s, used_s = time.monotonic(), cpu_s(pid)
            until_s = began_s + asked.seconds
            threads = [threading.Thread(target=watch, args=(port, until_s, seen)) for _ in range(viewers)]
            for thread in threads:
                thread.start()
            time.sleep(until_s - time.monotonic())
            shares[viewers].append((cpu_s(pid) - used_s) / (time.monotonic() - began_s))
            for thread in threads:
                thread.join()
            new = [json.loads(line) for line in rows.read_bytes().splitlines()[known:-1]]
            late[viewers] += sum(not row["on_time"] for row in new)
            frames[viewers] += len(new)
    without, watched = (statistics.mean(shares[n]) for n in (0, asked.viewers))
    return {
        "viewers": asked.viewers,
        "pictures_per_s": statistics.mean(seen) / asked.seconds,
        "cores_without": without,
        "cores_watched": watched,
        "cores_of_the_page": watched - without,
        "late_without": f"{late[0]} of {frames[0]}",
        "late_watched": f"{late[asked.viewers]} of {frames[asked.viewers]}",
    }


if __name__ == "__main__":
    main()
