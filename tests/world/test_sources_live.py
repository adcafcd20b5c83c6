"""Sources that people have, as real servers and programs: cut, frozen and started again while the agent runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import msgspec
import pytest

from isthmus.models.scenes import Drive
from isthmus.proto.record import FrameRecord
from world.servers import Agent, Process, free_port, mjpeg_server, rtsp_server, until

SERVERS: dict[str, tuple[Callable[[Path, int], Process | None], str, str]] = {
    "rtsp": (rtsp_server, "camera", "gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and python3-gi"),
    "http": (mjpeg_server, "stream", "ustreamer"),
}
CREDENTIALS = "viewer:secret"


@contextlib.contextmanager
def serving(folder: Path, scheme: str) -> Iterator[tuple[Process, str]]:
    """A server of pictures, and its address."""
    start, path, package = SERVERS[scheme]
    port = free_port()
    server = start(folder, port)
    if server is None:
        pytest.skip(f"{scheme}: no such server here; Debian's {package}")
    try:
        until(lambda: listens(port), f"{scheme} listens\n{server.said}")
        yield server, f"{scheme}://{CREDENTIALS}@127.0.0.1:{port}/{path}"
    finally:
        server.kill()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def running(folder: Path, source: str, *options: str) -> Iterator[Agent]:
    agent = Agent(folder, source, *options)
    try:
        yield agent
    finally:
        agent.kill()


def drawn(index: int) -> bytes:
    return cv2.imencode(".jpg", Drive(3).frame(index).image[:, :, ::-1])[1].tobytes()


@pytest.mark.parametrize("scheme", SERVERS)
def test_a_stream_is_cut_and_comes_back(tmp_path: Path, scheme: str) -> None:
    with serving(tmp_path, scheme) as (server, address), running(tmp_path, address) as agent:
        agent.more(3, "it is answered")
        server.kill()
        until(lambda: "tried again until it is back" in agent.said, "the cut is said")
        server.start()
        until(lambda: "is back after" in agent.said, "it is back")
        agent.more(3, "it is answered again")
        assert agent.end() == 0, agent.said
    rows = msgspec.convert(agent.rows, list[FrameRecord])
    assert [row.frame_id for row in rows] == list(range(len(rows)))
    assert agent.said.count("tried again until it is back") == 1
    for credential in CREDENTIALS.split(":"):
        assert credential not in agent.said
        assert credential not in agent.record.read_text()
    assert "127.0.0.1" in agent.record.read_text()


def test_a_stream_that_falls_silent_is_connected_to_anew(tmp_path: Path) -> None:
    with serving(tmp_path, "rtsp") as (server, address), running(tmp_path, address) as agent:
        agent.more(3, "it is answered")
        server.signal(signal.SIGSTOP)
        until(lambda: "tried again until it is back" in agent.said, "the silence is said")
        server.signal(signal.SIGCONT)
        agent.more(3, "it is answered again")
        assert agent.end() == 0, agent.said


def test_a_password_that_is_wrong_is_said_without_it(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "rtsp") as (_, address),
        running(tmp_path, address.replace("secret", "mistaken")) as agent,
    ):
        assert agent.process.wait(60) == 6
        assert "cannot be opened; is it there, and are path, user and password right?" in agent.said
        assert "mistaken" not in agent.said


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    port = free_port()
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder))
    server = Process(folder, "web", *command)
    try:
        until(lambda: listens(port), "the web server listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()


def video(path: Path, codec: str, seconds: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (128, 128))
    assert writer.isOpened()
    for index in range(10 * seconds):
        writer.write(Drive(3).frame(index).image[:, :, ::-1].copy())
    writer.release()


def test_hls_comes_in_bursts_and_is_let_through_at_its_pace(tmp_path: Path) -> None:
    for number in range(3):
        video(tmp_path / f"{number}.ts", "mp4v", 2)
    begins = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n"
    segments = "".join(f"#EXTINF:2.0,\n{number}.ts\n" for number in range(3))
    (tmp_path / "live.m3u8").write_text(begins + segments)  # without an end: more is to come
    with web_server(tmp_path) as address, running(tmp_path, f"{address}/live.m3u8") as agent:
        agent.more(15, "it is answered")
        assert agent.end() == 0, agent.said
    rows = msgspec.convert(agent.rows, list[FrameRecord])
    assert rows[14].captured_s - rows[0].captured_s > 1.0, "at 10 a second, though all of it was there at once"


def test_a_video_on_a_web_server_is_read_to_its_end(tmp_path: Path) -> None:
    video(tmp_path / "x.avi", "MJPG", 1)
    with web_server(tmp_path) as address, running(tmp_path, f"{address}/x.avi") as agent:
        assert agent.process.wait(60) == 0, agent.said
    assert [row["picture"] for row in agent.rows] == [f"127.0.0.1 #{n}" for n in range(1, 11)]


def test_a_folder_is_watched(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "old.jpg").write_bytes(drawn(0))
    with running(tmp_path, f"watch:{folder}") as agent:
        written = 0
        end_s = time.monotonic() + 60
        while len(agent.rows) < 3 and time.monotonic() < end_s:  # it is not known when it begins to look
            written += 1
            whole = drawn(written)
            with (folder / f"{written:03}.jpg").open("wb") as file:
                file.write(whole[:500])
                file.flush()
                time.sleep(0.05)
                file.write(whole[500:])
            time.sleep(0.3)
        until(lambda: agent.rows[-1]["picture"] == f"{written:03}.jpg", "the last one is answered")
        assert agent.end() == 0, agent.said
        names = [row["picture"] for row in agent.rows]
        first = int(names[0][:3])
        assert names == [f"{n:03}.jpg" for n in range(first, written + 1)]
        assert all(row["source"] != "none" for row in agent.rows)


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_pictures_out_of_standard_input(tmp_path: Path, how: str) -> None:
    """Out of a pipe the newest counts; a file is read through."""
    content = b"".join(drawn(index) for index in range(12))
    (tmp_path / "x.mjpeg").write_bytes(content)
    command = [sys.executable, "-m", "isthmus.cli", "agent", "--source", "-", "--deadline", "2s", "--fps", "50"]
    if how == "pipe":
        ended = subprocess.run(command, input=content, capture_output=True, timeout=60)
    else:
        with (tmp_path / "x.mjpeg").open("rb") as file:
            ended = subprocess.run(command, stdin=file, capture_output=True, timeout=60)
    rows = [msgspec.json.decode(line, type=FrameRecord) for line in ended.stdout.splitlines()]
    rows.sort(key=lambda row: row.frame_id)  # they are written as they are answered
    assert ended.returncode == 0, ended.stderr
    assert rows[-1].picture == "picture 12"
    assert len(rows) == 12 or how == "pipe"


def test_what_is_no_picture_on_standard_input_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "isthmus.cli", "agent", "--source", "-"]
    ended = subprocess.run(command, input=b"no picture" * 100, capture_output=True, timeout=60)
    assert ended.returncode == 6
    assert b"standard input: not one JPEG picture in it" in ended.stderr


RPICAM = """#!{python}
import sys, time
asked = dict(zip(sys.argv[1::1], sys.argv[2::1]))
assert asked["--codec"] == "mjpeg" and asked["--width"] == "128" and asked["--height"] == "96", sys.argv
assert asked["--framerate"] == "20" and asked["--camera"] == "1", sys.argv
for _ in range(40):
    sys.stdout.buffer.write(open({picture!r}, "rb").read())
    sys.stdout.buffer.flush()
    time.sleep(0.05)
"""


def test_a_camera_of_libcamera_is_a_child_that_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for `rpicam-vid`, which is nowhere but on a Raspberry Pi: it writes MJPEG for 2 s, then it is gone."""
    picture = tmp_path / "x.jpg"
    picture.write_bytes(drawn(1))
    program = tmp_path / "rpicam-vid"
    program.write_text(RPICAM.format(python=sys.executable, picture=str(picture)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = ("--size", "128x96", "--fps", "20", "--rotate", "90")
    with running(tmp_path, "libcamera:1", *options) as agent:
        agent.more(5, "it is answered")
        until(lambda: "is back after" in agent.said, "it is started again")
        agent.more(2, "it is answered again")
        assert agent.end() == 0, agent.said
    assert "libcamera 1: rpicam-vid ended after 40 pictures" in agent.said
