"""Injections of what an agent is shown: broken pictures, huge ones, sources that stand still, cameras that lie."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import pytest

from injections.invariants import each_frame_once, invariants, oracle, quiet
from injections.lab import Agent, Lab, Server
from isthmus.models.scenes import Drive

CAMERA = """
import itertools, sys, time
import cv2, numpy as np
from isthmus.models.scenes import Drive

class Camera:
    '''A camera whose driver behaves as asked.'''
    def __init__(self, *_): self.drive, self.count = Drive(3), itertools.count()
    def isOpened(self): return True
    def set(self, *_): return True
    def get(self, what): return 30.0 if what == cv2.CAP_PROP_FPS else 0.0
    def release(self): pass
    def grab(self): return True
    def retrieve(self, *_): return self.read()
    def read(self, *_):
        n = next(self.count)
        time.sleep(1 / 30)
        if n >= 20:
            if HOW == 'blocks': time.sleep(1e6)
            if HOW == 'nothing' and n % 2: return True, None
            if HOW == 'raises' and n % 2: raise cv2.error('driver: broken')
            if HOW == 'grey' and n % 2: return True, np.zeros((48, 64), np.uint8)
            if HOW == 'empty' and n % 2: return True, np.zeros((0, 0, 3), np.uint8)
        return True, self.drive.frame(n).image[:, :, ::-1].copy()

HOW = sys.argv.pop(1)
cv2.VideoCapture = Camera
from isthmus.cli.main import main
main()
"""


def drawn(folder: Path, count: int = 3, seed: int = 3) -> Path:
    """A folder of good pictures, named by their place."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03}.png"), Drive(seed).frame(index).image[:, :, ::-1])
    return folder


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims to be so large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    )


@pytest.fixture
def server(lab: Lab) -> Server:
    return lab.server()


def test_27_poison_pictures(lab: Lab, server: Server) -> None:
    """27: every broken or absurd picture costs its own frame, whatever it is; the good ones are answered rightly."""
    folder = drawn(lab.folder / "pictures", 6)
    good = (folder / "000.png").read_bytes()
    poison: dict[str, bytes] = {
        "100.png": b"",
        "101.png": b"\0",
        "102.png": b"damaged",
        "103.png": good[: len(good) // 2],
        "104.png": png_header(60_000, 60_000),
        "105.png": png_header(2**31 - 1, 1),
        "106.png": png_header(0, 0),
        "107.jpg": b"\xff\xd8\xff\xe0" + bytes(200),
        "108.bmp": b"BM" + b"\xff" * 60,
        "109.tif": b"II*\0" + b"\xff" * 60,
        "110.webp": b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(60),
        "111.ppm": b"P6 99999999 99999999 255\n",
    }
    for name, content in poison.items():
        (folder / name).write_bytes(content)
    (folder / "112.png").symlink_to(folder / "nowhere")
    (folder / "113.png").symlink_to(folder / "113.png")
    cv2.imwrite(str(folder / "200.png"), Drive(3).frame(6).image[:, :, ::-1])
    agent = lab.agent(server.address, source=str(folder))
    assert agent.wait() == 0, agent.last_words
    rows = {row["picture"]: row for row in agent.rows}
    assert {row["picture"] for row in agent.rows if row["source"] == "none"} <= {*poison, "112.png", "113.png"}
    for index, name in [*((n, f"{n:03}.png") for n in range(6)), (6, "200.png")]:
        oracle().check(rows[name], 3, index)
    each_frame_once(agent)
    quiet(agent)
    quiet(server)


def test_27_fifo(lab: Lab, server: Server) -> None:
    """27, 32: a picture that never comes (a pipe, a network file) is given up, said so, and does not keep the agent."""
    folder = drawn(lab.folder / "pictures", 4)
    os.mkfifo(folder / "001a.png")
    agent = lab.agent(server.address, source=str(folder), fps=30)
    agent.until(lambda: len(agent.lines) >= 2, "the frames before it")
    agent.until(lambda: "001a.png" in agent.log or len(agent.lines) >= 4 or agent.ended, "the standstill is reported")
    assert agent.end() == 0, agent.last_words
    each_frame_once(agent)
    quiet(agent)
    quiet(server)


def camera(lab: Lab, server: Server, how: str) -> Agent:
    """An agent with a camera that misbehaves after twenty pictures."""
    launcher = lab.folder / "launcher.py"
    launcher.write_text(CAMERA)
    return lab.agent(server.address, source="camera:0", program=(sys.executable, str(launcher), how))


@pytest.mark.parametrize("how", ["nothing", "raises", "grey", "empty"])
def test_32_camera(lab: Lab, server: Server, how: str) -> None:
    """32: a camera that gives nothing, raises, or gives something else costs those frames."""
    agent = camera(lab, server, how)
    agent.settle()
    agent.until(lambda: len(agent.lines) >= 50, "it goes on")
    assert sum(source in {"exit", "server"} for source in agent.sources[20:]) >= 10
    assert agent.end() == 0, agent.last_words
    each_frame_once(agent)
    quiet(agent, 60)
    quiet(server)


def test_32_camera_blocks(lab: Lab, server: Server) -> None:
    """32: a camera that blocks is reported, and SIGTERM ends the agent."""
    agent = camera(lab, server, "blocks")
    agent.until(lambda: len(agent.lines) >= 15, "the first frames")
    agent.until(lambda: "camera 0" in agent.log, "the standstill is reported")
    assert agent.end() in {0, 6}, agent.last_words
    each_frame_once(agent)
    quiet(agent)
    quiet(server)


def test_32_video(lab: Lab, server: Server) -> None:
    """32: a video that is cut, or damaged in the middle, gives the frames that it has; one without a frame is an error."""
    whole = lab.folder / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 15, (128, 128))
    for index in range(30):
        writer.write(Drive(3).frame(index).image[:, :, ::-1].copy())
    writer.release()
    raw = whole.read_bytes()
    cut, hurt, none = (lab.folder / name for name in ("cut.avi", "hurt.avi", "none.avi"))
    cut.write_bytes(raw[: len(raw) * 2 // 3])
    hurt.write_bytes(raw[: len(raw) // 3] + bytes(20_000) + raw[len(raw) // 3 + 20_000 :])
    none.write_bytes(raw[:5763])
    for path in (whole, cut, hurt):
        agent = lab.agent(server.address, source=str(path))
        assert agent.wait() == 0, agent.last_words
        assert len(agent.rows) >= 8
        each_frame_once(agent)
        quiet(agent)
    empty = lab.run("agent", "--source", str(none))
    assert empty.process.returncode == 6, empty.last_words
    assert "none.avi" in empty.log
    quiet(empty)
    invariants([], [server])
