"""Pictures of one camera in order, and which of them show something of interest: what a neural filter is made from.

A video says so by the table beside it: `NAME.boxes.csv` (a row for every box: `frame`, and `uncertain` where somebody
doubts) or, where there is none, `NAME.frames.csv` (a row for every frame: `frame`, `objects`, `uncertain`). A folder says
so by its subfolders `nothing` and `something`, whose pictures are in the order of their names.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.pictures import is_picture, squeezed
from isthmus.proto.errors import DataError

TRAINS, VALIDATES = 0.5, 0.7
"""A camera's first half trains, its next fifth chooses the threshold, the rest is what a filter is scored on."""
FOLDERS = ("nothing", "something")


@dataclass(frozen=True)
class Footage:
    """The pictures of one camera."""

    name: str
    images: NDArray[np.uint8]
    """(N, S, S, 3) RGB, in order."""
    interesting: NDArray[np.bool_]
    """(N,) whether each picture shows something of interest."""
    certain: NDArray[np.bool_]
    """(N,) whether that is certain; other pictures neither train nor score."""

    def __len__(self) -> int:
        return len(self.images)

    def parts(self) -> tuple[Footage, Footage, Footage]:
        """Training, validation and test, one after the other in time: neighbours in time never judge each other."""
        edges = [0, round(len(self) * TRAINS), round(len(self) * VALIDATES), len(self)]
        training, validation, test = (self.cut(slice(a, b)) for a, b in itertools.pairwise(edges))
        return training, validation, test

    def cut(self, where: slice) -> Footage:
        """The part of the footage at `where`."""
        return Footage(self.name, self.images[where], self.interesting[where], self.certain[where])


def load(path: Path, size: int) -> Footage:
    """A labelled video or folder, its pictures squeezed to (size, size). DataError names what is missing or wrong."""
    if path.is_dir():
        return _folder(path, size)
    if not path.is_file():
        raise DataError(f"{path}: no such video or folder")
    table = next((t for t in (path.with_suffix(".boxes.csv"), path.with_suffix(".frames.csv")) if t.is_file()), None)
    if table is None:
        raise DataError(
            f"{path}: neither {path.stem}.boxes.csv nor {path.stem}.frames.csv beside it says what it shows"
        )
    images = np.stack([squeezed(frame, size) for frame in frames(path)])
    return Footage(path.stem, images, *_labels(table, len(images)))


def frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames (H, W, 3) RGB of a video. Raises DataError when there is none."""
    capture, count = cv2.VideoCapture(str(path)), 0
    while (read := capture.read())[0]:
        count += 1
        yield np.ascontiguousarray(read[1][:, :, ::-1]).astype(np.uint8, copy=False)
    if not count:
        raise DataError(f"{path}: not a video that OpenCV can read")


def _labels(table: Path, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    interesting, certain = np.zeros(count, bool), np.ones(count, bool)
    with table.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                frame, objects, uncertain = int(row["frame"]), int(row.get("objects", 1)), int(row.get("uncertain", 0))
            except (KeyError, ValueError, TypeError) as error:
                raise DataError(f"{table}: line {line}: expected whole numbers as frame and uncertain") from error
            if not 0 <= frame < count:
                raise DataError(f"{table}: line {line}: frame {frame}, and the video has {count}")
            interesting[frame] |= objects > 0
            certain[frame] &= not uncertain
    return interesting, certain


def _folder(path: Path, size: int) -> Footage:
    found = [(p, name == FOLDERS[1]) for name in FOLDERS for p in _pictures(path / name)]
    if {interesting for _, interesting in found} != {False, True}:
        raise DataError(f"{path}: a filter learns from two subfolders with pictures, {' and '.join(FOLDERS)}")
    # Turn about by their place in their own folder, so that each part in time has its share of both.
    turn = [i / max(1, n - 1) for n in (sum(not s for _, s in found), sum(s for _, s in found)) for i in range(n)]
    order = np.argsort(turn, kind="stable")
    images = []
    for i in order:
        pixels = cv2.imread(str(found[i][0]), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DataError(f"{found[i][0]}: not a picture that OpenCV can read")
        images.append(squeezed(np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8, copy=False), size))
    interesting = np.array([found[i][1] for i in order])
    return Footage(path.name, np.stack(images), interesting, np.ones(len(images), bool))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if is_picture(p.relative_to(folder)))
