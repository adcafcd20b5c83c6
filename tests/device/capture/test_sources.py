"""Sources: what they give, what they say of pictures that cannot be read, and of sources that are not there."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from isthmus.device.capture.sources import open_source
from isthmus.device.capture.sources.camera import Camera
from isthmus.device.capture.sources.clips import FOLDER, shipped
from isthmus.device.capture.sources.folder import Folder
from isthmus.device.capture.sources.previewed import Previewed
from isthmus.device.capture.sources.video import Video
from isthmus.models.data import clips
from isthmus.proto.errors import SourceError


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[:, :, 0] = value  # blue, in OpenCV's order
    cv2.imwrite(str(path), picture)


def test_a_folder_gives_its_pictures_in_order_as_rgb(tmp_path: Path) -> None:
    write(tmp_path / "b.png", 200)
    write(tmp_path / "a.png", 100)
    source = Folder(tmp_path)
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("a.png", "b.png")
    assert first.pixels is not None
    assert first.pixels[0, 0].tolist() == [0, 0, 100]
    assert source.read() is None


def test_a_sub_folder_named_like_a_label_gives_the_truth(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "x.png", 1)
    picture = Folder(tmp_path, ("dog", "cat")).read()
    assert picture is not None
    assert picture.label == 1


def test_an_unreadable_picture_is_given_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    (tmp_path / "b.jpg").write_bytes(b"")
    source = Folder(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        picture = source.read()
        assert picture is not None
        assert picture.pixels is None
        assert name in picture.why


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures in this folder"):
        open_source(str(tmp_path))


def test_a_video_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (32, 32))
    for value in (0, 128, 255):
        writer.write(np.full((32, 32, 3), value, np.uint8))
    writer.release()
    source = Video(path)
    assert source.fps == pytest.approx(12)
    assert [p is not None for p in (source.read(), source.read(), source.read(), source.read())] == [True] * 3 + [False]


def test_a_video_without_one_whole_frame_is_a_source_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 64))
    writer.write(np.full((64, 64, 3), 128, np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.find(b"movi") + 100])  # within the first frame's tables
    with pytest.raises(SourceError, match=r"x\.avi: not one whole frame in it"):
        Video(path).read()


def png(width: int, height: int) -> bytes:
    """A picture whose header promises so much."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_poisoned_picture_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000))
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("/dev/zero")
    with (tmp_path / "d.png").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (tmp_path / "e.png").symlink_to(tmp_path / "e.png")
    write(tmp_path / "f.png", 100)
    source = Folder(tmp_path)
    given = [source.read() for _ in range(7)]
    assert given.pop() is None
    whys = [picture.why for picture in given if picture is not None and picture.pixels is None]
    assert [why.removeprefix(f"{tmp_path}/")[:5] for why in whys] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert "OpenCV refuses it" in whys[0]
    assert all("\n" not in why for why in whys)
    assert given[5] is not None
    assert given[5].pixels is not None


class Capture:
    """Stands in for a camera: gives what `frames` says, one after the other, the last one for ever."""

    frames: tuple[object, ...] = ()

    def __init__(self, _: object) -> None:
        self._left = list(self.frames)

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return 15.0

    def read(self) -> tuple[bool, object]:
        frame = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if isinstance(frame, Exception):
            raise frame
        return True, frame

    def release(self) -> None:
        pass


GOOD = np.zeros((8, 8, 3), np.uint8)


def test_a_bad_picture_of_a_camera_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "frames", (GOOD, None, cv2.error("select timeout"), GOOD))
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    camera = Camera(0)
    pictures = [camera.read() for _ in range(4)]
    assert [picture.pixels is not None for picture in pictures] == [True, False, False, True]
    assert pictures[1].why.startswith("camera 0: OpenCV refuses it")
    assert "select timeout" in pictures[2].why


def test_a_camera_that_gives_nothing_but_bad_pictures_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "frames", (None,))
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    camera = Camera(0)
    for _ in range(100):
        assert camera.read().pixels is None
    with pytest.raises(SourceError, match="camera 0: 101 bad pictures in a row"):
        camera.read()


def test_a_video_is_opened_anew_behind_the_frame_that_it_hung_on(tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (32, 32))
    for value in (0, 80, 160, 240):
        writer.write(np.full((32, 32, 3), value, np.uint8))
    writer.release()
    video = Video(path)
    video.read()
    anew = video.again()
    lost, third = anew.read(), anew.read()
    assert lost is not None
    assert third is not None
    assert (lost.name, lost.pixels, third.name) == ("x.avi #2", None, "x.avi #3")
    assert third.pixels is not None
    assert abs(int(third.pixels.mean()) - 160) < 8


def test_a_folder_goes_on_behind_the_picture_that_it_hung_on_and_gives_it_too(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.png", 100)
    source = Folder(tmp_path)
    source.read()
    source.read()  # hangs, say
    lost, third, end = source.again().read(), source.read(), source.read()
    assert lost is not None
    assert third is not None
    assert end is None
    assert (lost.name, lost.pixels is None, third.name, third.pixels is None) == ("b.png", True, "c.png", False)


def test_generated_scenes_know_their_truth_and_repeat() -> None:
    one, two = open_source("generated:5"), open_source("generated:5")
    a, b = one.read(), two.read()
    assert a is not None
    assert b is not None
    assert a.label is not None
    assert a.pixels is not None
    assert b.pixels is not None
    assert np.array_equal(a.pixels, b.pixels)


def test_a_preview_that_cannot_be_kept_any_more_costs_no_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        write(tmp_path / "in" / f"{name}.png", 100)
    (tmp_path / "out").mkdir()
    source = Previewed(Folder(tmp_path / "in"), tmp_path / "out" / "seen.png")
    assert source.read()
    (tmp_path / "out" / "seen.png").unlink()
    (tmp_path / "out").rmdir()
    assert source.read()
    assert source.read()
    assert len(caplog.records) == 1


def test_the_newest_picture_is_kept_for_a_viewer(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", 100)
    source = Previewed(Folder(tmp_path / "in"), tmp_path / "seen.png")
    assert source.read() is not None
    seen = cv2.imread(str(tmp_path / "seen.png"))
    assert seen is not None
    assert seen[0, 0].tolist() == [100, 0, 0]
    assert source.read() is None
    with pytest.raises(SourceError, match=r"nowhere/seen\.png: No such file"):
        Previewed(Folder(tmp_path / "in"), tmp_path / "nowhere" / "seen.png").read()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("generated:x", "expected a whole number"),
        ("camera:front", "expected a whole number"),
        ("camera:97", "camera 97: cannot be opened"),
    ],
)
def test_what_is_not_there_is_refused_by_name(spec: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_source(spec)


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"0" * 100)
    with pytest.raises(SourceError, match="not a video"):
        open_source(str(path))


def test_an_unplugged_camera_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that stops giving pictures; a short file stands in for the device node."""
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (32, 32))
    writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()
    capture = cv2.VideoCapture(str(path))
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
    camera = open_source("camera:0")
    assert camera.read() is not None
    with pytest.raises(SourceError, match="camera 0: gave no picture after 1 frames; unplugged"):
        camera.read()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("rtsp://user:secret@127.0.0.1:9/stream", r"rtsp://127\.0\.0\.1:9/stream: cannot be opened; is it there"),
        ("http://127.0.0.1:9/video.mjpg?pwd=secret", r"video\.mjpg\?…: cannot be opened"),
        ("gopher://user:secret@10.0.0.9", "gopher://10.0.0.9: not a kind of stream that is read"),
        ("/dev/video77", "/dev/video77: no such camera here"),
        ("/dev/v4l/by-id/usb-none", "no such camera here; there is none"),
        (
            "gst:rtspsrc location=rtsp://user:secret@x/y ! appsink",
            "rtsp://x/y ! appsink: this OpenCV .* has no GStreamer",
        ),
        ("libcamera:0", "neither picamera2 nor rpicam-vid is here"),
        ("watch:nowhere", "nowhere: no such folder to watch"),
        ("nowhere", "no such file or folder; a source is"),
    ],
)
def test_what_is_no_source_is_named_with_the_way_out(spec: str, told: str) -> None:
    with pytest.raises(SourceError, match=told) as refused:
        open_source(spec)
    assert "secret" not in str(refused.value)


def test_shipped_clips_come_round_and_say_which_frame_of_which_they_are() -> None:
    source = open_source("clips:1")
    assert source.fps == 30
    names = [path.name for path in shipped()]
    first = source.read()
    assert first is not None
    assert first.name == f"{names[1]} #1"
    assert first.pixels is not None
    assert first.pixels.shape == (512, 640, 3)
    seen = [picture.name for _ in range(1000) if (picture := source.read()) is not None]
    source.close()
    order = list(dict.fromkeys(name.rpartition(" #")[0] for name in seen))
    assert order == [names[1], names[2], names[0]]
    assert f"{names[2]} #1" in seen


def test_every_shipped_clip_has_its_boxes() -> None:
    found = clips.clips(FOLDER)
    assert [clip.file for clip in found] == list(shipped())
    assert all(len(clip.labels) == 1 for clip in found)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000
