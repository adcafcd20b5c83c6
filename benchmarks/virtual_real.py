"""One scenario in virtual time and between real agent and server processes: how close. Prints one JSON object.

`python benchmarks/virtual_real.py [TRACE [SECONDS]]`: `signs` on a pi4 (the agent's stages stretched to its profile) at
15 frames/s and 150 ms over the relay and, where the machine allows it, over tun; then the virtual run of the same pictures
from the same moment of the trace. Shares agree as far as the server's speed, TCP and this machine's other load let them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import msgspec

from isthmus.cli import processes
from isthmus.emulation import traces
from isthmus.emulation.link import LinkOptions
from isthmus.emulation.realtime import backends
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.models import scenes
from isthmus.models.data import labelled
from isthmus.proto import record
from isthmus.proto.errors import ConfigError
from isthmus.proto.record import FrameRecord

FPS, DEADLINE_S, WINDOW_S = 15.0, 0.15, 4.0


def main(trace: str = "demo", seconds: str = "72") -> None:
    frames = int(float(seconds) * FPS)
    found: dict[str, Any] = {"trace": trace, "frames": frames, "load": os.getloadavg()[0]}
    setting = OpenedScenario.of(scenario(trace, 0.0, frames))
    truth = [setting.replay.truth[setting.feed(0).sample(frame)] for frame in range(frames)]
    for name in ("relay", "tun"):
        try:
            rows, start_s, lag = real(name, trace, frames, setting)
        except ConfigError as error:
            found[name] = str(error)
            continue
        virtual = simulate(scenario(trace, start_s, frames))[0].records
        found[name] = {
            "real": facts([msgspec.structs.replace(row, truth=truth[row.frame_id]) for row in rows]),
            "virtual": facts(virtual),
            "server_share_apart_in_4_s": apart(rows, virtual),
            "lag_p99_ms": lag * 1e3,
        }
    print(json.dumps(found, indent=1))


def real(name: str, trace: str, frames: int, setting: OpenedScenario) -> tuple[list[FrameRecord], float, float]:
    """The frames of real processes, where in the trace the first one was, and the link's lag."""
    serve = ["serve", "--bundle", "signs", "--insecure", "--listen", "127.0.0.1:0"]
    with processes.started(*serve) as server, tempfile.TemporaryDirectory() as folder:
        upstream = processes.address_in(processes.first_line(server, "server"))
        link_trace, path = traces.find(trace), Path(folder) / "run.jsonl"
        pictures(setting, frames, Path(folder))
        with backends.opened(name, link_trace, upstream=upstream, options=LinkOptions(), say=tell) as link:
            agent = [
                sys.executable,
                "-m",
                "isthmus.cli",
                "agent",
                "--bundle",
                "signs",
                "--insecure",
                "--as-device",
                "pi4",
            ]
            agent += ["--server", link.address, "--fps", f"{FPS}", "--deadline", f"{DEADLINE_S}s"]
            agent += ["--source", folder, "--record", str(path)]
            subprocess.run(link.command(agent), check=True, stdout=subprocess.DEVNULL)
            lag = link.end()
            rows = record.read(path)[1]
            return rows, min(row.captured_s for row in rows) - link.began_s, lag.p99_s


def pictures(setting: OpenedScenario, frames: int, folder: Path) -> None:
    """What the virtual device sees, in its order: the pictures of the outcome table, which are one of these two sets."""
    truth = setting.replay.truth
    shown, labels = scenes.samples(len(truth), 20_000)
    if (labels != truth).any():
        shown, labels = (rendered := labelled.rendered_scenes(len(truth), seed=2)).images, rendered.labels
    assert (labels == truth).all(), "signs: another bundle"
    for frame in range(frames):
        cv2.imwrite(str(folder / f"{frame:06}.png"), shown[setting.feed(0).sample(frame)][:, :, ::-1])


def scenario(trace: str, start_s: float, frames: int) -> Scenario:
    return Scenario(
        trace=trace,
        start_s=start_s,
        bundle="signs",
        profile="pi4",
        threads="one",
        fps=FPS,
        deadline_s=DEADLINE_S,
        duration_s=frames / FPS,
    )


def facts(rows: list[FrameRecord]) -> dict[str, Any]:
    total = record.summary(rows)
    return {
        "server": total.by_source.get("server", 0) / total.frames,
        "in_time": total.answered_by_deadline,
        "right_in_time": total.accuracy,
        "bytes_per_frame": total.bytes_per_frame,
        "latency_p50_ms": 1e3 * sorted(row.latency_s for row in rows)[len(rows) // 2],
    }


def apart(left: list[FrameRecord], right: list[FrameRecord]) -> float:
    """Mean difference of the server's share over windows of 4 s."""

    def shares(rows: list[FrameRecord]) -> list[float]:
        begin_s = min(row.captured_s for row in rows)
        bins: dict[int, list[bool]] = {}
        for row in rows:
            bins.setdefault(int((row.captured_s - begin_s) / WINDOW_S), []).append(row.source == "server")
        return [sum(bins[i]) / len(bins[i]) for i in sorted(bins)]

    pairs = list(zip(shares(left), shares(right), strict=False))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def tell(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
