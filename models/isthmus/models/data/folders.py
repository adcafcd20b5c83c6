"""Other people's labelled pictures: a folder with one subfolder a class, or the boxes of a COCO-style JSON file.

Nothing is skipped in silence: a picture that cannot be used is refused by name, before any training begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.data import coco
from isthmus.models.data.labelled import Pictures
from isthmus.models.pictures import is_picture
from isthmus.proto.errors import DataError

HELD_OUT = 5
"""Every fifth picture of a class is kept for validation, where the data does not say itself which."""
MARGIN = 0.15
"""What a box shows around its object, as a share of its longer side."""


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures of one size, in two parts that share none; labels index `classes`."""

    classes: tuple[str, ...]
    training: Pictures
    validation: Pictures

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each channel of the training pictures, in 0 to 1."""
        return tuple(round(float(m), 4) for m in self.training.images.mean((0, 1, 2)) / 255)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel of the training pictures; at least 1/255, for those that never change."""
        return tuple(round(max(float(s), 1.0) / 255, 4) for s in self.training.images.std((0, 1, 2)))


def load(path: Path, size: int) -> Dataset:
    """The pictures of a folder of class folders, or of a COCO-style .json file, each as (size, size, 3) RGB.

    Raises DataError that names the file, folder or annotation: fewer than two classes, a class with too few pictures, a
    picture that cannot be read or is not 8-bit RGB, a label that the categories do not have.
    """
    if path.is_dir():
        return _gathered(path, _folder(path), size)
    if path.suffix.lower() == ".json":
        return _gathered(path, _coco(path), size)
    raise DataError(f"{path}: neither a folder with one subfolder a class nor a COCO-style .json file")


@dataclass(frozen=True)
class _Sample:
    """One labelled picture, or a box (x, y, w, h) of it."""

    file: Path
    label: str
    box: tuple[float, float, float, float] | None = None
    split: str | None = None


def _folder(path: Path) -> Iterator[_Sample]:
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        for file in sorted(p for p in folder.rglob("*") if is_picture(p.relative_to(path))):
            yield _Sample(file, folder.name)


def _coco(path: Path) -> Iterator[_Sample]:
    tables = coco.read(path)
    for image, name, annotation in tables.labelled(path):
        yield _Sample(path.parent / image.file_name, name, annotation.bbox, image.split)


def _gathered(path: Path, samples: Iterable[_Sample], size: int) -> Dataset:
    by_class: dict[str, list[_Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    if len(by_class) < 2:
        found = ", ".join(by_class) or "none"
        raise DataError(f"{path}: classes found: {found}; a network needs at least two, each with pictures of its own")
    classes = tuple(sorted(by_class))
    training: list[tuple[_Sample, int]] = []
    validation: list[tuple[_Sample, int]] = []
    for label, name in enumerate(classes):
        for i, sample in enumerate(by_class[name]):
            held_out = sample.split != "train" if sample.split is not None else i % HELD_OUT == HELD_OUT - 1
            (validation if held_out else training).append((sample, label))
    for part, kept in (("training", training), ("validation", validation)):
        if missing := sorted(set(range(len(classes))) - {label for _, label in kept}):
            names = ", ".join(classes[m] for m in missing)
            raise DataError(f"{path}: no {part} pictures of {names}; a class needs at least {HELD_OUT} pictures")
    return Dataset(classes, _read(training, size), _read(validation, size))


def _read(samples: list[tuple[_Sample, int]], size: int) -> Pictures:
    images = np.empty((len(samples), size, size, 3), np.uint8)
    for image, (sample, _) in zip(images, samples, strict=True):
        image[:] = _sized(_cropped(_rgb(sample.file), sample), size)
    return Pictures(images, np.array([label for _, label in samples], np.int64))


def _rgb(file: Path) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f"{file}: too large a picture for OpenCV; shrink it first") from error
    if pixels is None:
        raise DataError(f"{file}: missing or not a picture that OpenCV can read")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        raise DataError(f"{file}: {channels} channel(s) of {pixels.dtype}; training takes 8-bit RGB, convert it first")
    return np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8, copy=False)


def _cropped(pixels: NDArray[np.uint8], sample: _Sample) -> NDArray[np.uint8]:
    """A square around the box with a margin, as far as the picture reaches; the whole picture where there is no box."""
    if sample.box is None:
        return pixels
    height, width = pixels.shape[:2]
    x, y, w, h = sample.box
    if w <= 0 or h <= 0 or x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise DataError(
            f"{sample.file}: box {sample.box} of '{sample.label}' lies outside its {width} x {height} pixels"
        )
    half = max(w, h) * (0.5 + MARGIN)
    left, right = max(0, round(x + w / 2 - half)), min(width, round(x + w / 2 + half))
    top, bottom = max(0, round(y + h / 2 - half)), min(height, round(y + h / 2 + half))
    return pixels[top : max(bottom, top + 1), left : max(right, left + 1)]


def _sized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle square, scaled: by area when it shrinks, linearly when it grows."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    scaled: NDArray[np.uint8] = cv2.resize(square, (size, size), interpolation=how).astype(np.uint8, copy=False)
    return scaled
