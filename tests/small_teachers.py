"""A small teacher, and folders of pictures for it to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from graphs import classifier
from isthmus.models import flatbuffer
from isthmus.models.splitting.uncut import input_of
from isthmus.models.training.tflite_teacher import Teacher

SIZE = 32


def silent(_: str) -> None:
    return


def teacher(path: Path) -> Teacher:
    """A small classifier of `SIZE` pixels."""
    graph = flatbuffer.read(classifier(path / "teacher.tflite", size=SIZE))
    return Teacher(graph, input_of(graph, "0..1"))


def fill(folder: Path, count: int, *, side: int = 48, seed: int = 0) -> Path:
    """Pictures of random blobs, smooth enough that there is something to learn."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        small = rng.integers(0, 256, (4, 4, 3), np.uint8)
        picture = cv2.resize(small, (side + i % 3, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:03d}.png"), picture)
    return folder
