"""What is right about somebody's own pictures: a class, boxes or a mask for each, from a file or folder of labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.data.boxes import Place, boxed
from isthmus.models.pictures import read_picture
from isthmus.proto.errors import DataError

IGNORED = 255
"""Pixels of a mask that count for nothing, as in Pascal VOC."""
Truth = str | tuple[tuple[str, Place], ...] | NDArray[np.uint8]
"""A class by its name or number; boxes by class; or a class for each pixel (H, W)."""


@dataclass(frozen=True)
class Told:
    """A picture on disk and what is right about it."""

    file: Path
    truth: Truth

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB. Raises DataError when it cannot be read."""
        return read_picture(self.file)


def told(labels: Path, pictures: Path, most: int) -> list[Told]:
    """The labelled pictures of the folder `pictures`, at most so many, spread evenly.

    `labels` is a COCO-style .json (boxes); a .csv of `file,class`, or of `file,mask`, files named from its own folder or from
    that of the pictures; or a folder of masks, named as the pictures are. Raises DataError naming what does not fit.
    """
    if not pictures.is_dir():
        raise DataError(f"{pictures}: not a folder; with --labels, pictures are files that the labels name")
    if labels.is_dir():
        found = _masks(labels, pictures)
    elif labels.suffix.lower() == ".json":
        root = pictures.resolve()
        found = [Told(p.file, p.boxes) for p in boxed(labels) if p.file.resolve().is_relative_to(root)]
    else:
        found = _rows(labels, pictures)
    if not found:
        raise DataError(f"{labels}: labels none of the pictures in {pictures}")
    return [found[i * len(found) // most] for i in range(most)] if len(found) > most else found


def _masks(labels: Path, pictures: Path) -> list[Told]:
    masks = {path.relative_to(labels).with_suffix(""): path for path in sorted(labels.rglob("*.png"))}
    files = {path.relative_to(pictures).with_suffix(""): path for path in sorted(pictures.rglob("*")) if path.is_file()}
    return [Told(files[name], _mask(path)) for name, path in masks.items() if name in files]


def _mask(path: Path) -> NDArray[np.uint8]:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(f"{path}: not a mask of one 8-bit channel, a class for each pixel")
    return np.asarray(mask, np.uint8)


def _rows(labels: Path, pictures: Path) -> list[Told]:
    try:
        rows: Sequence[list[str]] = [
            row for row in csv.reader(labels.read_text(encoding="utf-8-sig").splitlines()) if row
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{labels}: cannot be read ({error}); write a line for each picture: file,class") from error
    found = []
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(f"{labels}: line {number}: {len(row)} columns; write file,class or file,mask")
        name, right = row[0].strip(), row[1].strip()
        file = next((p for p in (pictures / name, labels.parent / name) if p.is_file()), None)
        if file is None:
            if number == 1:
                continue  # the columns' names
            raise DataError(f"{labels}: line {number}: no picture {name} in {pictures}")
        found.append(Told(file, _mask(labels.parent / right) if right.lower().endswith(".png") else right))
    return found
