"""Clips as a bundle's head sees them: features of frames in their order, and what is to be seen in them. No torch."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models import crossing
from isthmus.models.bundle import Bundle
from isthmus.models.data.boxes import Place
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake, read_picture
from isthmus.proto.errors import BundleError, DataError

Floats = NDArray[np.float32]
TABLE = ".boxes.csv"


@dataclass(frozen=True)
class Film:
    """A clip as it crosses."""

    name: str
    features: list[Floats]
    """(H, W, C) of each frame."""
    truth: list[tuple[tuple[str, Place], ...]]
    """What is in each frame, in the video's pixels; empty where there is no table."""
    shape: tuple[int, int]
    """Height and width of the video."""


class FeatureHead:
    """A bundle's head at one width, without its exits."""

    def __init__(self, bundle: Bundle, width: float) -> None:
        """Raises BundleError where only the picture crosses."""
        interpreter = opened(bundle.head_path, threads=1)
        stages = [bundle.stage(i, width) for i in range(len(bundle.manifest.stages))]
        if not all(stage.signature for stage in stages):
            raise BundleError(f"{bundle.folder.name}: no features cross, only the picture")
        self._bottleneck, self._intake = bundle.manifest.bottleneck, Intake(bundle.manifest.input)
        self._parts = [Signature(interpreter, stage.signature) for stage in stages]

    def __call__(self, pixels: NDArray[np.uint8]) -> Floats:
        """Features (H, W, C) of an RGB picture."""
        out: dict[str, Floats] = {}
        for part in self._parts:
            out = part(image=self._intake(pixels)) if "image" in part.inputs else part(hidden=out["hidden"])
        return crossing.joined(out, self._bottleneck)


def film(path: Path, head: FeatureHead, *, every: int = 1, most: int = 150) -> Film:
    """Run the head over every so many frames of a clip, `most` at most; beside NAME.mp4 its boxes may lie in NAME.boxes.csv.

    A folder is a clip too, its pictures in the order of their names. Raises DataError when it cannot be read.
    """
    features, numbers, shape = list[Floats](), list[int](), (0, 0)
    for number, pixels in _frames(path, every, most):
        features.append(head(pixels))
        numbers.append(number)
        shape = pixels.shape[0], pixels.shape[1]
    if not features:
        raise DataError(f"{path}: neither a video that OpenCV can read nor a folder of pictures")
    table = path.with_suffix(TABLE)
    return Film(path.stem, features, _truth(table, numbers) if table.is_file() else [], shape)


def _frames(path: Path, every: int, most: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    if path.is_dir():
        for number, file in enumerate(sorted(p for p in path.iterdir() if p.is_file())[: every * most]):
            if number % every == 0:
                yield number, read_picture(file)
        return
    video = cv2.VideoCapture(str(path))
    number = 0
    while number < every * most and video.grab():
        if number % every == 0:
            yield number, cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        number += 1
    video.release()


def _truth(table: Path, numbers: list[int]) -> list[tuple[tuple[str, Place], ...]]:
    found: dict[int, list[tuple[str, Place]]] = {number: [] for number in numbers}
    try:
        for row in csv.DictReader(table.read_text().splitlines()):
            x, y, width, height = (float(row[key]) for key in ("x", "y", "w", "h"))
            if (boxes := found.get(int(row["frame"]))) is not None:
                boxes.append((row["label"].lower(), (y, x, y + height, x + width)))
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"{table}: not a table of frame, label, x, y, w, h ({error})") from error
    return [tuple(found[number]) for number in numbers]
