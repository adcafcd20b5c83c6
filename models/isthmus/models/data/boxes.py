"""Pictures with boxes around what is in them, from labels in COCO's format; each picture is read when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.models.data import coco
from isthmus.models.pictures import read_picture
from isthmus.proto.errors import DataError

Place = tuple[float, float, float, float]
"""Top, left, bottom, right, in pixels."""


@dataclass(frozen=True)
class BoxedPicture:
    """A picture on disk, and what is in it: classes by name, and places."""

    file: Path
    boxes: tuple[tuple[str, Place], ...]

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB. Raises DataError when it cannot be read."""
        return read_picture(self.file)


def boxed(path: Path, most: int | None = None) -> list[BoxedPicture]:
    """The pictures of a file of labels, the first `most` of them, those without a box among them.

    Raises DataError naming what cannot be read, or a box that has no picture, no class or no extent.
    """
    tables = coco.read(path)
    found: dict[int, list[tuple[str, Place]]] = {image.id: [] for image in tables.images}
    for image, name, annotation in tables.labelled(path):
        x, y, width, height = annotation.bbox
        if width <= 0 or height <= 0:
            raise DataError(f"{path}: annotation {annotation.id}: a box of {width:g} x {height:g} pixels; leave it out")
        found[image.id].append((name, (y, x, y + height, x + width)))
    if not found:
        raise DataError(f"{path}: no pictures in it")
    return [BoxedPicture(path.parent / i.file_name, tuple(found[i.id])) for i in tables.images[:most]]
