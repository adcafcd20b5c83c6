"""The pictures that a recipe is trained on and judged by: the recipe's own, or a user's folder. Read when needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.models import scenes
from isthmus.models.bundle import Manifest
from isthmus.models.data import folders, labelled
from isthmus.models.data.labelled import TrainingSet, Validation
from isthmus.proto.errors import ConfigError, DataError


@dataclass(frozen=True)
class Corpus:
    """The pictures' sources; called only when they are needed."""

    labels: tuple[str, ...]
    training: Callable[[], TrainingSet]
    validation: Callable[[], Validation]


def halves(n: int) -> NDArray[np.bool_]:
    """One half of `n` pictures calibrates, the other judges: drawn, since the order of a set often follows its classes."""
    return np.random.default_rng(0).permutation(n) < n / 2


def _cifar10_training() -> TrainingSet:
    return TrainingSet(
        labelled.cifar10("train"), labelled.CIFAR10_MEAN, labelled.CIFAR10_STD, shift_pixels=4, flip=True
    )


def _cifar10_validation() -> Validation:
    test = labelled.cifar10("test")
    return Validation(test, halves(len(test)), labelled.CIFAR10_MEAN, labelled.CIFAR10_STD)


SCENES_MEAN, SCENES_STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)


def _signs_training() -> TrainingSet:
    # No flips: a mirrored arrow is another sign.
    return TrainingSet(labelled.rendered_scenes(60_000, seed=1), SCENES_MEAN, SCENES_STD, shift_pixels=8, flip=False)


def _signs_validation() -> Validation:
    test = labelled.rendered_scenes(6_000, seed=2)
    return Validation(test, halves(len(test)), SCENES_MEAN, SCENES_STD)


CORPORA: dict[str, Corpus] = {
    "cifar10": Corpus(labelled.CIFAR10_LABELS, _cifar10_training, _cifar10_validation),
    "signs": Corpus(scenes.LABELS, _signs_training, _signs_validation),
}


def own(path: Path, size: int) -> Corpus:
    """Somebody's own pictures at (size, size): see `datasets.load`, also for what it raises."""
    dataset = folders.load(path, size)
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
    return judged_by(manifest, labelled.Pictures(whole.pictures.images[:n], whole.pictures.labels[:n]))


def judged_by(manifest: Manifest, judges: labelled.Pictures) -> Validation:
    """Pictures that a bundle is judged by; one half of them calibrates."""
    return Validation(judges, halves(len(judges)), manifest.input.mean, manifest.input.std)


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
