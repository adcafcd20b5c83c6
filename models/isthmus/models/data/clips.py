"""Clips with boxes: `NAME.mp4` and beside it `NAME.boxes.csv`, or pictures with boxes in COCO's format, as one kind of set.

Every fault is told by the file and the row that it is in, before any training begins, and nothing is written anywhere.
Frames are read in order, for only so is a variable frame rate or a change of size noticed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.data.boxes import Place, boxed
from isthmus.models.pictures import resized
from isthmus.proto.errors import DataError

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")
TABLE = ".boxes.csv"
COLUMNS = ("frame", "label", "x", "y", "w", "h")
OVERHANG = 1.5
"""Pixels by which a box may reach beyond its picture: labels are rounded."""
STEADY = 0.5
"""A frame that comes earlier or later than the median by more than this share of it makes the rate a variable one."""
Named = tuple[tuple[str, Place], ...]


@dataclass(frozen=True)
class Clip:
    """A video and its table: what is in each frame (from 0), by name and place in the video's own pixels."""

    file: Path
    boxes: Mapping[int, Named]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.file.stem

    @property
    def labels(self) -> frozenset[str]:
        """The classes that are seen in it."""
        return frozenset(name for found in self.boxes.values() for name, _ in found)

    def frames(self, every: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Every so many frames from the first on, numbered as the table does: (H, W, 3) RGB.

        Raises DataError when the video cannot be read, changes its size or has a variable frame rate, and when the table
        tells of a frame or a place that it does not have.
        """
        video = cv2.VideoCapture(str(self.file))
        if not video.isOpened():
            raise DataError(f"{self.file}: not a video that OpenCV can read")
        try:
            yield from self._read(video, every)
        finally:
            video.release()

    def _read(self, video: cv2.VideoCapture, every: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        shape: tuple[int, ...] | None = None
        at_ms: list[float] = []
        while video.grab():
            at_ms.append(video.get(cv2.CAP_PROP_POS_MSEC))
            number = len(at_ms) - 1
            ok, pixels = video.retrieve()
            if not ok:
                raise DataError(f"{self.file}: frame {number} cannot be decoded")
            if shape is None:
                shape = pixels.shape
                self._check_places(shape)
            if pixels.shape != shape:
                raise DataError(
                    f"{self.file}: frame {number} is {_size(pixels.shape)}, those before it {_size(shape)}; cut it there"
                )
            if number % every == 0:
                yield number, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        self._check_times(at_ms)

    def _check_places(self, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        for number, found in self.boxes.items():
            for name, (top, left, bottom, right) in found:
                if min(top, left) < -OVERHANG or bottom > height + OVERHANG or right > width + OVERHANG:
                    raise DataError(
                        f"{self.file.with_suffix('')}{TABLE}: frame {number}: the box of '{name}' reaches beyond the "
                        f"video's {_size(shape)}; is it the table of another one?"
                    )

    def _check_times(self, at_ms: Sequence[float]) -> None:
        if not at_ms:
            raise DataError(f"{self.file}: a video without frames")
        if (last := max(self.boxes, default=0)) >= len(at_ms):
            raise DataError(
                f"{self.file.with_suffix('')}{TABLE}: tells of frame {last}, the video has {len(at_ms)} (counted from 0); "
                "is it the table of another one?"
            )
        gaps = np.diff(at_ms)
        if len(gaps) > 1 and np.abs(gaps / np.median(gaps) - 1).max() > STEADY:
            raise DataError(
                f"{self.file}: frames come {gaps.min():.0f} to {gaps.max():.0f} ms apart; give it a constant rate "
                "(ffmpeg -fps_mode cfr) and number the boxes by that"
            )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


@dataclass(frozen=True)
class Shown:
    """A picture with what is in it: (H, W, 3) RGB, of the clip or file of that name."""

    name: str
    pixels: NDArray[np.uint8]
    boxes: Named


def shown(path: Path, every: int = 1) -> Iterator[Shown]:
    """Every so many frames of a folder of clips, or the pictures of a COCO-style file, one after the other, as they are.

    Raises DataError as `clips` and `Clip.frames`, or as `boxes.boxed` do.
    """
    if not path.is_dir():
        for picture in boxed(path)[::every]:
            yield Shown(picture.file.name, picture.pixels(), picture.boxes)
        return
    for clip in clips(path):
        for number, pixels in clip.frames(every):
            yield Shown(clip.name, pixels, clip.boxes.get(number, ()))


def classes(path: Path) -> tuple[str, ...]:
    """The classes that a folder of clips or a COCO-style file shows, by name. Raises DataError as `shown` does."""
    if path.is_dir():
        return tuple(sorted(set().union(*(clip.labels for clip in clips(path)))))
    return tuple(sorted({name for picture in boxed(path) for name, _ in picture.boxes}))


def clips(folder: Path) -> list[Clip]:
    """The clips of a folder and of those below it, by name. Only their tables are read here.

    Raises DataError when there is none, one has no table or a table no video, two have one name, or a row is wrong.
    """
    videos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("._"))
    tables = {p.with_name(p.name.removesuffix(TABLE)) for p in folder.rglob(f"*{TABLE}")}
    if alone := sorted(tables - {video.with_suffix("") for video in videos}):
        raise DataError(f"{alone[0]}{TABLE}: no video {alone[0].name}.mp4 beside it")
    if not videos:
        raise DataError(f"{folder}: no videos in it (looked for {', '.join(SUFFIXES)})")
    return _labelled(videos)


def named(paths: Sequence[Path]) -> list[Clip]:
    """The clips of each path, a folder or a video that has its table beside it, by name. Raises DataError as `clips`."""
    found = [clip.file for path in paths if path.is_dir() for clip in clips(path)]
    videos = [path for path in paths if not path.is_dir()]
    if missing := [path for path in videos if not path.is_file()]:
        raise DataError(f"{missing[0]}: no such file")
    return _labelled(sorted({*found, *videos}, key=lambda video: video.name))


def _labelled(videos: Sequence[Path]) -> list[Clip]:
    seen: dict[str, Path] = {}
    for video in videos:
        if not video.with_name(video.stem + TABLE).is_file():
            raise DataError(f"{video}: no {video.stem}{TABLE} beside it; label it, or take it away")
        if (other := seen.setdefault(video.stem, video)) != video:
            raise DataError(f"{video}: is called as {other}; clips are known by their names")
    return [Clip(video, _table(video.with_name(video.stem + TABLE))) for video in videos]


def _table(path: Path) -> dict[int, Named]:
    found: dict[int, list[tuple[str, Place]]] = {}
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
                raise DataError(f"{path}: no column {missing[0]}; {','.join(COLUMNS)} are expected")
            for line, row in enumerate(rows, start=2):
                try:
                    number, label, place = _row(row)
                except (TypeError, ValueError) as error:
                    raise DataError(f"{path}: line {line}: {error}") from error
                found.setdefault(number, []).append((label, place))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of values set apart by commas ({error})") from error
    if not found:
        raise DataError(f"{path}: no boxes in it; take the clip away")
    return {number: tuple(boxes) for number, boxes in found.items()}


def _row(row: Mapping[str, str]) -> tuple[int, str, Place]:
    """The frame, class and place of a row. Raises ValueError or TypeError (a row too short) saying what is wrong."""
    number, label = int(row["frame"]), row["label"].strip()
    x, y, w, h = (float(row[column]) for column in ("x", "y", "w", "h"))
    if number < 0 or not label:
        raise ValueError("a frame counts from 0, and a label is not empty")
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise ValueError(f"a box of {w:g} x {h:g} pixels; leave it out")
    return number, label, (y, x, y + h, x + w)


@dataclass(frozen=True)
class BoxedFrames:
    """Frames of one size with what is in them. `boxes` are (M, 5): class, then left, top, right, bottom in pixels."""

    images: NDArray[np.uint8]
    """(N, H, W, 3) RGB"""
    boxes: tuple[NDArray[np.float32], ...]
    clip: NDArray[np.int64]
    """(N,) the clip that each is of: a picture alone is a clip of its own."""
    number: NDArray[np.int64]
    """(N,) its number in the clip."""
    names: tuple[str, ...]
    """Of the clips."""
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def of(self, clips: NDArray[np.bool_]) -> BoxedFrames:
        """The frames of those clips that (C,) `clips` marks; names and labels stay."""
        kept = np.flatnonzero(clips[self.clip])
        return BoxedFrames(
            self.images[kept],
            tuple(self.boxes[i] for i in kept),
            self.clip[kept],
            self.number[kept],
            self.names,
            self.labels,
        )


def decoded(found: Sequence[Clip], shape: tuple[int, int], every: int, labels: Sequence[str] = ()) -> BoxedFrames:
    """Every so many frames of clips, shrunk by area to `shape` (height, width); all of them lie in memory, as uint8.

    `labels`: the classes, in order; those that occur, in the order of the alphabet, where none are given. Raises DataError
    as `Clip.frames` does, and for a class that `labels` lacks.
    """
    names = tuple(labels) or tuple(sorted(set().union(*(clip.labels for clip in found))))
    images, boxes, of_clip, numbers = [], [], [], []
    for index, clip in enumerate(found):
        if strange := sorted(clip.labels - set(names)):
            raise DataError(f"{clip.file}: shows {strange[0]}, the classes are {', '.join(names)}")
        for number, pixels in clip.frames(every):
            images.append(resized(pixels, shape))
            boxes.append(_scaled(clip.boxes.get(number, ()), names, pixels.shape, shape))
            of_clip.append(index)
            numbers.append(number)
    return _stacked(images, boxes, of_clip, numbers, tuple(clip.name for clip in found), names)


def pictures(labels: Path, shape: tuple[int, int]) -> BoxedFrames:
    """The pictures of a COCO-style file, each a clip of its own. Raises DataError naming what is wrong with one."""
    found = boxed(labels)
    names = tuple(sorted({name for picture in found for name, _ in picture.boxes}))
    images, boxes = [], []
    for picture in found:
        pixels = picture.pixels()
        for name, (top, left, bottom, right) in picture.boxes:
            if min(top, left) < -OVERHANG or bottom > pixels.shape[0] + OVERHANG or right > pixels.shape[1] + OVERHANG:
                raise DataError(f"{picture.file}: the box of '{name}' reaches beyond its {_size(pixels.shape)}")
        images.append(resized(pixels, shape))
        boxes.append(_scaled(picture.boxes, names, pixels.shape, shape))
    order = list(range(len(found)))
    return _stacked(images, boxes, order, [0] * len(found), tuple(p.file.name for p in found), names)


def _scaled(found: Named, labels: Sequence[str], of: tuple[int, ...], into: tuple[int, int]) -> NDArray[np.float32]:
    y, x = into[0] / of[0], into[1] / of[1]
    rows = [
        (labels.index(name), left * x, top * y, right * x, bottom * y) for name, (top, left, bottom, right) in found
    ]
    table = np.array(rows, np.float32).reshape(-1, 5)
    table[:, 1::2], table[:, 2::2] = table[:, 1::2].clip(0, into[1]), table[:, 2::2].clip(0, into[0])
    return table


def _stacked(
    images: list[NDArray[np.uint8]],
    boxes: list[NDArray[np.float32]],
    of_clip: list[int],
    numbers: list[int],
    names: tuple[str, ...],
    labels: tuple[str, ...],
) -> BoxedFrames:
    return BoxedFrames(
        np.stack(images), tuple(boxes), np.array(of_clip, np.int64), np.array(numbers, np.int64), names, labels
    )
