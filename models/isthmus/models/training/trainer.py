"""Joint training of head, exits, bottleneck and tail: sandwich rule, self-distillation, random quantiser steps.

Each batch is shared out: half of it runs at full width, a quarter at the narrowest, a quarter at a width between; the
features of all of them go through the one tail together. An exponential average of the weights, at full width and
unquantised, teaches the narrow widths and the exits. It runs on a GPU where there is one.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.bundle import Bundle
from isthmus.models.data import labelled
from isthmus.models.progress import Report
from isthmus.models.training import bottleneck, losses
from isthmus.models.training.backbones import SplitNetwork
from isthmus.models.training.layers import whiten
from isthmus.models.training.muon import Muon
from isthmus.models.training.processors import mixed_precision
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.resumable import ResumableRun, Stateful, averaging, follow, prepare
from isthmus.models.training.warm_start import warm_start
from isthmus.proto.errors import DataError

WARM_START_RATE = 0.4
"""The share of the learning rates in a training that begins with a bundle's weights: all of it would undo them first."""
BASE_STEP = 3.0
"""The base layer alone is a quantiser three times as coarse as both layers together."""
CLIP_NORM = 5.0
"""The largest norm of a gradient that SGD follows; only the first steps of a run reach it."""
REPORT_EVERY = 50
"""The number of steps from one line of the report to the next."""


@dataclass(frozen=True)
class Forward:
    """The network's outputs for one batch (N, ...)."""

    full: slice
    """The samples that ran at full width."""
    narrow: slice
    """The samples that ran at the other widths."""
    features: Tensor
    """(N, C_b, S_b, S_b) as the head gives them."""
    sent: Tensor
    """The same as the tail is given them."""
    maps: list[Tensor]
    """The map of every block of the tail."""
    logits: Tensor
    """(N, K) as the tail answers."""
    exits: list[Tensor]
    """(N, K) of every exit that is trained."""


class Trainer(ResumableRun[SplitNetwork]):
    """One run: the network, its average, and the optimisers. Subclasses change what is sent and what is minimised."""

    def __init__(
        self, recipe: Recipe, training: labelled.TrainingSet, *, seed: int, begin: Bundle | None = None
    ) -> None:
        """`begin` is the bundle whose weights the network begins with; without one they are random.

        Raises DataError when pictures are too few or mislabelled, BundleError when the training cannot begin with the
        bundle.
        """
        labelled.in_range(training.pictures.labels, recipe.arch.classes, "training pictures")
        if len(training.pictures) < recipe.batch:
            raise DataError(f"training pictures: {len(training.pictures)}; a batch of this recipe takes {recipe.batch}")
        begun_with = begin.sha256.hex() if begin is not None else ""
        super().__init__(seed=seed, epochs=recipe.epochs, identity={"begun_with": begun_with})
        self.recipe, self.training = recipe, training
        self.network = _begun(recipe, training, begin).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        share = WARM_START_RATE if begin is not None else 1.0
        self.peaks = (share * recipe.turn_rate, share * recipe.peak_rate)
        self.optimisers = _optimisers(self.network, recipe)
        self.steps_per_epoch = len(training.pictures) // recipe.batch
        self.averaging = averaging(recipe.averaging, recipe.epochs * self.steps_per_epoch)
        self.distill_from = max(recipe.distill_from, recipe.slim_from)

    @property
    def state(self) -> dict[str, Stateful]:
        """The network, its average and the optimisers."""
        turning, others = self.optimisers
        return {"network": self.network, "averaged": self.averaged, "turning": turning, "others": others}

    def run(self, checkpoint: Path, report: Report) -> SplitNetwork:
        """Train to the end of the recipe, resuming from `checkpoint` if it exists; the averaged network, on the CPU."""
        return super().run(checkpoint, report).cpu()

    def epoch(self, report: Report) -> str:
        """One pass over the pictures; the mean loss, as text."""
        total = 0.0
        self.network.train()
        pictures, batch = self.training.pictures, self.recipe.batch
        mirrored = self.training.mirrored(self.epochs_done, self.seed)
        for i, index in enumerate(labelled.batches(len(pictures), batch, self.rng)):
            progress = (self.epochs_done + i / self.steps_per_epoch) / self.recipe.epochs
            images = labelled.shifted(pictures.images[index], self.training.shift_pixels, mirrored[index], self.rng)
            x = labelled.normalised(images, self.training.mean, self.training.std).to(self.device)
            labels = torch.from_numpy(pictures.labels[index]).to(self.device)
            total += self.step(x, labels, progress)
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  step {i + 1} of {self.steps_per_epoch}: loss {total / (i + 1):.3f}")
        return f"loss {total / self.steps_per_epoch:.3f}"

    def step(self, x: Tensor, labels: Tensor, progress: float) -> float:
        """One optimiser step on (N, 3, S, S) pictures; the loss."""
        prepare(self.optimisers, self.peaks, progress)
        with mixed_precision(self.device):
            loss = self._loss(x, labels, progress)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.optimisers[1].param_groups[0]["params"], CLIP_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
        follow(self.averaged, self.network, self.averaging)
        return float(loss.detach())

    def _parts(self, n: int, progress: float) -> list[tuple[float, slice]]:
        """The width of each part of `n` samples: the sandwich rule, shared out over one batch."""
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

    def _forward(self, x: Tensor, progress: float) -> Forward:
        parts = self._parts(len(x), progress)
        by_part = [self.network.head(x[part], width) for width, part in parts]
        features = torch.cat([f for f, _ in by_part]).float()
        sent = self._sent(features, progress)
        maps = self.network.tail.maps(sent)
        logits = self.network.tail.answer(maps[-1]).float()
        trained = zip(*(exits for _, exits in by_part), strict=True) if self.recipe.exit_weight > 0 else ()
        full = parts[0][1]
        return Forward(
            full=full,
            narrow=slice(full.stop, len(x)),
            features=features,
            sent=sent,
            maps=maps,
            logits=logits,
            exits=[torch.cat(column).float() for column in trained],
        )

    def _loss(self, x: Tensor, labels: Tensor, progress: float) -> Tensor:
        recipe, found = self.recipe, self._forward(x, progress)
        terms = self._answer_terms(x, labels, found, progress)
        terms.append(recipe.rate_weight * self._price(found))
        terms += [recipe.exit_weight * self._right(logits, labels) for logits in found.exits]
        if progress >= self.distill_from:
            terms += self._self_distillation(x, found)
        return sum(terms[1:], terms[0])

    def _answer_terms(self, x: Tensor, labels: Tensor, found: Forward, progress: float) -> list[Tensor]:
        """The losses of the tail's answers."""
        return [self._right(found.logits, labels)]

    def _right(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def _price(self, found: Forward) -> Tensor:
        """What the features cost."""
        return losses.rate(found.features)

    def _self_distillation(self, x: Tensor, found: Forward) -> list[Tensor]:
        """The averaged network at full width teaches the narrow widths and every exit; the tail teaches the exits too."""
        recipe, weight, narrow, full = self.recipe, 0.5 * self.recipe.distill_weight, found.narrow, found.full
        with torch.no_grad():
            reference, _ = self.averaged.head(x[narrow], recipe.arch.widths[-1])
            target = self.averaged.tail(reference).float()
        invariance = losses.feature_invariance(found.features[narrow], reference.float())
        of_tail = losses.distillation(found.logits[narrow], target) + recipe.invariance_weight * invariance
        of_exits = [
            losses.distillation(e[narrow], target) + losses.distillation(e[full], found.logits[full])
            for e in found.exits
        ]
        return [weight * of_tail, *(recipe.exit_weight * weight * loss for loss in of_exits)]

    def _sent(self, features: Tensor, progress: float) -> Tensor:
        """What the tail is given in the place of `features` (N, C, H, W): quantised, at first by noise."""
        low, high = self.recipe.steps[0] * 0.9, self.recipe.steps[-1] * BASE_STEP
        step = bottleneck.random_steps(len(features), low, high, self.generator).to(features)
        if progress < self.recipe.straight_through_from:
            return bottleneck.noisy(features, step, self.generator)
        return bottleneck.straight_through(features, step)


def _begun(recipe: Recipe, training: labelled.TrainingSet, begin: Bundle | None) -> SplitNetwork:
    """The network before its first step, on the CPU."""
    network = SplitNetwork(recipe.arch)
    if recipe.whitened:
        whiten(network.head.first, labelled.sample(training))
    if begin is not None:
        warm_start(network, begin, labelled.sample(training))
    return network


def _optimisers(network: SplitNetwork, recipe: Recipe) -> tuple[Muon, torch.optim.SGD]:
    """Muon for convolutions, SGD for all else. A depthwise filter has nothing to be orthogonal to: it is left to SGD."""
    trained = [p for p in network.parameters() if p.requires_grad]
    convolutions = [p for p in trained if p.ndim == 4 and p.shape[1] > 1]
    others = [p for p in trained if p.ndim < 4 or p.shape[1] == 1]
    sgd = torch.optim.SGD(others, lr=recipe.peak_rate, momentum=0.9, nesterov=True)
    return Muon(convolutions, lr=recipe.turn_rate), sgd


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
