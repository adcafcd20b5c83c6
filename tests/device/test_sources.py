"""Sources: what they give, what they say of pictures that cannot be read, and of sources that are not there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from isthmus.device.sources import Folder, Previewed, Video, open_source
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


def test_generated_scenes_know_their_truth_and_repeat() -> None:
    one, two = open_source("generated:5"), open_source("generated:5")
    a, b = one.read(), two.read()
    assert a is not None
    assert b is not None
    assert a.label is not None
    assert a.pixels is not None
    assert b.pixels is not None
    assert np.array_equal(a.pixels, b.pixels)


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
