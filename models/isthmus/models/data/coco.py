"""Labels in COCO's format: pictures, classes and boxes. Other keys are none of our business."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from isthmus.proto.errors import DataError


class Category(msgspec.Struct, frozen=True):
    """A class."""

    id: int
    name: str


class Image(msgspec.Struct, frozen=True):
    """A picture, by its path from the file of labels."""

    id: int
    file_name: str
    split: str | None = None


class Annotation(msgspec.Struct, frozen=True):
    """A box (x, y, width, height) in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]


class Coco(msgspec.Struct, frozen=True):
    """The part of COCO's format that is read; other keys are none of our business."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]

    def labelled(self, path: Path) -> Iterator[tuple[Image, str, Annotation]]:
        """Every box with its picture and the name of its class. Raises DataError naming one that has none in `path`."""
        names = {c.id: c.name for c in self.categories}
        images = {i.id: i for i in self.images}
        for a in self.annotations:
            if a.category_id not in names:
                known = ", ".join(map(str, sorted(names)))
                raise DataError(f"{path}: annotation {a.id}: category_id {a.category_id} is not one of {known}")
            if a.image_id not in images:
                raise DataError(f"{path}: annotation {a.id}: image_id {a.image_id} is none of the images")
            yield images[a.image_id], names[a.category_id], a


def read(path: Path) -> Coco:
    """The labels in a file. Raises DataError when it cannot be read, or is of another form."""
    try:
        return msgspec.convert(_numbered(json.loads(path.read_text())), Coco)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise DataError(f"{path}: not COCO-style JSON ({error})") from error


def _numbered(tables: Any) -> Any:
    """Annotations that carry no id are numbered, so that errors can name them."""
    if isinstance(tables, dict) and isinstance(tables.get("annotations"), list):
        rows = [{"id": i, **a} if isinstance(a, dict) else a for i, a in enumerate(tables["annotations"])]
        return {**tables, "annotations": rows}
    return tables
