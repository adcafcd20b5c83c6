"""Trains a detector in two halves: all widths at once, rounded features straight through to the tail, the best one kept.

The full width begins alone; later every width has its share of each batch. The quantiser's step is drawn for each picture. At
first head, exit and the tail's small branch learn together, the wide branch only now and then; what the averaged network says
at the full width teaches the narrow exits. Then the averaged head is frozen, and the tail learns from what it gives, rounded.
What is kept is not the last network but the one that did best on the places held out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models.data.clips import BoxedFrames
from isthmus.models.detection import losses
from isthmus.models.detection.network import Detector, fused
from isthmus.models.detection.recipes import Recipe
from isthmus.models.detection.rounding import COARSER, coded, straight_through
from isthmus.models.detection.views import Views, targets
from isthmus.models.progress import Report
from isthmus.models.training.processors import mixed_precision
from isthmus.models.training.resumable import ResumableRun, Stateful, averaging, follow, learning_rate

MEAN, STD = (0.45, 0.5, 0.55), (0.2, 0.2, 0.2)
"""Of skies, roughly; a batch norm follows."""
CLIP = 10.0
"""The norm that a step's gradient is held to: one picture full of things may not undo an epoch."""
FOLLOWED = 4
"""The average takes the weights up every so many steps, with as much more weight."""
Judge = Callable[[Detector], float]


class Kept(nn.Module):
    """The best network so far, and how good it was."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network
        self.score = nn.Buffer(torch.tensor(-1.0))
        self.epoch = nn.Buffer(torch.tensor(0))

    @torch.no_grad()
    def offer(self, network: Detector, score: float, epoch: int) -> None:
        """Keep `network` when it is better."""
        if score > self.score:
            self.network.load_state_dict(network.state_dict())
            self.score.fill_(score)
            self.epoch.fill_(epoch)


class Trainer(ResumableRun[Detector]):
    """One training. `judge` says how good a network is on the places held out."""

    def __init__(self, recipe: Recipe, frames: BoxedFrames, judge: Judge, *, seed: int) -> None:
        identity = {
            "classes": ",".join(frames.labels),
            "frames": len(frames),
            "recipe": repr(replace(recipe, epochs=0)),
        }
        super().__init__(seed=seed, epochs=recipe.epochs, identity=identity)
        self.recipe, self.judge = recipe, judge
        self.views = Views(frames)
        self.network = Detector(recipe.arch).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # its stubs do not know it
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.kept = Kept(copy.deepcopy(self.averaged))
        self.steps_an_epoch = max(1, recipe.epoch_pictures // recipe.batch)
        self.optimiser = torch.optim.AdamW(_groups(self.network, recipe), lr=recipe.rate, fused=True)
        self.decay = averaging(recipe.averaging, self.steps_an_epoch * recipe.epochs)
        self.step = torch.tensor(recipe.steps)

    @property
    def state(self) -> dict[str, Stateful]:
        """See ResumableRun."""
        return {
            "network": self.network,
            "averaged": self.averaged,
            "kept": self.kept,
            "optimiser": self.optimiser,
        }

    def epoch(self, report: Report) -> str:
        """See ResumableRun."""
        self.network.train()
        begun = self.epochs_done / self.epochs
        alone = begun >= self.recipe.tail_from
        if alone:
            self.network.head.load_state_dict(self.averaged.head.state_dict())
            self.network.head.eval()
        sums: dict[str, list[float]] = {}
        for i in range(self.steps_an_epoch):
            progress = begun + i / self.steps_an_epoch / self.epochs
            for name, value in self._learn(progress, i, alone=alone).items():
                sums.setdefault(name, []).append(value)
            if i % FOLLOWED == FOLLOWED - 1:
                follow(self.averaged, self.network, self.decay**FOLLOWED)
        told = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in sums.items())
        done = self.epochs_done + 1
        if done % self.recipe.judged_every == 0 or done == self.epochs:
            score = self.judge(self.averaged)
            told += f"; held out {score:.3f}"
            if alone:  # before, the tail has not yet learnt from the head as it is shipped
                self.kept.offer(self.averaged, score, done)
                told += f" (best {float(self.kept.score):.3f} at {int(self.kept.epoch)})"
        return told

    def _learn(self, progress: float, step: int, *, alone: bool) -> dict[str, float]:
        images, label, place = self._batch()
        begin, end = (self.recipe.tail_from, 1.0) if alone else (0.0, self.recipe.tail_from)
        rate = learning_rate((progress - begin) / (end - begin), self.recipe.rate, self.recipe.warm_up)
        self.optimiser.zero_grad(set_to_none=True)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with mixed_precision(self.device):
            if alone:
                total, parts = self._tail_loss(images, label, place)
            else:
                total, parts = self._loss(images, label, place, progress, wide=step % self.recipe.wide_every == 0)
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        return {name: float(part.detach()) for name, part in parts.items()}

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised pictures (N, 3, H, W), classes (N, h, w) and boxes (N, 4, h, w) in cells."""
        drawn = [self.views.picture(self.rng) for _ in range(self.recipe.batch)]
        wanted = [targets(boxes, self.recipe.arch.cells) for _, boxes in drawn]
        images = normalised(np.stack([image for image, _ in drawn])).to(self.device)
        label = torch.from_numpy(np.stack([label for label, _ in wanted])).to(self.device)
        place = torch.from_numpy(np.stack([place for _, place in wanted])).to(self.device)
        return images, label, place

    def _loss(
        self, images: Tensor, label: Tensor, place: Tensor, progress: float, *, wide: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of head, exit and the tail's small branch; and of the wide one too."""
        recipe, network = self.recipe, self.network
        features, exits, bits = [], [], []
        for width, own in _shares(len(images), recipe, progress):
            z, answer = network.head(images[own], width)
            z = z.float()
            step, base = self._steps(len(z))
            noise = torch.rand(z.shape, generator=self.generator).to(z) - 0.5
            bits.append(network.bits(z, step * torch.where(base, COARSER, 1), width, noise))
            features.append(straight_through(z, step, base))
            exits.append(answer)
        exit_, crossed = torch.cat(exits), torch.cat(features)
        parts = {"exit": losses.detection(exit_, label, place)}
        parts["small"] = losses.detection(network.tail.briefly(crossed), label, place)
        if wide:
            parts["wide"] = losses.detection(network.tail.widely(crossed), label, place)
        total = torch.stack(list(parts.values())).sum()
        narrow = slice(len(exits[0]), len(images))
        if progress >= recipe.distil_from and narrow.start < narrow.stop:
            things = int((label[narrow] >= 0).sum())
            parts["teacher"] = losses.distillation(exit_[narrow], self._taught(images[narrow]), things)
            total = total + recipe.distil_weight * parts["teacher"]
        mean_bits = torch.cat(bits).mean()
        parts["kbit"] = mean_bits / 1000
        return total + _price(recipe, progress) * mean_bits, parts

    def _tail_loss(self, images: Tensor, label: Tensor, place: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of both branches of the tail, on what the frozen head gives."""
        crossed = []
        with torch.no_grad():
            for width, own in _shares(len(images), self.recipe, 1.0):
                z = self.network.head(images[own], width)[0].float()
                crossed.append(coded(z, *self._steps(len(z))))
        wide, small = self.network.tail(torch.cat(crossed))
        parts = {"wide": losses.detection(wide, label, place), "small": losses.detection(small, label, place)}
        return parts["wide"] + parts["small"], parts

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        """What the averaged network says at the full width, unrounded: the mean of its exit and the tail's small branch,
        which generalises as well and costs a fifth of the wide one.
        """
        features, exit_ = self.averaged.head(images, self.recipe.arch.widths[-1])
        return fused(exit_, self.averaged.tail.briefly(features.float()))

    def _steps(self, n: int) -> tuple[Tensor, Tensor]:
        """For each of `n` pictures a step of the ladder, and whether the tail is given the base alone: (n, 1, 1, 1)."""
        index = torch.randint(len(self.step), (n,), generator=self.generator)
        base = torch.rand(n, generator=self.generator) < self.recipe.base_alone
        return self.step[index].reshape(-1, 1, 1, 1).to(self.device), base.reshape(-1, 1, 1, 1).to(self.device)


def _price(recipe: Recipe, progress: float) -> float:
    """What a bit costs at `progress` in [0, 1]."""
    (first, later), (risen, begun) = recipe.bits_weight, recipe.bits_from
    return later if progress >= begun else first * min(1.0, progress / risen)


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W), channels last in memory."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(torch.tensor(MEAN).reshape(1, 3, 1, 1)).div_(torch.tensor(STD).reshape(1, 3, 1, 1))


def _shares(n: int, recipe: Recipe, progress: float) -> list[tuple[float, slice]]:
    """Which of `n` pictures each width is trained on at `progress` in [0, 1], the full width's first."""
    shares = recipe.shares if progress >= recipe.full_until else (1.0,)
    cuts = np.round(n * np.cumsum([0.0, *shares])).astype(int).tolist()
    widths = reversed(recipe.arch.widths)
    return [(width, slice(a, b)) for width, a, b in zip(widths, cuts, cuts[1:], strict=False) if b > a]


def _groups(network: Detector, recipe: Recipe) -> list[dict[str, object]]:
    """Parameters by their decay: none for norms, biases and densities, more for the tail, which overfits first."""
    head, tail, free = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or name == "log_scale":
            free.append(parameter)
        else:
            (tail if name.startswith("tail.") else head).append(parameter)
    return [
        {"params": head, "weight_decay": recipe.decay},
        {"params": tail, "weight_decay": recipe.tail_decay},
        {"params": free, "weight_decay": 0.0},
    ]
