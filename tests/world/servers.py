"""Real servers and agents as processes of their own, which tests cut and start again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SYSTEM_PYTHON = "/usr/bin/python3"
"""The one that Debian's packages of bindings belong to."""
PATIENCE_S = 120.0


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.05)


class Process:
    """A process with its output in files."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Start it, again if need be."""
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.process = subprocess.Popen(self._arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    @property
    def said(self) -> str:
        """All that it has written, to both."""
        return self.out.read_text() + self.err.read_text()


class Agent(Process):
    """An agent of a source, in its answers."""

    def __init__(self, folder: Path, source: str, *options: str) -> None:
        self.record = folder / "run.jsonl"
        command = (sys.executable, "-m", "isthmus.cli", "-v", "agent", "--source", source, "--deadline", "2s")
        super().__init__(folder, "agent", *command, "--record", str(self.record), *options)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The answers until now."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def more(self, count: int, what: str) -> None:
        """Wait for so many further answers."""
        begun = len(self.rows)
        until(lambda: len(self.rows) >= begun + count or self.process.poll() is not None, f"{what}\n{self.said}")
        assert self.process.poll() is None, self.said

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def rtsp_server(folder: Path, port: int) -> Process | None:
    """GStreamer's RTSP server; None where it is not installed."""
    asked = "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')"
    if (
        not Path(SYSTEM_PYTHON).is_file()
        or subprocess.run([SYSTEM_PYTHON, "-c", asked], capture_output=True).returncode
    ):
        return None
    return Process(folder, "rtsp", SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(port))


def mjpeg_server(folder: Path, port: int) -> Process | None:
    """ustreamer, which serves a picture of its own while no camera is plugged in; None where it is not installed."""
    if shutil.which("ustreamer") is None:
        return None
    blank = folder / "blank.jpg"
    cv2.imwrite(str(blank), np.full((240, 320, 3), 90, np.uint8))
    address = ["--host", "127.0.0.1", "--port", str(port), "--user", "viewer", "--passwd", "secret"]
    return Process(folder, "mjpeg", "ustreamer", "--device", "/dev/none", *address, "--blank", str(blank))
