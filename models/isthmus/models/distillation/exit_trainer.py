"""A student's early exit, a copy of the teacher that sees the picture reduced, learns to answer as if it saw all of it.

Each batch is shared out over the widths (the sandwich rule), which are sizes of the picture here; one set of weights
serves them all. Pictures are seen in all their views, mirrored every other time.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from isthmus.models.data import labelled
from isthmus.models.distillation.setup import DistillationSetup
from isthmus.models.distillation.student import StudentHead
from isthmus.models.progress import Report
from isthmus.models.training import losses
from isthmus.models.training.processors import mixed_precision
from isthmus.models.training.resumable import ResumableRun, Stateful, averaging, follow, prepare

REPORT_EVERY = 20
"""The number of steps from one line of the report to the next."""
AVERAGING = 0.99
"""Share of itself that the averaged head keeps at each step, in a run that is long enough to forget its beginning."""
FULL = 0.5
"""The share of a batch that runs at full width."""


class ExitTrainer(ResumableRun[StudentHead]):
    """One run: a head of which the exit learns, and its running average."""

    resumed_line = "resumed after epoch {done} of {epochs} of the exit"
    epoch_line = "exit, epoch {done} of {epochs}: {losses}"

    def __init__(self, setup: DistillationSetup, head: StudentHead) -> None:
        settings = setup.settings
        super().__init__(seed=setup.answers.seed, epochs=settings.exit_epochs, identity=setup.identity)
        self.setup, self.settings = setup, settings
        self.coins = self.rng.integers(0, 2, len(setup.answers.album))
        self.head = copy.deepcopy(head).to(self.device).train()
        self.head.exit.requires_grad_(True)
        self.averaged = copy.deepcopy(self.head).eval().requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.head.exit.parameters(), lr=settings.exit_rate)
        self.batch = min(settings.exit_batch, len(setup.training_index))
        self.steps_per_epoch = len(setup.training_index) // self.batch
        self.averaging = averaging(AVERAGING, self.epochs * self.steps_per_epoch)

    @property
    def state(self) -> dict[str, Stateful]:
        """The head, its average and the optimiser."""
        return {"head": self.head, "averaged": self.averaged, "optimiser": self.optimiser}

    def epoch(self, report: Report) -> str:
        """One pass over one view of every picture; the mean loss, as text."""
        views = self.settings.views
        number, turn = self.epochs_done % views, self.epochs_done // views
        answers, total = self.setup.answers, 0.0
        logits = answers.of_view(number, report)["logits"]
        mirrored = (self.coins + turn) % 2 == 1
        for i, order in enumerate(labelled.batches(len(self.setup.training_index), self.batch, self.rng)):
            index = self.setup.training_index[order]  # as they come: a width is given a part of the batch
            images = [answers.image(int(k), number) for k in index]
            shown = [image[:, ::-1] if mirrored[k] else image for k, image in zip(index, images, strict=True)]
            progress = (self.epochs_done + i / self.steps_per_epoch) / self.settings.exit_epochs
            target = self.setup.target("logits", logits[index]).to(self.device)
            total += self.step(self.setup.pictures(np.stack(shown)).to(self.device), target, progress)
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  step {i + 1} of {self.steps_per_epoch}: loss {total / (i + 1):.3f}")
        return f"loss {total / self.steps_per_epoch:.3f}"

    def step(self, x: Tensor, logits: Tensor, progress: float) -> float:
        """One optimiser step on (N, 3, S, S) pictures and the teacher's (N, K) logits; the loss."""
        prepare([self.optimiser], [self.settings.exit_rate], progress)
        with mixed_precision(self.device):
            parts = shared_out(len(x), self.settings.widths, FULL, self.rng)
            answers = torch.cat([self.head.logits(x[part], width) for width, part in parts]).float()
            loss = losses.distillation(answers, logits, 1.0)
        torch.autograd.backward(loss)
        self.optimiser.step()
        follow(self.averaged, self.head, self.averaging)
        return float(loss.detach())


def shared_out(n: int, widths: tuple[float, ...], full: float, rng: np.random.Generator) -> list[tuple[float, slice]]:
    """Share `n` samples out over widths (the sandwich rule): `full` of them run the full one, half of the rest the narrowest."""
    ascending = sorted(widths)
    if len(ascending) == 1:
        return [(ascending[0], slice(0, n))]
    between = ascending[1:-1] or ascending[:1]
    middle = between[int(rng.integers(len(between)))]
    most, more = int(n * full), int(n * (1 + full) / 2)
    return [(ascending[-1], slice(0, most)), (ascending[0], slice(most, more)), (middle, slice(more, n))]
