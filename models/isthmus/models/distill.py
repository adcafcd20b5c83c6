"""Head network distillation: a student head and decoder learn to rebuild the teacher's map at the cut. No labels.

Each batch is shared out over the widths (the sandwich rule); the features of all of them are quantised with random steps
and go through the one decoder. First the rebuilt map is compared with the teacher's (HND, Matsubara et al. 2019); then it
also goes on through a differentiable copy of the tail, and the teacher's later map and its answers lead. The copy only
teaches: the server runs the teacher's own tail. A run is resumed from its checkpoint.
"""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.models import bottleneck, data, losses
from isthmus.models.muon import Muon
from isthmus.models.processors import fastest, mixed_precision, quick_dtype
from isthmus.models.recipes import WIDTHS
from isthmus.models.students import Student, Target, fitted
from isthmus.models.teachers import Teacher, real
from isthmus.models.torchgraph import TorchPart
from isthmus.models.train import follow, learning_rate, write_checkpoint
from isthmus.models.views import Answers
from isthmus.proto.errors import DataError

Report = Callable[[str], None]
REPORT_EVERY = 20
"""Steps."""
SPREAD_OVER = 500
"""Pictures, about, that a map's mean and standard deviation are taken over."""
ANSWERED_EVERY = 2
"""Samples of a batch one goes all the way to the answer: most of the tail's work lies behind the guide."""
AVERAGING = 0.99
"""Share of itself that the averaged student keeps at each step."""
COARSEST = 1.2
"""Times the coarsest step, in training: what a base layer alone leaves of the finest."""


@dataclass(frozen=True)
class Settings:
    """How a student is made and trained."""

    widths: tuple[float, ...] = WIDTHS
    epochs: int = 40
    batch: int = 32
    views: int = 8
    """Of each picture that the teacher is asked about; later epochs begin again."""
    turn_rate: float = 0.02
    """Peak relative change of a convolution's weights a step."""
    peak_rate: float = 2e-3
    """Peak learning rate of everything else."""
    steps: tuple[float, ...] = (0.8, 1.1, 1.5, 2.1)
    """The quantiser's ladder, in standard deviations of the features; finest first."""
    straight_through_from: float = 0.5
    """Share of the training after which rounding replaces noise."""
    answers_from: float = 0.125
    """Share of the training after which the tail's later map and its answers lead too."""
    map_weight: float = 0.3
    """From then on: what of the map the answers do not need may go."""
    guide_weight: float = 1.0
    answer_weight: float = 1.0
    """At the end of the training; it grows with its progress, since answers to a poor map mislead."""
    exit_weight: float = 0.05
    rate_weight: float = 0.1
    """Of the features' mean magnitude: what their bytes cost in training."""
    decoder_channels: int = 128
    decoder_blocks: int = 2
    bottleneck_channels: int = 40
    head_share: float = 0.1
    """Of the teacher's FLOPs that the head may take at width 1.0."""


@dataclass(frozen=True)
class Course:
    """A teacher, what it makes of the pictures, and which of them are learnt from."""

    teacher: Teacher
    answers: Answers
    learnt_from: NDArray[np.int64]
    settings: Settings

    @property
    def identity(self) -> dict[str, object]:
        """What a checkpoint must have been trained on and for, to go on with; the number of epochs may change."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "epochs"}
        return {"model": self.teacher.fingerprint, "cut": self.teacher.cut.after, "seed": self.answers.seed} | {
            "pictures": (self.answers.album.fingerprint, len(self.learnt_from)),
            **settings,
        }

    def spread(self, report: Report) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the map (C,), over view 0 of some of the pictures."""
        some = np.sort(self.learnt_from)[:: max(1, len(self.learnt_from) // SPREAD_OVER)]
        values = real(self.answers.of_view(0, report)["features"][some], self.teacher.features)
        mean, std = values.mean((0, 1, 2)), np.maximum(values.std((0, 1, 2)), 1e-6)
        return torch.from_numpy(mean), torch.from_numpy(std)

    def student(self, report: Report) -> Student:
        """A fresh student of the settings' size. Raises ModelError when no head is small enough."""
        teacher, settings = self.teacher, self.settings
        most_flops = settings.head_share * teacher.graph.flops
        arch = fitted(teacher.size, teacher.classes, settings.widths, settings.bottleneck_channels, most_flops)
        _, height, width, channels = teacher.features.shape
        target = Target((channels, height, width), *self.spread(report))
        return Student(arch, target, settings.decoder_channels, settings.decoder_blocks)


class Distiller:
    """One run: the student, its running average, the optimisers, and the generators that make it repeatable."""

    def __init__(self, course: Course, *, report: Report) -> None:
        """Raises ModelError when the tail has an operator without a gradient, or no head is small enough."""
        seed = course.answers.seed
        torch.manual_seed(seed)
        self.device = fastest()
        self.to_guide, self.to_answer = (
            TorchPart(part).eval().to(self.device, quick_dtype(self.device)) for part in course.teacher.guided_tail
        )
        self.course, self.settings = course, course.settings
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        student = course.student(report)
        self.student = student.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        turning = [p for p in student.parameters() if p.ndim == 4 and p is not student.tail.leave.weight]
        others = [p for p in student.parameters() if all(p is not q for q in turning)]
        self.optimisers = (
            Muon(turning, lr=self.settings.turn_rate),
            torch.optim.Adam(others, lr=self.settings.peak_rate),
        )
        self.epochs_done = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the pictures."""
        return len(self.course.learnt_from) // self.batch

    @property
    def batch(self) -> int:
        """Pictures in a step: the settings' number, or all there are. From 16 on, every width has two or more to norm over."""
        return min(self.settings.batch, len(self.course.learnt_from))

    def run(self, checkpoint: Path, report: Report) -> Student:
        """Train to the end of the settings, resuming from `checkpoint` if it exists; returns the averaged student."""
        if checkpoint.is_file():
            self.load(checkpoint)
            report(f"resumed after epoch {self.epochs_done} of {self.settings.epochs}")
        while self.epochs_done < self.settings.epochs:
            began = time.monotonic()
            told = self.epoch(report)
            self.epochs_done += 1
            self.save(checkpoint)
            took = time.monotonic() - began
            report(f"epoch {self.epochs_done} of {self.settings.epochs}: {told}, {took:.0f} s")
        return self.average

    def epoch(self, report: Report) -> str:
        """One pass over one view of every picture; the mean losses, as text."""
        number = self.epochs_done % self.settings.views
        taught = self.course.answers.of_view(number, report)
        self.student.train()
        totals: dict[str, list[float]] = {}
        for i, order in enumerate(data.batches(len(self.course.learnt_from), self.batch, self.rng)):
            progress = (self.epochs_done + i / self.steps_per_epoch) / self.settings.epochs
            index = np.sort(self.course.learnt_from[order])  # in the order of the disk
            images = np.stack([self.course.answers.image(int(k), number) for k in index])
            lesson = {name: self._real(name, values[index]) for name, values in taught.items()}
            for name, value in self.step(self._pictures(images), lesson, progress).items():
                totals.setdefault(name, []).append(value)
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  step {i + 1} of {self.steps_per_epoch}: {_told(totals)}")
        return _told(totals)

    def _pictures(self, images: NDArray[np.uint8]) -> Tensor:
        picture = self.course.teacher.input
        return data.normalised(images, picture.mean, picture.std).to(self.device)

    def _real(self, name: str, stored: NDArray[np.generic]) -> Tensor:
        """(N, H, W, C) of a map, (N, K) of logits."""
        values = torch.from_numpy(real(stored, self.course.teacher.taught[name])).to(self.device)
        return values.flatten(1) if name == "logits" else values

    def step(self, x: Tensor, lesson: dict[str, Tensor], progress: float) -> dict[str, float]:
        """One optimiser step on (N, 3, S, S) pictures; the losses by name."""
        for optimiser, peak in zip(self.optimisers, (self.settings.turn_rate, self.settings.peak_rate), strict=True):
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(progress, peak)
        with mixed_precision(self.device):
            parts = self._losses(x, lesson, progress)
        weights = {
            "map": self.settings.map_weight if "answer" in parts else 1.0,
            "guide": self.settings.guide_weight,
            "answer": self.settings.answer_weight * progress,
            "exit": self.settings.exit_weight,
            "rate": self.settings.rate_weight,
        }
        torch.autograd.backward(torch.stack([weights[name] * loss for name, loss in parts.items()]).sum())
        for optimiser in self.optimisers:
            optimiser.step()
        follow(self.average, self.student, AVERAGING)
        return {name: float(loss.detach()) for name, loss in parts.items()}

    def _shares(self, n: int) -> list[tuple[float, slice]]:
        """Which width runs which samples: the sandwich rule, shared out over one batch."""
        widths = sorted(self.student.arch.widths)
        if len(widths) == 1:
            return [(widths[0], slice(0, n))]
        between = widths[1:-1] or widths[:1]
        middle = between[int(self.rng.integers(len(between)))]
        most, more = 5 * n // 8, 6 * n // 8
        return [(widths[-1], slice(0, most)), (widths[0], slice(most, more)), (middle, slice(more, n))]

    def _losses(self, x: Tensor, lesson: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        features, exits = [], []
        for width, part in self._shares(len(x)):
            f, e = self.student.head(x[part], width)
            features.append(f)
            exits.append(e)
        joined = torch.cat(features).float()
        rebuilt = self.student.tail(self._quantised(joined, progress))  # (N, H, W, C)
        found = {
            "map": ((rebuilt - lesson["features"]) / self.student.tail.std).square().mean(),
            "rate": losses.rate(joined),
            "exit": torch.stack(
                [losses.distillation(torch.cat(c).float(), lesson["logits"], 1.0) for c in zip(*exits, strict=True)]
            ).sum(),
        }
        if progress >= self.settings.answers_from:
            found |= self._behind(rebuilt, lesson)
        return found

    def _behind(self, rebuilt: Tensor, lesson: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the rebuilt map becomes behind the cut, beside what the teacher's own becomes there."""
        with torch.no_grad():
            (aim,) = self.to_guide(self._as_torch(lesson["features"]))
        (guide,) = self.to_guide(self._as_torch(rebuilt))
        (logits,) = self.to_answer(guide[::ANSWERED_EVERY])
        spread = aim.float().var((0, 2, 3)).clamp_min(1e-6)
        told, right = logits.float().flatten(1), lesson["logits"][::ANSWERED_EVERY]
        return {
            "guide": ((guide - aim).float().square().mean((0, 2, 3)) / spread).mean(),
            "answer": losses.distillation(told, right, 1.0),
        }

    def _as_torch(self, stored: Tensor) -> Tensor:
        """(N, H, W, C) as the torch copy of the tail takes it: (N, C, H, W), of its precision."""
        return stored.permute(0, 3, 1, 2).to(quick_dtype(self.device))

    def _quantised(self, features: Tensor, progress: float) -> Tensor:
        low, high = self.settings.steps[0] * 0.9, self.settings.steps[-1] * COARSEST
        step = bottleneck.random_steps(len(features), low, high, self.generator).to(features)
        if progress < self.settings.straight_through_from:
            return bottleneck.noisy(features, step, self.generator)
        return bottleneck.straight_through(features, step)

    def save(self, path: Path) -> None:
        """Write everything needed to go on."""
        write_checkpoint(
            path,
            {
                "student": self.student.state_dict(),
                "average": self.average.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "epochs_done": self.epochs_done,
                "identity": self.course.identity,
                "rng": self.rng.bit_generator.state,
                "generator": self.generator.get_state(),
            },
        )

    def load(self, path: Path) -> None:
        """Take up a checkpoint. Raises DataError when it is none, or one of another run."""
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            found = state["identity"]
        except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, TypeError) as error:
            raise DataError(f"{path}: no checkpoint of a distillation ({error}); name another, or remove it") from error
        if other := [key for key, value in self.course.identity.items() if found.get(key) != value]:
            raise DataError(
                f"{path}: a checkpoint of another run ({', '.join(other)} differ); name another, or remove it"
            )
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.epochs_done = state["epochs_done"]
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])


def _told(totals: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in totals.items())
