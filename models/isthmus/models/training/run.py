"""A recipe with its data, from its name to its training and its bundle: what `isthmus models train` and `export` do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.models.bundling.evaluate import evaluate, fitted_codec
from isthmus.models.data import corpora, labelled
from isthmus.models.data.corpora import Corpus
from isthmus.models.progress import Report
from isthmus.models.training import late_exits
from isthmus.models.training.backbones import Network, SplitNetwork
from isthmus.models.training.recipes import RECIPES, Recipe
from isthmus.models.training.resumable import other_architecture, read_checkpoint
from isthmus.models.training.trainer import Trainer
from isthmus.models.training.warm_start import warm_start
from isthmus.proto.errors import ConfigError, DataError

Change = tuple[str, Callable[[Recipe], Recipe]]
"""The name of a variant, and what it does to a recipe."""
BATCH = 50
"""The pictures that a network is given at once: more of them only take memory."""
CODEC_PICTURES = 500
"""Training pictures that the codec's tables are fitted on, at every width."""


SMALLEST_BATCH, STEPS_AN_EPOCH, FEWEST_STEPS = 32, 16, 1000
"""What a training on somebody's own pictures keeps to, as far as these allow."""


@dataclass(frozen=True)
class Trained:
    """A network in torch that answers as `evaluate.Halves` asks."""

    network: Network
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @torch.no_grad()
    def head(self, images: NDArray[np.uint8], width: float) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """See `evaluate.Halves`."""
        features, exits = [], []
        for i in range(0, len(images), BATCH):
            f, e = self.network.head(labelled.normalised(images[i : i + BATCH], self.mean, self.std), width)
            features.append(f.permute(0, 2, 3, 1).numpy())
            exits.append([logits.numpy() for logits in e])
        return np.concatenate(features), [np.concatenate(column) for column in zip(*exits, strict=True)]

    @torch.no_grad()
    def tail(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `evaluate.Halves`."""
        x = torch.from_numpy(features).permute(0, 3, 1, 2)
        return np.concatenate([self.network.tail(x[i : i + BATCH]).numpy() for i in range(0, len(x), BATCH)])


@dataclass(frozen=True)
class TrainingRun:
    """One recipe with its data."""

    name: str
    recipe: Recipe
    corpus: Corpus
    arguments: str
    """What `isthmus models train` and `export` were given, for the bundle's own account of how it was made."""
    trainer: type[Trainer] = Trainer

    def lasting(self, epochs: int | None) -> TrainingRun:
        """The same run of so many epochs; None: as many as the recipe says."""
        return replace(self, recipe=replace(self.recipe, epochs=epochs or self.recipe.epochs))

    def train(
        self,
        checkpoint: Path,
        *,
        seed: int,
        threads: int,
        report: Report,
        begin: Bundle | None = None,
    ) -> None:
        """Train to the end of the recipe, resuming from `checkpoint`; a fresh run begins with the weights of `begin`."""
        torch.set_num_threads(threads)
        training = self.corpus.training()
        trainer = self.trainer(self.recipe, training, seed=seed, begin=begin)
        network = trainer.run(checkpoint, report)
        if self.recipe.late_exit_epochs:
            late_exits.retrain(network, self.recipe, training, seed=seed, report=report)
            trainer.save(checkpoint)

    def begun_with(self, bundle: Bundle) -> SplitNetwork:
        """A network of this recipe with the weights of a bundle. BundleError when that is of another architecture."""
        network, training = SplitNetwork(self.recipe.arch), self.corpus.training()
        warm_start(network, bundle, labelled.sample(training))
        return network

    def export(self, checkpoint: Path, target: Path, *, threads: int, report: Report) -> Bundle:
        """Evaluate the averaged network of `checkpoint` and write its bundle to `target`."""
        torch.set_num_threads(threads)
        averaged = load_averaged(checkpoint, self.recipe)
        made_by = f"{averaged.made_by(self.arguments)}; isthmus models export {self.arguments}"
        return self.put(averaged.network, target, made_by=made_by, report=report)

    def put(self, network: SplitNetwork, target: Path, *, made_by: str, report: Report) -> Bundle:
        """Evaluate a network of this recipe and write its bundle to `target`."""
        from isthmus.models.training.export import write_bundle  # training alone needs none of the converters

        validation = self.corpus.validation()
        trained, widths = Trained(network, validation.mean, validation.std), self.recipe.arch.widths
        sample = self.corpus.training().pictures.images[:CODEC_PICTURES]
        codec = fitted_codec(trained, widths, self.recipe.steps, sample)
        evaluation = evaluate(trained, widths, codec, validation, report)
        images = labelled.normalised(validation.pictures.images[:16], validation.mean, validation.std)
        bundle = write_bundle(
            target,
            network,
            evaluation,
            name=self.name,
            labels=self.corpus.labels,
            mean=validation.mean,
            std=validation.std,
            images=images,
            made_by=made_by,
        )
        report(f"{target}: bundle {bundle.sha256.hex()}")
        return bundle


class Averaged(NamedTuple):
    """The averaged network of a training, and how it came about."""

    network: SplitNetwork
    seed: int
    epochs: int
    begun_with: str
    """sha256 of the bundle, hexadecimal; empty: with random weights."""

    def made_by(self, arguments: str) -> str:
        """The command, for the bundle's own account, with what `train` was given."""
        begun = f", begun with bundle {self.begun_with[:12]}" if self.begun_with else ""
        return f"isthmus models train {arguments} --seed {self.seed} ({self.epochs} epochs{begun})"


def load_averaged(checkpoint: Path, recipe: Recipe) -> Averaged:
    """The averaged network of a checkpoint. DataError if it is of another kind."""
    if not checkpoint.is_file():
        raise DataError(f"{checkpoint}: no such checkpoint; run `isthmus models train` first")
    network = SplitNetwork(recipe.arch)
    state = read_checkpoint(checkpoint)
    try:
        network.load_state_dict(state["averaged"])
    except (RuntimeError, TypeError) as error:
        raise other_architecture(checkpoint, error) from error
    begun_with = str(state["identity"].get("begun_with", ""))
    return Averaged(network.eval(), int(state["seed"]), int(state["epochs_done"]), begun_with)


def open_run(name: str, pictures: Path | None = None, changes: Sequence[Change] = ()) -> TrainingRun:
    """Open recipe `name` with its own pictures, or with those of a folder or COCO-style file (`folders.load`).

    `changes` are made to the recipe one after the other, and become part of the run's name. Raises ConfigError listing
    the recipes when there is no such one, DataError naming what is wrong with the pictures.
    """
    if name not in RECIPES:
        raise ConfigError(f"{name}: no such recipe; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for _, changed in changes:
        recipe = changed(recipe)
    variants = [variant for variant, _ in changes]
    arguments = " ".join([name, *(f"--variant {variant}" for variant in variants)])
    if pictures is None:
        return TrainingRun("-".join([name, *variants]), recipe, corpora.CORPORA[name], arguments)
    corpus = corpora.own(pictures, recipe.arch.input_size)
    own = _sized(
        replace(recipe, arch=replace(recipe.arch, classes=len(corpus.labels))), len(corpus.training().pictures)
    )
    return TrainingRun("-".join([pictures.stem, *variants]), own, corpus, f"{arguments} --pictures {pictures.name}")


def _sized(recipe: Recipe, pictures: int) -> Recipe:
    """`recipe` for so many pictures: batches small enough, and epochs enough, to learn from a few."""
    batch = min(recipe.batch, max(SMALLEST_BATCH, pictures // STEPS_AN_EPOCH // 8 * 8))
    epochs = max(recipe.epochs, math.ceil(FEWEST_STEPS * batch / max(pictures, 1)))
    late = math.ceil(recipe.late_exit_epochs * epochs / recipe.epochs)
    return replace(recipe, batch=batch, epochs=epochs, late_exit_epochs=late)
