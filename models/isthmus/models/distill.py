"""Distillation: a student head and decoder learn what of a picture the teacher's answers need. No labels.

Each batch is shared out over the widths (the sandwich rule); the features of all of them are rounded with random steps
and go through the one decoder, and the picture that it rebuilds through a differentiable copy of the whole teacher: its
answers and a late map lead (Hinton et al. 2015), beside what the features cost. The copy only teaches: the server runs
the teacher's own file. A run is resumed from its checkpoint.
"""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models import bottleneck, data, losses
from isthmus.models.muon import Muon
from isthmus.models.processors import fastest, mixed_precision
from isthmus.models.recipes import WIDTHS
from isthmus.models.rounding import Rounding
from isthmus.models.students import REDUCTION, Student, fitted
from isthmus.models.teachers import Teacher, real
from isthmus.models.torchgraph import TorchPart
from isthmus.models.train import follow, learning_rate, write_checkpoint
from isthmus.models.views import Answers
from isthmus.proto.errors import DataError

Report = Callable[[str], None]
M = TypeVar("M", bound=nn.Module)
REPORT_EVERY = 20
"""Steps."""
BEGUN_WITH = 300
"""Pictures, about, whose principal components a student begins with."""
BITS = 3.0
"""That the codec takes for each that is counted, about: most symbols are zeros."""
AVERAGING = 0.99
"""Share of itself that the averaged student keeps at each step."""


@dataclass(frozen=True)
class Settings:
    """How a student is made and trained."""

    widths: tuple[float, ...] = WIDTHS
    epochs: int = 20
    batch: int = 8
    views: int = 8
    """Of each picture that the teacher is asked about; later epochs begin again."""
    turn_rate: float = 0.01
    """Peak relative change of a convolution's weights a step."""
    peak_rate: float = 2e-3
    """Peak learning rate of everything else."""
    straight_rate: float = 1e-4
    """Peak learning rate of the straight paths, which begin as a transform that is good already."""
    steps: tuple[float, ...] = (0.4, 0.55, 0.75, 1.0)
    """The quantiser's ladder, in the unit of a picture's 0..1; finest first."""
    picture_weight: float = 1.0
    """Of the rebuilt picture's squared distance: what of it the answers do not need may go."""
    guide_weight: float = 1.0
    answer_weight: float = 1.0
    exit_weight: float = 0.05
    rate_weight: float = 0.8
    """Of a thousand bytes, in nats of the answer."""
    decoder_channels: int = 128
    decoder_finer_channels: int = 32
    decoder_blocks: int = 1
    bottleneck_channels: int = 48
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
        return {"model": self.teacher.fingerprint, "seed": self.answers.seed} | {
            "pictures": (self.answers.album.fingerprint, len(self.learnt_from)),
            **settings,
        }

    def student(self) -> Student:
        """A fresh student of the settings' size, begun as a transform. Raises ModelError when no head is small enough."""
        teacher, settings = self.teacher, self.settings
        most_flops = settings.head_share * teacher.graph.flops
        arch = fitted(teacher.size, teacher.classes, settings.widths, settings.bottleneck_channels, most_flops)
        student = Student(
            arch,
            teacher.input,
            settings.decoder_channels,
            settings.decoder_finer_channels,
            settings.decoder_blocks,
        )
        student.begin(self.some_images)
        return student

    @property
    def some_images(self) -> NDArray[np.uint8]:
        """View 0 of some of the pictures: (N, S, S, 3)."""
        some = np.sort(self.learnt_from)[:: max(1, len(self.learnt_from) // BEGUN_WITH)]
        return np.stack([self.answers.image(int(i), 0) for i in some])


class Distiller:
    """One run: the student, its running average, the optimisers, and the generators that make it repeatable."""

    def __init__(self, course: Course, *, report: Report) -> None:
        """Raises ModelError when the tail has an operator without a gradient, or no head is small enough."""
        seed = course.answers.seed
        torch.manual_seed(seed)
        self.device = fastest()
        teacher = course.teacher
        part = teacher.part("lesson", "image", teacher.taught)
        self.lecture = _quick(TorchPart(part).eval(), self.device)
        self.course, self.settings = course, course.settings
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.student = _quick(course.student(), self.device)
        self.rounding = self._rounding().to(self.device)
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimisers, self._peaks = self._optimisers()
        self.epochs_done = 0

    def _optimisers(self) -> tuple[tuple[torch.optim.Optimizer, ...], tuple[float, ...]]:
        """One for each kind of weights, and their peak rates."""
        student, settings = self.student, self.settings
        straight = student.straight
        plain = {id(p) for m in (student.tail.spread, student.tail.seen) for p in m.parameters()}
        others = [p for p in student.parameters() if all(p is not q for q in straight)]
        turning = [p for p in others if p.ndim == 4 and id(p) not in plain]
        rest = [p for p in others if p.ndim != 4 or id(p) in plain]
        peaks = (settings.turn_rate, settings.peak_rate, settings.straight_rate)
        return (
            Muon(turning, lr=peaks[0]),
            torch.optim.Adam(rest, lr=peaks[1]),
            torch.optim.Adam(straight, lr=peaks[2]),
        ), peaks

    @torch.no_grad()
    def _rounding(self) -> Rounding:
        arch, x = self.student.arch, self._pictures(self.course.some_images)
        rounding = Rounding(arch.bottleneck_channels, arch.input_size // REDUCTION)
        straight = self.student.head.joined(self.student.head.patches(x))
        steps = self.settings.steps
        rounding.begin(straight.permute(0, 2, 3, 1).float().cpu().numpy(), steps[len(steps) // 2])
        return rounding

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the pictures."""
        return len(self.course.learnt_from) // self.batch

    @property
    def batch(self) -> int:
        """Pictures in a step: the settings' number, or all there are; where exits norm over one place, two or more a width."""
        fewest = 16 if self.course.teacher.size <= 2 * REDUCTION else 1
        return min(max(fewest, self.settings.batch), len(self.course.learnt_from))

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
        number = (self.settings.epochs - 1 - self.epochs_done) % self.settings.views  # the device's own view comes last
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
        for optimiser, peak in zip(self.optimisers, self._peaks, strict=True):
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(progress, peak)
        with mixed_precision(self.device):
            parts = self._losses(x, lesson)
        weights = {
            "picture": self.settings.picture_weight,
            "guide": self.settings.guide_weight,
            "answer": self.settings.answer_weight,
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
        most, more = 3 * n // 4, 7 * n // 8
        return [(widths[-1], slice(0, most)), (widths[0], slice(most, more)), (middle, slice(more, n))]

    def _losses(self, x: Tensor, lesson: dict[str, Tensor]) -> dict[str, Tensor]:
        features, exits = [], []
        for width, part in self._shares(len(x)):
            f, e = self.student.head(x[part], width)
            features.append(f)
            exits.append(e)
        joined = torch.cat(features).float()
        low, high = self.settings.steps[0] * 0.9, self.settings.steps[-1] * 1.1
        step = bottleneck.random_steps(len(joined), low, high, self.generator).to(joined)
        rounded, bits = self.rounding(joined, step)
        rebuilt = self.student.tail(rounded).permute(0, 3, 1, 2)  # (N, 3, S, S)
        told = dict(zip(self.course.teacher.taught, self.lecture(rebuilt), strict=True))
        found = {
            "picture": (rebuilt - x).square().mean() / x.var(),
            "answer": losses.distillation(told["logits"].float().flatten(1), lesson["logits"], 1.0),
            "rate": bits * BITS / 8000,
            "exit": torch.stack(
                [losses.distillation(torch.cat(c).float(), lesson["logits"], 1.0) for c in zip(*exits, strict=True)]
            ).sum(),
        }
        if "guide" in told:
            found["guide"] = _distance(told["guide"].float(), lesson["guide"].permute(0, 3, 1, 2))
        return found

    def save(self, path: Path) -> None:
        """Write everything needed to go on."""
        write_checkpoint(
            path,
            {
                "student": self.student.state_dict(),
                "average": self.average.state_dict(),
                "rounding": self.rounding.state_dict(),
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
        self.rounding.load_state_dict(state["rounding"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.epochs_done = state["epochs_done"]
        self.rng.bit_generator.state = state["rng"]
        self.generator.set_state(state["generator"])


def _quick(module: M, device: torch.device) -> M:
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _distance(found: Tensor, aim: Tensor) -> Tensor:
    """Mean square of what (N, C, H, W) maps miss, as a share of their channels' variance."""
    return (found - aim).square().mean() / aim.var((0, 2, 3)).mean().clamp_min(1e-6)


def _told(totals: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in totals.items())
