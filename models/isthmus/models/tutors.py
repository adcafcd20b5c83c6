"""A tutor: a model of somebody else's, tuned to a recipe's pictures, whose opinion of each a training learns from.

What it knows of other pictures is worth more than what a small network finds in its own. Weights are read from a `.tflite`
that tells classes apart; a linear layer reads the recipe's classes from the answers it gives about its own. It sees the
pictures enlarged, is tuned once, and is asked once about every picture and its mirror image.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models import data
from isthmus.models.cuts import IMAGE
from isthmus.models.flatbuffer import read
from isthmus.models.processors import fastest, mixed_precision
from isthmus.models.teachers import Teacher
from isthmus.models.torchgraph import TorchPart
from isthmus.models.train import FORGOTTEN, Opinions, follow, learning_rate, read_checkpoint, write_checkpoint
from isthmus.models.uncut import input_of
from isthmus.proto.errors import DataError

Report = Callable[[str], None]
AVERAGING = 0.995
"""Share of itself that the averaged tutor keeps at each step, in a run that is long enough to forget its beginning."""
LARGEST_GRADIENT = 1.0
"""Norm: a model whose batch norms are folded has nothing else to hold it."""
ASKED_AT_ONCE = 50
REPORT_EVERY = 100
"""Steps."""


@dataclass(frozen=True)
class Tutoring:
    """Which model is a tutor, and how it is tuned."""

    model: Path
    pixels: str | None = None
    """What a float model takes as its darkest and brightest pixel: a key of `uncut.PIXELS`."""
    size: int = 96
    """Pixels a side that pictures are enlarged to."""
    epochs: int = 4
    batch: int = 64
    rate: float = 3e-4
    """Peak learning rate of Adam."""


class Tutor(nn.Module):
    """The model with a linear layer behind it: pictures (N, 3, S, S), as its file takes them -> logits (N, K)."""

    def __init__(self, how: Tutoring, classes: int) -> None:
        """Raises ModelError when the file is no model that tells classes apart, has an operator without a gradient, or takes
        pictures of its own size only and `how` says another.
        """
        super().__init__()
        graph = read(how.model)
        picture = input_of(graph, how.pixels)
        teacher = Teacher(graph, picture)
        self.mean, self.std, self.size = picture.mean, picture.std, how.size
        self.model = TorchPart(teacher.part("lesson", IMAGE, {"logits": teacher.logits}))
        self.model.macs(how.size)
        self.classes = nn.Linear(teacher.classes, classes)
        nn.init.zeros_(self.classes.weight)
        self.requires_grad_(True)

    def pictures(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 (N, s, s, 3) -> (N, 3, S, S), enlarged."""
        x = data.normalised(images, self.mean, self.std)
        return F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classes(self.model(x)[0].flatten(1))
        return logits


class Tuning:
    """One run: the tutor, its running average, the optimiser, and the generator that makes it repeatable."""

    def __init__(self, how: Tutoring, training: data.TrainingSet, classes: int, *, seed: int) -> None:
        """Raises ModelError as `Tutor` does."""
        torch.manual_seed(seed)
        self.training, self.how, self.seed, self.device = training, how, seed, fastest()
        self.rng = np.random.default_rng(seed)
        self.tutor = Tutor(how, classes).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.tutor).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.tutor.parameters(), lr=how.rate)
        self.batch = min(how.batch, len(training.pictures))
        self.steps_per_epoch = len(training.pictures) // self.batch
        self.averaging = min(AVERAGING, max(0.0, 1 - FORGOTTEN / (how.epochs * self.steps_per_epoch)))
        self.fingerprint = hashlib.sha256(how.model.read_bytes()).hexdigest()
        self.identity = asdict(how) | {
            "model": self.fingerprint,
            "pictures": len(training.pictures),
            "classes": classes,
            "seed": seed,
        }
        self.epochs_done = 0
        self.logits: NDArray[np.float32] | None = None
        """What it says of the pictures, once it has been asked: (N, 2, K)."""

    def opinions(self, checkpoint: Path, report: Report) -> Opinions:
        """What the tutor says of the pictures, once it is tuned: see `run`."""
        tutor, images = self.run(checkpoint, report), self.training.pictures.images
        if self.logits is None:
            self.logits = np.stack([logits_of(tutor, images), logits_of(tutor, images[:, :, ::-1])], 1)
            self.save(checkpoint)
            right = float((self.logits[:, 0].argmax(1) == self.training.pictures.labels).mean())
            report(f"tutor: right about {right:.1%} of the training pictures")
        return Opinions(f"{self.how.model.name} {self.fingerprint[:12]}", self.logits)

    def run(self, checkpoint: Path, report: Report) -> Tutor:
        """Tune to the end, resuming from `checkpoint` if it exists; the averaged tutor."""
        if checkpoint.is_file():
            self.load(checkpoint)
            report(f"tutor: resumed after epoch {self.epochs_done} of {self.how.epochs}")
        while self.epochs_done < self.how.epochs:
            loss = self.epoch(report)
            self.epochs_done += 1
            self.save(checkpoint)
            report(f"tutor: epoch {self.epochs_done} of {self.how.epochs}: loss {loss:.3f}")
        return self.average

    def epoch(self, report: Report) -> float:
        """One pass over the pictures; the mean loss."""
        total, pictures = 0.0, self.training.pictures
        mirrored = self.training.mirrored(self.epochs_done, self.seed)
        for i, index in enumerate(data.batches(len(pictures), self.batch, self.rng)):
            progress = (self.epochs_done + i / self.steps_per_epoch) / self.how.epochs
            images = data.shifted(pictures.images[index], self.training.shift_pixels, mirrored[index], self.rng)
            total += self.step(images, torch.from_numpy(pictures.labels[index]), progress)
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  tutor: step {i + 1} of {self.steps_per_epoch}: loss {total / (i + 1):.3f}")
        return total / self.steps_per_epoch

    def step(self, images: NDArray[np.uint8], labels: Tensor, progress: float) -> float:
        """One optimiser step; the loss."""
        self.optimiser.zero_grad(set_to_none=True)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(progress, self.how.rate)
        with mixed_precision(self.device):
            logits = self.tutor(self.tutor.pictures(images).to(self.device)).float()
            loss = F.cross_entropy(logits, labels.to(self.device))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.tutor.parameters(), LARGEST_GRADIENT)
        self.optimiser.step()
        follow(self.average, self.tutor, self.averaging)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write everything needed to go on."""
        write_checkpoint(
            path,
            {
                "identity": self.identity,
                "tutor": self.tutor.state_dict(),
                "teacher": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "epochs_done": self.epochs_done,
                "logits": self.logits,
                "rng": self.rng.bit_generator.state,
            },
        )

    def load(self, path: Path) -> None:
        """Take up a checkpoint. DataError when it is none, or one of another tuning."""
        state = read_checkpoint(path)
        if state.get("identity") != self.identity:
            raise DataError(f"{path}: a tutor that was tuned otherwise; name another checkpoint, or delete it")
        self.tutor.load_state_dict(state["tutor"])
        self.average.load_state_dict(state["teacher"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epochs_done, self.logits = state["epochs_done"], state["logits"]
        self.rng.bit_generator.state = state["rng"]


@torch.no_grad()
def logits_of(tutor: Tutor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, s, s, 3) -> (N, K), a few at a time."""
    device = next(tutor.parameters()).device
    found = []
    for i in range(0, len(images), ASKED_AT_ONCE):
        x = tutor.pictures(np.ascontiguousarray(images[i : i + ASKED_AT_ONCE])).to(device)
        with mixed_precision(device):
            found.append(tutor(x).float().cpu().numpy())
    return np.concatenate(found)
