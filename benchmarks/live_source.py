"""A live source of 30 pictures a second into a device that manages 8: ages of what is answered, and the fate of every picture.

    python benchmarks/live_source.py [--minutes 60] [--rate 30] [--manages 8] [--deadline-ms 250] [--out live.json]

A process of its own serves MJPEG over HTTP, each picture with the time at which it was made drawn into it; the agent's own
source reads it through FFmpeg. The device is this machine, made to take as long for its whole head as one that manages
so many a second. An answer's age is from the picture's making to the answer, so that whatever a buffer holds back
shows. Memory is the agent's resident set. The last line is JSON: ages, their slope, memory's slope, and the fates of all
pictures. It ends with 1 where an age's p99 is over the deadline, or a picture has no fate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import time
from array import array
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.device.as_device import PacedExecutor
from isthmus.device.capture.sources import open_source
from isthmus.device.config import AgentConfig
from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink
from isthmus.device.run import Opened, answer_all, open_device
from isthmus.models.scenes import Drive
from isthmus.proto.fates import RunEnd, Tally
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Skipped

BLOCK, ROWS, COLUMNS = 16, 4, 10
"""A time in milliseconds is drawn as 40 bits, each so many pixels squared: JPEG leaves them legible."""
WARM_S = 60.0
"""Memory is judged after so long: libraries take theirs at first."""


def drawn(picture: NDArray[Any], millis: int) -> NDArray[np.uint8]:
    """A copy of a picture with a time in its upper left corner."""
    bits = np.array([millis >> bit & 1 for bit in range(ROWS * COLUMNS)], np.uint8).reshape(ROWS, COLUMNS)
    out = picture.copy()
    out[: ROWS * BLOCK, : COLUMNS * BLOCK] = np.kron(bits * 255, np.ones((BLOCK, BLOCK), np.uint8))[:, :, None]
    return np.asarray(out, np.uint8)


def read(picture: NDArray[Any]) -> int:
    """The time that is drawn into a picture."""
    cells = picture[: ROWS * BLOCK, : COLUMNS * BLOCK].reshape(ROWS, BLOCK, COLUMNS, BLOCK, 3).mean(axis=(1, 3, 4))
    return int(sum(1 << bit for bit, cell in enumerate(cells.ravel()) if cell > 127))


def serve(rate: float, port: Connection) -> None:
    """Serve MJPEG to one viewer after the other, at an even rate."""
    scenes = [cv2.resize(Drive(7).frame(i).image, (320, 320)) for i in range(30)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port.send(listening.getsockname()[1])
        while True:
            viewer, _ = listening.accept()
            viewer.recv(4096)
            try:
                viewer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
                due_s, count = time.monotonic(), 0
                while True:
                    time.sleep(max(0.0, due_s - time.monotonic()))
                    picture = drawn(scenes[count % len(scenes)], int(time.monotonic() * 1000))
                    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    viewer.sendall(head.encode() + jpeg + b"\r\n")
                    due_s, count = due_s + 1 / rate, count + 1
            except OSError:
                viewer.close()


class Ages(Sink):
    """Reads out of each answered picture how old it was at its answer."""

    name, capacity = "ages", 64

    def __init__(self) -> None:
        self.at_s, self.age_s, self.rss_B = array("d"), array("d"), array("d")

    async def run(self, inbox: Inbox) -> None:
        """Note every one."""
        async for answered in inbox:
            assert answered.pixels is not None
            self.note(answered)

    def note(self, answered: AnsweredPicture) -> None:
        """Note one."""
        assert answered.pixels is not None
        self.at_s.append(answered.row.answered_s)
        self.age_s.append(answered.row.answered_s - read(answered.pixels) / 1000)
        self.rss_B.append(4096.0 * int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1]))


class Counts:
    """Counts answers and keeps none: what is kept would show as the agent's memory."""

    def __init__(self) -> None:
        self.tally, self.answers, self.on_time = Tally(), 0, 0

    def add(self, row: FrameRecord) -> None:
        """Count one."""
        self.tally.add(row.source, row.reason, Skipped(row.skipped_stale, row.skipped_rate))
        self.answers += 1
        self.on_time += row.on_time and row.source is not AnswerSource.NONE


def slow(device: Opened, manages: float) -> Opened:
    """A device whose whole head takes as long as one takes that manages so many pictures a second."""
    bundle = device.bundle
    stages = len(bundle.manifest.stages)
    times = {(stage, width): 1 / manages / stages for stage in range(stages) for width in bundle.manifest.widths}
    return replace(device, executor=PacedExecutor(bundle, times))


def slope(at_s: NDArray[Any], values: NDArray[Any]) -> float:
    """Of a line through them, for an hour."""
    return float(np.polyfit(at_s - at_s[0], values, 1)[0] * 3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--manages", type=float, default=8.0)
    parser.add_argument("--deadline-ms", type=float, default=250.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(asked.rate, theirs), daemon=True)
    server.start()
    device = slow(open_device(AgentConfig(deadline_s=asked.deadline_ms / 1000, policy="local-only")), asked.manages)
    source = open_source(f"http://127.0.0.1:{ours.recv()}/")
    ages, counts, ends = Ages(), Counts(), list[RunEnd]()

    async def run() -> None:
        try:
            answering = answer_all(device, source, counts.add, sinks=[ages], on_end=ends.append)
            await asyncio.wait_for(answering, asked.minutes * 60)
        except asyncio.TimeoutError:
            pass

    asyncio.run(run())
    server.terminate()
    figures = report(ages, counts, ends[0], asked)
    print(json.dumps(figures))
    if asked.out is not None:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")
    kept = figures["age_p99_s"] <= asked.deadline_ms / 1000 and figures["without_fate"] == 0
    raise SystemExit(0 if kept else 1)


def report(ages: Ages, counts: Counts, end: RunEnd, asked: argparse.Namespace) -> dict[str, Any]:
    """The figures of a run."""
    at_s, age_s, rss_B = (np.array(values) for values in (ages.at_s, ages.age_s, ages.rss_B))
    warm = at_s - at_s[0] > min(WARM_S, (at_s[-1] - at_s[0]) / 2)
    p50, p99 = np.quantile(age_s, [0.5, 0.99])
    return {
        "minutes": (at_s[-1] - at_s[0]) / 60,
        "deadline_s": asked.deadline_ms / 1000,
        "captured": end.captured,
        "captured_per_s": end.captured / (at_s[-1] - at_s[0]),
        "by_fate": counts.tally.by_fate,
        "answered_per_s": counts.answers / (at_s[-1] - at_s[0]),
        "on_time": counts.on_time / counts.answers,
        "without_fate": end.captured - counts.answers - end.skipped_stale - end.skipped_rate,
        "age_p50_s": float(p50),
        "age_p99_s": float(p99),
        "age_max_s": float(age_s.max()),
        "age_slope_s_per_h": slope(at_s[warm], age_s[warm]),
        "rss_MB": float(rss_B[warm].mean() / 1e6),
        "rss_slope_MB_per_h": slope(at_s[warm], rss_B[warm]) / 1e6,
        "rss_first_and_last_MB": [float(rss_B[warm][0] / 1e6), float(rss_B[-1] / 1e6)],
    }


if __name__ == "__main__":
    main()
