"""Clips with boxes: what is read, and what is refused before anything begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from isthmus.models.data import clips
from isthmus.proto.errors import DataError

HEADER = "frame,label,x,y,w,h\n"


def film(path: Path, sizes: Sequence[tuple[int, int]] = ((64, 48),) * 12) -> Path:
    """A clip of grey frames of (width, height), ever lighter; its table has a box in the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, sizes[0])
    for i, (width, height) in enumerate(sizes):
        video.write(np.full((height, width, 3), 10 * i, np.uint8))
    video.release()
    table(path, "0,bird,8,12,16,24\n")
    return path


def table(video: Path, rows: str) -> None:
    video.with_name(f"{video.stem}.boxes.csv").write_text(HEADER + rows)


def test_frames_are_shrunk_and_boxes_with_them(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    found = clips.decoded(clips.clips(tmp_path), (24, 32), every=5)
    assert found.images.shape == (3, 24, 32, 3)
    assert found.number.tolist() == [0, 5, 10]
    assert found.labels == ("bird",)
    np.testing.assert_allclose(found.boxes[0], [[0, 4, 6, 12, 18]])
    assert [len(boxes) for boxes in found.boxes] == [1, 0, 0]


def test_frames_of_some_clips(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    film(tmp_path / "deeper" / "b.mp4")
    found = clips.decoded(clips.clips(tmp_path), (24, 32), every=6).of(np.array([False, True]))
    assert len(found) == 2
    assert {found.names[i] for i in found.clip} == {"b"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0,bird,8,12,80,24\n", "a.boxes.csv: frame 0: the box of 'bird' reaches beyond the video's 64 x 48 pixels"),
        ("0,bird,-9,12,8,8\n", "reaches beyond the video's 64 x 48"),
        ("12,bird,8,12,8,8\n", r"tells of frame 12, the video has 12 \(counted from 0\); is it the table of another"),
        ("0,bird,8,12,0,8\n", "a.boxes.csv: line 2: a box of 0 x 8 pixels"),
        ("0,bird,8,12,nan,8\n", "line 2: a box of nan"),
        ("0,bird,8,12\n", "line 2: "),
        ("x,bird,8,12,8,8\n", "line 2: invalid literal"),
        ("-1,bird,8,12,8,8\n", "line 2: a frame counts from 0"),
        ("0,,8,12,8,8\n", "a label is not empty"),
        ("", "no boxes in it; take the clip away"),
    ],
)
def test_a_wrong_table_is_told_by_file_and_row(tmp_path: Path, rows: str, said: str) -> None:
    table(film(tmp_path / "a.mp4"), rows)
    with pytest.raises(DataError, match=said):
        clips.decoded(clips.clips(tmp_path), (24, 32), every=5)


def test_a_column_that_is_missing(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    (tmp_path / "a.boxes.csv").write_text("frame,label,x,y,w\n0,bird,1,2,3\n")
    with pytest.raises(DataError, match=r"a\.boxes\.csv: no column h"):
        clips.clips(tmp_path)


def test_a_clip_without_a_table_and_a_table_without_a_clip(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    (tmp_path / "a.boxes.csv").rename(tmp_path / "b.boxes.csv")
    with pytest.raises(DataError, match=r"b\.boxes\.csv: no video b\.mp4"):
        clips.clips(tmp_path)
    (tmp_path / "b.boxes.csv").unlink()
    with pytest.raises(DataError, match=r"a\.mp4: no a\.boxes\.csv beside it"):
        clips.clips(tmp_path)


def test_nothing_and_no_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no videos in it"):
        clips.clips(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"no film")
    table(tmp_path / "a.mp4", "0,bird,8,12,16,24\n")
    with pytest.raises(DataError, match=r"a\.mp4: not a video"):
        clips.decoded(clips.clips(tmp_path), (24, 32), every=5)


def test_two_clips_of_one_name(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    film(tmp_path / "deeper" / "a.mp4")
    with pytest.raises(DataError, match="clips are known by their names"):
        clips.clips(tmp_path)


class Reel:
    """What OpenCV gives of a video, told frame by frame: its size, and when it comes."""

    def __init__(self, frames: Sequence[tuple[tuple[int, int], float]]) -> None:
        self.frames, self.at = frames, -1

    def isOpened(self) -> bool:
        return True

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.frames)

    def get(self, _: int) -> float:
        return self.frames[self.at][1]

    def retrieve(self) -> tuple[bool, object]:
        (width, height), _ = self.frames[self.at]
        return True, np.zeros((height, width, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([((64, 48), 0), ((64, 48), 40), ((32, 24), 80)], "frame 2 is 32 x 24 pixels, those before it 64 x 48"),
        ([((64, 48), t) for t in (0, 40, 80, 200, 240)], "frames come 40 to 120 ms apart; give it a constant rate"),
    ],
)
def test_a_size_or_a_rate_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: list[tuple[tuple[int, int], float]], said: str
) -> None:
    film(tmp_path / "a.mp4")
    (clip,) = clips.clips(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Reel(frames))
    with pytest.raises(DataError, match=said):
        list(clip.frames())


def test_pictures_with_boxes(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    labels = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 3, "name": "bird"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [8, 12, 16, 24]}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    found = clips.pictures(tmp_path / "labels.json", (24, 32))
    np.testing.assert_allclose(found.boxes[0], [[0, 4, 6, 12, 18]])
    assert clips.classes(tmp_path / "labels.json") == ("bird",)
    labels["annotations"] = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [8, 12, 16, 48]}]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=r"a\.png: the box of 'bird' reaches beyond its 64 x 48 pixels"):
        clips.pictures(tmp_path / "labels.json", (24, 32))


def test_a_class_that_is_not_asked_for(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4: shows bird, the classes are drone"):
        clips.decoded(clips.clips(tmp_path), (24, 32), every=5, labels=("drone",))


def test_clips_are_named_by_folder_or_by_file_and_each_taken_once(tmp_path: Path) -> None:
    inside, beside = film(tmp_path / "inside/b.mp4"), film(tmp_path / "a.mp4")
    film(tmp_path / "not_asked_for.mp4")
    assert [clip.file for clip in clips.named([inside.parent, beside, inside])] == [beside, inside]
    with pytest.raises(DataError, match=r"nobody\.mp4: no such file"):
        clips.named([tmp_path / "nobody.mp4"])
    (tmp_path / "a.boxes.csv").unlink()
    with pytest.raises(DataError, match=r"a\.mp4: no a\.boxes\.csv beside it"):
        clips.named([beside])
