"""Whose pictures a recipe is trained on and judged by: the recipe's own, or somebody's folder. Read only when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.models import data, datasets, flatbuffer, pictures, scenes
from isthmus.models.bundle import Manifest
from isthmus.models.data import TrainingSet
from isthmus.models.evaluate import Validation
from isthmus.models.teachers import Original, Teacher
from isthmus.models.uncut import input_of
from isthmus.models.views import as_seen
from isthmus.proto.errors import ConfigError, DataError


@dataclass(frozen=True)
class Corpus:
    """Where pictures come from; called only when they are needed."""

    labels: tuple[str, ...]
    training: Callable[[], TrainingSet]
    validation: Callable[[], Validation]


def halves(n: int) -> NDArray[np.bool_]:
    """One half of `n` pictures calibrates, the other judges: drawn, since the order of a set often follows its classes."""
    return np.random.default_rng(0).permutation(n) < n / 2


def _cifar10_training() -> TrainingSet:
    return TrainingSet(data.cifar10("train"), data.CIFAR10_MEAN, data.CIFAR10_STD, shift_pixels=4, flip=True)


def _cifar10_validation() -> Validation:
    test = data.cifar10("test")
    return Validation(test, halves(len(test)), data.CIFAR10_MEAN, data.CIFAR10_STD)


SCENES_MEAN, SCENES_STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)


def _signs_training() -> TrainingSet:
    # No flips: a mirrored arrow is another sign.
    return TrainingSet(data.rendered_scenes(60_000, seed=1), SCENES_MEAN, SCENES_STD, shift_pixels=8, flip=False)


def _signs_validation() -> Validation:
    test = data.rendered_scenes(6_000, seed=2)
    return Validation(test, halves(len(test)), SCENES_MEAN, SCENES_STD)


CORPORA: dict[str, Corpus] = {
    "cifar10": Corpus(data.CIFAR10_LABELS, _cifar10_training, _cifar10_validation),
    "signs": Corpus(scenes.LABELS, _signs_training, _signs_validation),
}


def own(path: Path, size: int) -> Corpus:
    """Somebody's own pictures at (size, size): see `datasets.load`, also for what it raises."""
    dataset = datasets.load(path, size)
    return Corpus(
        dataset.classes,
        lambda: TrainingSet(dataset.training, dataset.mean, dataset.std, shift_pixels=size // 8, flip=True),
        lambda: Validation(dataset.validation, halves(len(dataset.validation)), dataset.mean, dataset.std),
    )


def training_of(manifest: Manifest, folder: Path | None) -> TrainingSet:
    """What a bundle was trained on, or somebody's own pictures of its classes. Raises as `validation_of` does."""
    return _of(manifest, folder).training()


def validation_of(manifest: Manifest, folder: Path | None, most: int | None = None) -> Validation:
    """What a bundle was validated on, or somebody's own pictures of its classes; the first `most` of them.

    Raises ConfigError when its pictures are not known here, DataError when the classes are not the bundle's.
    """
    whole = _of(manifest, folder).validation()
    n = min(most or len(whole.pictures), len(whole.pictures))
    return judged_by(manifest, data.Pictures(whole.pictures.images[:n], whole.pictures.labels[:n]))


def judged_by(manifest: Manifest, judges: data.Pictures) -> Validation:
    """Pictures that a bundle is judged by; one half of them calibrates."""
    return Validation(judges, halves(len(judges)), manifest.input.mean, manifest.input.std)


def answered(
    manifest: Manifest, model: Path, pixels: str | None, folder: Path | None, most: int | None
) -> data.Pictures:
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
    taken, told = ((i.size, *i.mean, *i.std) for i in (teacher.input, manifest.input))
    if teacher.classes != len(manifest.labels) or not np.allclose(taken, told):
        raise DataError(
            f"{model}: {teacher.classes} classes of {teacher.size} pixels, or pixels of another range; "
            f"{manifest.name} was made of another model"
        )
    shown = pictures.samples(folder, most or sys.maxsize)
    drawn = np.random.default_rng(0).permutation(len(shown))
    images = np.stack([as_seen(shown[i], teacher.size) for i in drawn])
    return data.Pictures(images, Original(teacher).logits(images).argmax(1))


def _of(manifest: Manifest, folder: Path | None) -> Corpus:
    if manifest.reference == "uncut":
        raise ConfigError(
            f"{manifest.name}: what is right is what its uncut model answers; name that .tflite with --uncut, and pictures "
            f"without labels with --pictures"
        )
    if folder is None:
        for name, corpus in CORPORA.items():
            if corpus.labels == manifest.labels and manifest.name.startswith(name):
                return corpus
        raise ConfigError(f"{manifest.name}: its pictures are not known here; name a folder of them with --pictures")
    corpus = own(folder, manifest.input.size)
    if corpus.labels != manifest.labels:
        raise DataError(
            f"{folder}: classes {', '.join(corpus.labels)}; {manifest.name} knows {', '.join(manifest.labels)}"
        )
    return corpus
