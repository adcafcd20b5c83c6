"""A detector's recipe with its clips, from its name to its training and its bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from isthmus.models.bundle import Bundle
from isthmus.models.data import clips
from isthmus.models.data.clips import BoxedFrames
from isthmus.models.detection import card, judging, measuring, places
from isthmus.models.detection.network import Detector
from isthmus.models.detection.recipes import RECIPES, Recipe
from isthmus.models.detection.trainer import Trainer
from isthmus.models.pictures import data_root
from isthmus.models.progress import Report
from isthmus.models.training.resumable import other_architecture, read_checkpoint
from isthmus.proto.errors import ConfigError, DataError

FOLDERS = {"skywatch": ("video/drone/train", "video/drone/more")}
"""What a recipe is trained on, below the folder of real data; what scores it lies elsewhere, and is never read here."""
JUDGING_STEP = 1
"""The step of the ladder that early stopping listens at."""
PARITY_FRAMES = 8


@dataclass(frozen=True)
class DetectorRun:
    """One recipe with its clips."""

    name: str
    recipe: Recipe
    pictures: Path | None
    """Somebody's own: a folder of clips, or a COCO-style file; None: the recipe's."""
    arguments: str
    """What `isthmus models train` and `export` were given, for the bundle's own account of how it was made."""

    def lasting(self, epochs: int | None) -> DetectorRun:
        """The same run of so many epochs; None: as many as the recipe says."""
        return replace(self, recipe=replace(self.recipe, epochs=epochs or self.recipe.epochs))

    @cached_property
    def _shared(self) -> tuple[BoxedFrames, BoxedFrames]:
        frames = self._read()
        judges = places.held_out(frames, places.places(frames))
        return frames.of(~judges), frames.of(judges)

    def _read(self) -> BoxedFrames:
        arch = self.recipe.arch
        shape = arch.height, arch.width
        if self.pictures is not None and self.pictures.is_file():
            return clips.pictures(self.pictures, shape)
        folders = [self.pictures] if self.pictures else [data_root() / part for part in FOLDERS[self.name]]
        if missing := [folder for folder in folders if not folder.is_dir()]:
            raise DataError(f"{missing[0]}: no such folder of clips; see docs/detectors.md")
        found = [clip for folder in folders for clip in clips.clips(folder)]
        return clips.decoded(found, shape, self.recipe.every)

    @property
    def training(self) -> BoxedFrames:
        """The frames that are trained on."""
        return self._shared[0]

    @property
    def held_out(self) -> BoxedFrames:
        """The frames of other places, which stop the training, fit the codec and fill the outcome table."""
        return self._shared[1]

    @property
    def sized(self) -> Recipe:
        """The recipe for the classes that its clips show."""
        return replace(self.recipe, arch=replace(self.recipe.arch, classes=len(self.training.labels)))

    def train(self, checkpoint: Path, *, seed: int, threads: int, report: Report, begin: Bundle | None = None) -> None:
        """Train to the end of the recipe, resuming from `checkpoint`.

        Raises DataError naming what is wrong with a clip, ConfigError where it should `begin` with a bundle's weights.
        """
        if begin is not None:
            raise ConfigError(f"--begin: {begin.manifest.name}: a detector begins with random weights; leave it out")
        torch.set_num_threads(threads)
        held_out, recipe = self.held_out, self.sized
        report(
            f"{len(self.training)} frames; {len(held_out)} of other places judge: "
            + ", ".join(sorted({held_out.names[i] for i in np.unique(held_out.clip)}))
        )
        judge = judging.HeldOut(held_out, recipe.arch.widths, recipe.steps[JUDGING_STEP])
        Trainer(recipe, self.training, judge, seed=seed).run(checkpoint, report)

    def export(self, checkpoint: Path, target: Path, *, threads: int, report: Report) -> Bundle:
        """Measure the best network of `checkpoint` on the places held out, and write its bundle to `target`."""
        from isthmus.models.detection.export import Trained, write_bundle  # training alone needs no converters

        torch.set_num_threads(threads)
        frames, recipe = self.held_out, self.sized
        best = load_best(checkpoint, recipe)
        trained, widths = Trained(best.network), recipe.arch.widths
        codec = measuring.fitted_codec(trained, widths, recipe.steps, frames.images)
        answers, layer_bytes = measuring.answered(trained, widths, codec, frames.images, report)
        boxes = measuring.fitted_boxes(answers, frames)
        evaluation, edges = measuring.evaluated(answers, layer_bytes, frames, boxes, codec)
        images = frames.images[:: max(1, len(frames) // PARITY_FRAMES)][:PARITY_FRAMES]
        made_by = f"{best.made_by(self.arguments)}; isthmus models export {self.arguments}"
        bundle = write_bundle(
            target,
            best.network,
            evaluation,
            edges,
            boxes,
            name=self.name,
            labels=frames.labels,
            images=images,
            made_by=made_by,
        )
        card.write(bundle)
        for width in (widths[0], widths[-1]):
            crossed = judging.by_crossing(best.network, frames, width, recipe.steps[JUDGING_STEP])
            told = ", ".join(f"{how} {value:.3f}" for how, value in crossed.items())
            wrong = max(crossed.values()) - min(crossed.values()) > judging.APART
            report(f"width {width:g}, AP50 of what crosses: {told}{'; they should agree, train on' if wrong else ''}")
        report(f"{target}: bundle {bundle.sha256.hex()}")
        return bundle


@dataclass(frozen=True)
class Best:
    """The network of a training that did best on the places held out, and how it came about."""

    network: Detector
    seed: int
    epoch: int
    epochs: int

    def made_by(self, arguments: str) -> str:
        """The command, for the bundle's own account."""
        return f"isthmus models train {arguments} --seed {self.seed} (epoch {self.epoch} of {self.epochs})"


def load_best(checkpoint: Path, recipe: Recipe) -> Best:
    """The best network of a checkpoint. DataError if it is of another kind."""
    if not checkpoint.is_file():
        raise DataError(f"{checkpoint}: no such checkpoint; run `isthmus models train` first")
    state = read_checkpoint(checkpoint)
    network = Detector(recipe.arch)
    try:
        kept = state["kept"]
        if float(kept["score"]) < 0:
            raise DataError(f"{checkpoint}: no network was judged yet; train on")
        network.load_state_dict({k.removeprefix("network."): v for k, v in kept.items() if k.startswith("network.")})
        epoch = int(kept["epoch"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise other_architecture(checkpoint, error) from error
    return Best(network.eval(), int(state["seed"]), epoch, int(state["epochs_done"]))


def open_run(name: str, pictures: Path | None = None) -> DetectorRun:
    """Open recipe `name` with its own clips, or with those of a folder or COCO-style file."""
    if pictures is None:
        return DetectorRun(name, RECIPES[name], None, name)
    return DetectorRun(pictures.stem, RECIPES[name], pictures, f"{name} --pictures {pictures.name}")
