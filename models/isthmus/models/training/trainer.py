"""Joint training of head, exits, bottleneck and tail: sandwich rule, averaged teacher, random quantiser steps.

Each batch is shared out: half of it runs at full width, a quarter at the narrowest, a quarter at a width between; the
features of all of them go through the one tail together. An exponential average of the weights, at full width and
unquantised, teaches the narrow widths and the exits; a guide, another network with a like tail, may teach the tail. A run is
resumed from its checkpoint with the same result in kind, not bit for bit. It runs on a GPU where there is one.
"""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.bundle import Bundle
from isthmus.models.data import labelled
from isthmus.models.training import bottleneck, losses
from isthmus.models.training.backbones import SplitNetwork
from isthmus.models.training.layers import whiten
from isthmus.models.training.muon import Muon
from isthmus.models.training.processors import fastest, mixed_precision
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.vector_quantiser import Codebooks
from isthmus.models.training.warm_start import warm_start
from isthmus.proto.errors import ConfigError, DataError

Report = Callable[[str], None]
INHERITED_RATE = 0.4
"""Of the learning rates, in a training that begins with a bundle's weights: all of it would unlearn them first."""
FORGOTTEN = 5.0
"""Times that the averaged weights' memory fits into a run, at least."""
BASE_STEP = 3.0
"""The base layer alone is a quantiser three times as coarse as both layers together."""


def learning_rate(progress: float, peak: float, warm_up: float = 0.1) -> float:
    """Linear up to `peak`, linear down to a hundredth of it; `progress` in [0, 1]."""
    if progress < warm_up:
        return peak * (0.05 + 0.95 * progress / warm_up)
    return peak * max(0.01, (1 - progress) / (1 - warm_up))


class Trainer:
    """One run: the network, its averaged teacher, the optimiser, and the generators that make it repeatable."""

    def __init__(
        self,
        recipe: Recipe,
        training: labelled.TrainingSet,
        *,
        seed: int,
        guide: SplitNetwork | None = None,
        begin: Bundle | None = None,
    ) -> None:
        """`guide`: a trained network whose tail has blocks of the same shapes; `begin`: whose weights to begin with.

        Raises ConfigError when a recipe lacks the guide it takes, DataError when pictures are too few or mislabelled,
        BundleError when the training cannot begin with the bundle.
        """
        if recipe.match_until > 0 and guide is None:
            raise ConfigError("match_until: matching maps takes a guide, a trained network with a like tail")
        labelled.in_range(training.pictures.labels, recipe.arch.classes, "training pictures")
        if len(training.pictures) < recipe.batch:
            raise DataError(f"training pictures: {len(training.pictures)}; a batch of this recipe takes {recipe.batch}")
        torch.manual_seed(seed)
        self.device = fastest()
        self.guide = guide.to(self.device) if guide is not None else None
        self.seed, self.recipe, self.training = seed, recipe, training
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        network = SplitNetwork(recipe.arch)
        if recipe.whitened:
            whiten(network.head.first, labelled.sample(training))
        if begin is not None:
            warm_start(network, begin, labelled.sample(training))
        self.begun_with = begin.sha256.hex() if begin is not None else ""
        share = INHERITED_RATE if begin is not None else 1.0
        self.peaks = (share * recipe.turn_rate, share * recipe.peak_rate)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher = copy.deepcopy(self.network).eval().requires_grad_(False)
        # A depthwise filter has nothing to be orthogonal to: it is left to SGD.
        trained = [p for p in self.network.parameters() if p.requires_grad]
        convolutions = [p for p in trained if p.ndim == 4 and p.shape[1] > 1]
        others = [p for p in trained if p.ndim < 4 or p.shape[1] == 1]
        self.optimisers = (
            Muon(convolutions, lr=recipe.turn_rate),
            torch.optim.SGD(others, lr=recipe.peak_rate, momentum=0.9, nesterov=True),
        )
        self.codebooks = Codebooks(recipe.arch.bottleneck_channels, self.generator).to(self.device)
        self.frozen = False
        self.epochs_done = 0
        self.steps_per_epoch = len(training.pictures) // recipe.batch
        # In a short run an average that forgets as slowly as in a long one would still be mostly what it began with.
        self.averaging = min(recipe.averaging, max(0.0, 1 - FORGOTTEN / (recipe.epochs * self.steps_per_epoch)))

    def run(self, checkpoint: Path, report: Report) -> SplitNetwork:
        """Train to the end of the recipe, resuming from `checkpoint` if it exists; the averaged network, on the CPU."""
        if checkpoint.is_file():
            self.load(checkpoint)
            report(f"resumed after epoch {self.epochs_done} of {self.recipe.epochs}")
        while self.epochs_done < self.recipe.epochs:
            began = time.monotonic()
            loss = self.epoch(report)
            self.epochs_done += 1
            self.save(checkpoint)
            report(
                f"epoch {self.epochs_done} of {self.recipe.epochs}: loss {loss:.3f}, {time.monotonic() - began:.0f} s"
            )
        self.codebooks.to(torch.device("cpu"))
        return self.teacher.cpu()

    def epoch(self, report: Report) -> float:
        """One pass over the pictures; the mean loss."""
        total = 0.0
        self.network.train()
        self.network.head.train(not self.frozen)
        pictures, batch = self.training.pictures, self.recipe.batch
        mirrored = self.training.mirrored(self.epochs_done, self.seed)
        for i, index in enumerate(labelled.batches(len(pictures), batch, self.rng)):
            progress = (self.epochs_done + i / self.steps_per_epoch) / self.recipe.epochs
            images = labelled.shifted(pictures.images[index], self.training.shift_pixels, mirrored[index], self.rng)
            x = labelled.normalised(images, self.training.mean, self.training.std).to(self.device)
            labels = torch.from_numpy(pictures.labels[index]).to(self.device)
            total += self.step(x, labels, progress)
            if i % 50 == 49:
                report(f"  step {i + 1} of {self.steps_per_epoch}: loss {total / (i + 1):.3f}")
        return total / self.steps_per_epoch

    def step(self, x: Tensor, labels: Tensor, progress: float) -> float:
        """One optimiser step on (N, 3, S, S) pictures; the loss."""
        if progress >= self.recipe.freeze_from and not self.frozen:
            self._freeze()
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(progress, peak)
        with mixed_precision(self.device):
            loss = self._loss(x, labels, progress)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.optimisers[1].param_groups[0]["params"], 5.0)
        for optimiser in self.optimisers:
            optimiser.step()
        follow(self.teacher, self.network, self.averaging)
        return float(loss.detach())

    def _freeze(self) -> None:
        """From here on the averaged head stands still, and the tail is tuned to it."""
        self.network.load_state_dict(self.teacher.state_dict())
        self.network.head.requires_grad_(False).eval()
        self.frozen = True

    def _parts(self, n: int, progress: float) -> list[tuple[float, slice]]:
        """Which width runs which samples: the sandwich rule, shared out over one batch."""
        widths = self.recipe.arch.widths
        between = widths[1:-1] or widths[:1]
        middle = between[int(self.rng.integers(len(between)))]
        half, quarter = n // 2, n // 4
        if progress < self.recipe.slim_from:
            return [(widths[-1], slice(0, n))]
        return [
            (widths[-1], slice(0, half)),
            (widths[0], slice(half, half + quarter)),
            (middle, slice(half + quarter, n)),
        ]

    def _loss(self, x: Tensor, labels: Tensor, progress: float) -> Tensor:
        recipe = self.recipe
        smoothing = recipe.label_smoothing
        features, exits, parts = [], [], self._parts(len(x), progress)
        for width, part in parts:
            f, e = self.network.head(x[part], width)
            features.append(f)
            exits.append(e)
        joined = torch.cat(features).float()
        sent = self._sent(joined, progress)
        maps = self.network.tail.maps(sent)
        logits = self.network.tail.answer(maps[-1]).float()
        per_exit = [torch.cat(column).float() for column in zip(*exits, strict=True)] if recipe.exit_weight > 0 else []
        if progress < recipe.match_until:
            loss = losses.map_distance(maps, self._guide_maps(x))
        else:
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            if self.guide is not None:
                opinion = self.guide.tail.answer(self._guide_maps(x)[-1]).float()
                loss = loss + recipe.distill_weight * losses.distillation(logits, opinion)
        price = F.mse_loss(joined, sent.detach()) if recipe.quantiser == "vector" else losses.rate(joined)
        loss = loss + recipe.rate_weight * price
        for e in per_exit:
            loss = loss + recipe.exit_weight * F.cross_entropy(e, labels, label_smoothing=smoothing)
        if progress < max(recipe.distill_from, recipe.match_until, recipe.slim_from):
            return loss
        narrow = slice(parts[0][1].stop, len(x))
        with torch.no_grad():
            reference, _ = self.teacher.head(x[narrow], recipe.arch.widths[-1])
            opinion = self.teacher.tail(reference).float()
        loss = loss + recipe.distill_weight * 0.5 * (
            losses.distillation(logits[narrow], opinion)
            + recipe.invariance_weight * losses.feature_invariance(joined[narrow], reference.float())
        )
        for e in per_exit:
            loss = loss + recipe.exit_weight * recipe.distill_weight * 0.5 * (
                losses.distillation(e[narrow], opinion) + losses.distillation(e[parts[0][1]], logits[parts[0][1]])
            )
        return loss

    @torch.no_grad()
    def _guide_maps(self, x: Tensor) -> list[Tensor]:
        assert self.guide is not None
        features, _ = self.guide.head(x, self.guide.arch.widths[-1])
        return self.guide.tail.maps(features)

    def _sent(self, features: Tensor, progress: float) -> Tensor:
        """What the tail is given in the place of `features` (N, C, H, W)."""
        if self.recipe.quantiser == "vector":
            sent = self.codebooks.dropped_out(features)
        elif self.recipe.quantiser == "scalar":
            sent = self._quantise(features, progress)
        else:
            sent = features
        if self.recipe.channel_dropout > 0:
            sent = bottleneck.leading_channels(sent, self.recipe.channel_dropout, self.generator)
        return sent

    def _quantise(self, features: Tensor, progress: float) -> Tensor:
        low, high = self.recipe.steps[0] * 0.9, self.recipe.steps[-1] * BASE_STEP
        step = bottleneck.random_steps(len(features), low, high, self.generator).to(features)
        if progress < self.recipe.straight_through_from:
            return bottleneck.noisy(features, step, self.generator)
        return bottleneck.straight_through(features, step)

    def save(self, path: Path) -> None:
        """Write everything needed to go on."""
        write_checkpoint(
            path,
            {
                "network": self.network.state_dict(),
                "teacher": self.teacher.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "epochs_done": self.epochs_done,
                "seed": self.seed,
                "begun_with": self.begun_with,
                "rng": self.rng.bit_generator.state,
                "generator": self.generator.get_state(),
            },
        )

    def load(self, path: Path) -> None:
        """Take up a checkpoint of the same architecture. DataError when it is of another, or no checkpoint."""
        state = read_checkpoint(path)
        try:
            self.network.load_state_dict(state["network"])
            self.teacher.load_state_dict(state["teacher"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
        except (KeyError, RuntimeError, ValueError) as error:
            raise other_architecture(path, error) from error
        if state.get("begun_with", "") != self.begun_with:
            raise DataError(f"{path}: a checkpoint of a training with another beginning; name another, or delete it")
        self.epochs_done, self.seed = state["epochs_done"], state["seed"]
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move `average` towards the weights of `network`; statistics of the batch norms included."""
    for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write, then rename: a run killed while saving keeps the last checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `Trainer.save` wrote, tensors and plain values: nothing in it is run. DataError when the file is something else."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a checkpoint, or a damaged one ({why}); delete it to begin anew") from error
    if not isinstance(state, dict) or "teacher" not in state:
        raise DataError(f"{path}: not a checkpoint of a training; delete it to begin anew")
    return state


def other_architecture(path: Path, error: Exception) -> DataError:
    """The error for a checkpoint whose tensors are not the recipe's."""
    return DataError(f"{path}: a checkpoint of another architecture ({error})")


@torch.no_grad()
def accuracy(network: SplitNetwork, x: Tensor, labels: Tensor, width: float, step: float) -> tuple[float, list[float]]:
    """Share right at one width: through the tail (unquantised if `step` is 0), and at every exit."""
    network.eval()
    right, exit_right = 0, [0] * len(network.arch.stages)
    for i in range(0, len(x), 500):
        features, exits = network.head(x[i : i + 500], width)
        y = labels[i : i + 500]
        logits = network.tail(features if step == 0 else bottleneck.quantised(features, step))
        right += int((logits.argmax(1) == y).sum())
        exit_right = [r + int((e.argmax(1) == y).sum()) for r, e in zip(exit_right, exits, strict=True)]
    n = len(x)
    return right / n, [math.fsum([r]) / n for r in exit_right]
