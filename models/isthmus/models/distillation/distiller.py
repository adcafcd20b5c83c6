"""Distillation: a student head and decoder learn what of a picture the teacher's answers need. No labels.

The early exit learns first, by itself (`exit_trainer`). Here features are rounded with random steps and go through the
decoder, and the picture that it rebuilds through a differentiable copy of the whole teacher: its answers and a late map lead
(Hinton et al. 2015), beside what the features cost. The copy learns as well, and is what the server runs; or it only
teaches, and the server runs the teacher's own file. A run is resumed from its checkpoint.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.models.data import labelled
from isthmus.models.distillation.exit_trainer import ExitTrainer
from isthmus.models.distillation.rounding import Rounding
from isthmus.models.distillation.setup import DistillationSetup
from isthmus.models.distillation.student import REDUCTION, Student
from isthmus.models.progress import Report
from isthmus.models.training import bottleneck, losses
from isthmus.models.training.muon import Muon
from isthmus.models.training.processors import mixed_precision
from isthmus.models.training.resumable import ResumableRun, Stateful, averaging, follow, prepare

M = TypeVar("M", bound=nn.Module)
REPORT_EVERY = 20
"""The number of steps from one line of the report to the next."""
BITS = 3.0
"""Bits that the codec takes for each that `Rounding` counts, about: most symbols are zeros."""
AVERAGING = 0.998
"""Share of itself that the averaged student keeps at each step, in a run that is long enough to forget its beginning."""


class Distiller(ResumableRun[Student]):
    """One run: the student, its running average, and the optimisers."""

    def __init__(self, setup: DistillationSetup, *, report: Report) -> None:
        """Raises ModelError when the teacher has an operator without a gradient, or no head is small enough."""
        super().__init__(seed=setup.answers.seed, epochs=setup.settings.epochs, identity=setup.identity)
        self.setup, self.settings = setup, setup.settings
        self.student = _quick(setup.student(), self.device)
        self.student.head.exit.requires_grad_(False)
        self.rounding = self._rounding().to(self.device)
        self.averaged = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimisers, self._peaks = self._optimisers()
        self.averaging = averaging(AVERAGING, self.epochs * self.steps_per_epoch)

    @property
    def state(self) -> dict[str, Stateful]:
        """The student, its average, the rounding and the optimisers."""
        return {
            "student": self.student,
            "averaged": self.averaged,
            "rounding": self.rounding,
            **{f"optimiser{i}": optimiser for i, optimiser in enumerate(self.optimisers)},
        }

    def _optimisers(self) -> tuple[tuple[torch.optim.Optimizer, ...], tuple[float, ...]]:
        """The optimiser of each kind of weights, and their peak rates."""
        student, settings = self.student, self.settings
        straight = student.straight
        plain = {id(p) for m in (student.decoder.spread, student.decoder.seen) for p in m.parameters()}
        others = [p for p in student.decoder.parameters() if all(p is not q for q in straight)]
        turning = [p for p in others if p.ndim == 4 and id(p) not in plain]
        rest = [p for p in others if p.ndim != 4 or id(p) in plain]
        peaks = (settings.turn_rate, settings.peak_rate, settings.straight_rate, settings.model_rate)
        return (
            Muon(turning, lr=peaks[0]),
            torch.optim.Adam(rest, lr=peaks[1]),
            torch.optim.Adam(straight, lr=peaks[2]),
            torch.optim.Adam(student.model.parameters(), lr=peaks[3]),
        ), peaks

    @torch.no_grad()
    def _rounding(self) -> Rounding:
        arch, x = self.student.arch, self.setup.pictures(self.setup.some_images).to(self.device)
        rounding = Rounding(arch.bottleneck_channels, arch.input_size // REDUCTION)
        straight = self.student.head.straight(x)
        steps = self.settings.steps
        rounding.begin(straight.permute(0, 2, 3, 1).float().cpu().numpy(), steps[len(steps) // 2])
        return rounding

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the pictures."""
        return len(self.setup.training_index) // self.batch

    @property
    def batch(self) -> int:
        """Pictures in a step: the settings' number, or all there are."""
        return min(self.settings.batch, len(self.setup.training_index))

    def before_first_epoch(self, checkpoint: Path, report: Report) -> None:
        """Train the exit, which has a checkpoint of its own, and give it to the student."""
        trainer = ExitTrainer(self.setup, self.student.head)
        trained = trainer.run(checkpoint.with_suffix(".exits.pt"), report).exit.state_dict()
        for student in (self.student, self.averaged):
            student.head.exit.load_state_dict(trained)

    def epoch(self, report: Report) -> str:
        """One pass over one view of every picture; the mean losses, as text."""
        number = (self.settings.epochs - 1 - self.epochs_done) % self.settings.views  # the device's own view comes last
        stored = self.setup.answers.of_view(number, report)
        self.student.train()
        totals: dict[str, list[float]] = {}
        for i, order in enumerate(labelled.batches(len(self.setup.training_index), self.batch, self.rng)):
            progress = (self.epochs_done + i / self.steps_per_epoch) / self.settings.epochs
            index = np.sort(self.setup.training_index[order])  # in the order of the disk
            images = np.stack([self.setup.answers.image(int(k), number) for k in index])
            targets = {n: self.setup.target(n, values[index]).to(self.device) for n, values in stored.items()}
            for name, value in self.step(self.setup.pictures(images).to(self.device), targets, progress).items():
                totals.setdefault(name, []).append(value)
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  step {i + 1} of {self.steps_per_epoch}: {_means(totals)}")
        return _means(totals)

    def step(self, x: Tensor, targets: dict[str, Tensor], progress: float) -> dict[str, float]:
        """One optimiser step on (N, 3, S, S) pictures; the losses by name."""
        prepare(self.optimisers, self._peaks, progress)
        with mixed_precision(self.device):
            parts = self._losses(x, targets)
        weights = {
            "picture": self.settings.picture_weight,
            "hint": self.settings.hint_weight,
            "answer": self.settings.answer_weight,
            "rate": self.settings.rate_weight,
        }
        torch.autograd.backward(torch.stack([weights[name] * loss for name, loss in parts.items()]).sum())
        for optimiser in self.optimisers:
            optimiser.step()
        follow(self.averaged, self.student, self.averaging)
        return {name: float(loss.detach()) for name, loss in parts.items()}

    def _losses(self, x: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        features = self.student.head.straight(x).float()
        low, high = self.settings.steps[0] * 0.9, self.settings.steps[-1] * 1.1
        step = bottleneck.random_steps(len(features), low, high, self.generator).to(features)
        rounded, bits = self.rounding(features, step)
        rebuilt = self.student.decoder(rounded).permute(0, 3, 1, 2)  # (N, 3, S, S)
        outputs = dict(zip(self.setup.teacher.targets, self.student.model(rebuilt), strict=True))
        found = {
            "picture": (rebuilt - x).square().mean() / x.var(),
            "answer": losses.distillation(outputs["logits"].float().flatten(1), targets["logits"], 1.0),
            "rate": bits * BITS / 8000,
        }
        if "hint" in outputs:
            found["hint"] = _distance(outputs["hint"].float(), targets["hint"].permute(0, 3, 1, 2))
        return found


def _quick(module: M, device: torch.device) -> M:
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _distance(found: Tensor, aim: Tensor) -> Tensor:
    """The mean squared distance of (N, C, H, W) maps, as a share of their channels' variance."""
    return (found - aim).square().mean() / aim.var((0, 2, 3)).mean().clamp_min(1e-6)


def _means(totals: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in totals.items())
