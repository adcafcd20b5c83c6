"""Footage: labelled videos and folders, what they say of each frame, their parts in time, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from isthmus.models.filtering import footage
from isthmus.models.filtering.footage import Footage
from isthmus.proto.errors import DataError


def video(folder: Path, table: str | None, *, name: str = "door", kind: str = "boxes", frames: int = 10) -> Path:
    path = folder / f"{name}.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    if table is not None:
        (folder / f"{name}.{kind}.csv").write_text(table)
    return path


def picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), grey, np.uint8))


def test_a_box_makes_a_frame_interesting_and_doubt_leaves_it_out(tmp_path: Path) -> None:
    seen = footage.load(video(tmp_path, "frame,label,x,uncertain\n3,car,1,1\n4,car,1,0\n4,car,9,0\n"), 16)
    assert seen.images.shape == (10, 16, 16, 3)
    assert np.flatnonzero(seen.interesting).tolist() == [3, 4]
    assert np.flatnonzero(~seen.certain).tolist() == [3]


def test_a_table_of_frames_counts_objects(tmp_path: Path) -> None:
    table = "frame,objects,uncertain\n0,0,0\n1,2,0\n2,0,1\n"
    seen = footage.load(video(tmp_path, table, kind="frames"), 16)
    assert np.flatnonzero(seen.interesting).tolist() == [1]
    assert np.flatnonzero(~seen.certain).tolist() == [2]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "neither door.boxes.csv nor door.frames.csv"),
        ("frame,label\n12,car\n", "line 2: frame 12, and the video has 10"),
        ("frame,label\nfour,car\n", "line 2: expected whole numbers"),
        ("picture,label\n4,car\n", "line 2: expected whole numbers"),
    ],
)
def test_a_table_that_is_none_is_refused_by_line(tmp_path: Path, table: str | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        footage.load(video(tmp_path, table), 16)


def test_a_video_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mp4: no such video or folder"):
        footage.load(tmp_path / "gone.mp4", 16)


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.boxes.csv").write_text("frame\n")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"a\.mp4: not a video"):
        footage.load(tmp_path / "a.mp4", 16)


def test_each_part_of_a_folder_has_its_share_of_both_kinds(tmp_path: Path) -> None:
    for i in range(30):
        picture(tmp_path / "cam" / "nothing" / f"{i:02}.png", 2 * i)
    for i in range(20):
        picture(tmp_path / "cam" / "something" / f"{i:02}.png", 150 + 2 * i)
    seen = footage.load(tmp_path / "cam", 16)
    assert [len(part) for part in seen.parts()] == [25, 10, 15]
    assert [int(part.interesting.sum()) for part in seen.parts()] == [10, 4, 6]
    brightness = seen.images[:, 0, 0, 0]
    assert (np.diff(brightness[seen.interesting].astype(int)) > 0).all()  # in the order of their names


def test_a_folder_without_both_kinds_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "cam" / "something" / "a.png", 9)
    with pytest.raises(DataError, match="cam: a filter learns from two subfolders"):
        footage.load(tmp_path / "cam", 16)


def test_a_damaged_picture_is_refused_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "cam" / "something" / "a.png", 9)
    (tmp_path / "cam" / "nothing").mkdir()
    (tmp_path / "cam" / "nothing" / "b.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"b\.png: not a picture"):
        footage.load(tmp_path / "cam", 16)


def test_parts_follow_each_other_and_share_nothing() -> None:
    n = 101
    number = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    whole = Footage("door", number, np.zeros(n, bool), np.ones(n, bool))
    joined = np.concatenate([part.images for part in whole.parts()])
    assert (joined == number).all()
