"""Unlabelled pictures, labelled by the uncut model that a bundle answers like."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from isthmus.models import flatbuffer, pictures
from isthmus.models.bundle import Manifest
from isthmus.models.data import labelled
from isthmus.models.pictures import squeezed
from isthmus.models.splitting.uncut import input_of
from isthmus.models.training.tflite_teacher import Original, Teacher
from isthmus.proto.errors import ConfigError, DataError


def answered(
    manifest: Manifest, model: Path, pixels: str | None, folder: Path | None, most: int | None
) -> labelled.Pictures:
    """Unlabelled pictures of a folder, at most so many, evenly, labelled by the uncut model that the bundle answers like.

    They come in a drawn order, since that of a folder often follows its classes. Raises ConfigError when what is right is
    not a model's answer, DataError when the model is another, and as `flatbuffer.read`, `Teacher` and `pictures.samples` do.
    """
    if manifest.reference != "uncut":
        raise ConfigError(f"--uncut: {manifest.name} is judged by labels, not by what a model answers; leave it out")
    if folder is None:
        raise ConfigError(
            "--uncut: takes pictures without labels: name a folder or archive of them with --pictures, and where a head is "
            "quantised another to judge by with --validation"
        )
    graph = flatbuffer.read(model)
    teacher = Teacher(graph, input_of(graph, pixels))
    expected, found = ((i.size, *i.mean, *i.std) for i in (teacher.input, manifest.input))
    if teacher.classes != len(manifest.labels) or not np.allclose(expected, found):
        raise DataError(
            f"{model}: {teacher.classes} classes of {teacher.size} pixels, or pixels of another range; "
            f"{manifest.name} was made of another model"
        )
    shown = pictures.samples(folder, most or sys.maxsize)
    drawn = np.random.default_rng(0).permutation(len(shown))
    images = np.stack([squeezed(shown[i], teacher.size) for i in drawn])
    return labelled.Pictures(images, Original(teacher).logits(images).argmax(1))
