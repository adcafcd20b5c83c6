"""From a recipe's name to its data, its training and its bundle: what `isthmus models train` and `export` do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.models import data, datasets, exits, scenes
from isthmus.models.backbones import SplitNetwork
from isthmus.models.bundle import Bundle
from isthmus.models.evaluate import Validation, evaluate
from isthmus.models.recipes import RECIPES, Recipe
from isthmus.models.train import Trainer, TrainingSet
from isthmus.proto.errors import ConfigError, DataError

Report = Callable[[str], None]
CODEC_PICTURES = 500
"""Training pictures that the codec's tables are fitted on, at every width."""


@dataclass(frozen=True)
class Corpus:
    """Where a recipe's pictures come from; called only when they are needed."""

    labels: tuple[str, ...]
    training: Callable[[], TrainingSet]
    validation: Callable[[], Validation]


def _halves(n: int) -> NDArray[np.bool_]:
    """Every other picture: one half calibrates, the other judges."""
    calibrating: NDArray[np.bool_] = np.arange(n) % 2 == 0
    return calibrating


def _cifar10_training() -> TrainingSet:
    return TrainingSet(data.cifar10("train"), data.CIFAR10_MEAN, data.CIFAR10_STD, shift_pixels=4, flip=True)


def _cifar10_validation() -> Validation:
    test = data.cifar10("test")
    return Validation(test, _halves(len(test)), data.CIFAR10_MEAN, data.CIFAR10_STD)


SCENES_MEAN, SCENES_STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)


def _signs_training() -> TrainingSet:
    # No flips: a mirrored arrow is another sign.
    return TrainingSet(data.rendered_scenes(60_000, seed=1), SCENES_MEAN, SCENES_STD, shift_pixels=8, flip=False)


def _signs_validation() -> Validation:
    test = data.rendered_scenes(6_000, seed=2)
    return Validation(test, _halves(len(test)), SCENES_MEAN, SCENES_STD)


CORPORA: dict[str, Corpus] = {
    "cifar10": Corpus(data.CIFAR10_LABELS, _cifar10_training, _cifar10_validation),
    "signs": Corpus(scenes.LABELS, _signs_training, _signs_validation),
}


@dataclass(frozen=True)
class Workshop:
    """One recipe with its data."""

    name: str
    recipe: Recipe
    corpus: Corpus
    arguments: str
    """What `isthmus models train` and `export` were given, for the bundle's own account of how it was made."""

    def train(self, checkpoint: Path, *, seed: int, threads: int, report: Report) -> None:
        """Train to the end of the recipe, resuming from `checkpoint`."""
        torch.set_num_threads(threads)
        training = self.corpus.training()
        trainer = Trainer(self.recipe, training, seed=seed)
        network = trainer.run(checkpoint, report)
        if self.recipe.late_exit_epochs:
            exits.retrain(network, self.recipe, training, seed=seed, report=report)
            trainer.save(checkpoint)

    def export(self, checkpoint: Path, target: Path, *, threads: int, report: Report) -> Bundle:
        """Evaluate the averaged network of `checkpoint` and write its bundle to `target`."""
        from isthmus.models.export import write_bundle  # training alone needs none of the converters

        torch.set_num_threads(threads)
        network, seed, epochs = load_averaged(checkpoint, self.recipe)
        validation = self.corpus.validation()
        training = self.corpus.training().pictures
        sample = data.Pictures(training.images[:CODEC_PICTURES], training.labels[:CODEC_PICTURES])
        evaluation = evaluate(network, self.recipe, sample, validation, report)
        images = data.normalised(validation.pictures.images[:16], validation.mean, validation.std)
        bundle = write_bundle(
            target,
            network,
            self.recipe,
            evaluation,
            name=self.name,
            labels=self.corpus.labels,
            mean=validation.mean,
            std=validation.std,
            images=images,
            made_by=f"isthmus models train {self.arguments} --seed {seed} ({epochs} epochs); "
            f"isthmus models export {self.arguments}",
        )
        report(f"{target}: bundle {bundle.sha256.hex()}")
        return bundle


def load_averaged(checkpoint: Path, recipe: Recipe) -> tuple[SplitNetwork, int, int]:
    """The averaged network of a checkpoint, its seed and the epochs it was trained. DataError if it is of another kind."""
    if not checkpoint.is_file():
        raise DataError(f"{checkpoint}: no such checkpoint; run `isthmus models train` first")
    network = SplitNetwork(recipe.arch)
    state = torch.load(checkpoint, weights_only=False)
    try:
        network.load_state_dict(state["teacher"])
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{checkpoint}: a checkpoint of another architecture ({error})") from error
    return network.eval(), int(state["seed"]), int(state["epochs_done"])


def open_workshop(name: str, pictures: Path | None = None) -> Workshop:
    """The workshop of recipe `name`, on its own pictures or on those of a folder or COCO-style file (`datasets.load`).

    ConfigError lists the recipes; DataError names what is wrong with the pictures.
    """
    if name not in RECIPES:
        raise ConfigError(f"{name}: no such recipe; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if pictures is None:
        return Workshop(name, recipe, CORPORA[name], name)
    dataset = datasets.load(pictures, recipe.arch.input_size)
    own = replace(recipe, arch=replace(recipe.arch, classes=len(dataset.classes)))
    return Workshop(pictures.stem, own, _own_corpus(dataset), f"{name} --pictures {pictures.name}")


def _own_corpus(dataset: datasets.Dataset) -> Corpus:
    shift = dataset.training.images.shape[1] // 8
    return Corpus(
        dataset.classes,
        lambda: TrainingSet(dataset.training, dataset.mean, dataset.std, shift_pixels=shift, flip=True),
        lambda: Validation(dataset.validation, _halves(len(dataset.validation)), dataset.mean, dataset.std),
    )
