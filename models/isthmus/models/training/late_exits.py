"""Early exits trained after the network, on a frozen trunk: the features stay as they are, and exits may be made anew at will."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.data.labelled import TrainingSet, batches, normalised, shifted
from isthmus.models.progress import Report
from isthmus.models.training.backbones import Exit, SplitNetwork, Stage
from isthmus.models.training.processors import fastest
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.resumable import prepare

PEAK_RATE = 0.1
"""Twice that of a whole training: a few small layers on features that stand still bear it."""


def retrain(network: SplitNetwork, recipe: Recipe, training: TrainingSet, *, seed: int, report: Report) -> None:
    """Give `network`, which is on the CPU, fresh exits of the recipe's size and train them, all widths together."""
    device = fastest()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network.requires_grad_(False).eval()
    stages = [stage for stage in network.head.stages if isinstance(stage, Stage)]
    for stage, channels in zip(stages, recipe.arch.exit_channels, strict=True):
        arch = recipe.arch
        stage.exit = Exit(stage.c_out, channels, arch.classes, arch.widths, arch.members).train()
    network.to(device)
    parameters = [p for stage in stages for p in stage.exit.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=PEAK_RATE, momentum=0.9, nesterov=True)
    steps = recipe.late_exit_epochs * (len(training.pictures) // recipe.batch)
    done, total = 0, 0.0
    for epoch in range(recipe.late_exit_epochs):
        mirrored = training.mirrored(epoch, seed)
        for index in batches(len(training.pictures), recipe.batch, rng):
            prepare([optimiser], [PEAK_RATE], done / steps)
            images = shifted(training.pictures.images[index], training.shift_pixels, mirrored[index], rng)
            x = normalised(images, training.mean, training.std).to(device)
            labels = torch.from_numpy(training.pictures.labels[index]).to(device)
            loss = _loss(stages, x, labels, recipe)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            done, total = done + 1, total + float(loss.detach())
            if done % 50 == 0:
                report(f"  exits: step {done} of {steps}, loss {total / 50:.3f}")
                total = 0.0
    network.cpu().eval()


def _loss(stages: list[Stage], x: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    losses = []
    for width in recipe.arch.widths:
        hidden = x
        for stage in stages:
            with torch.no_grad():
                hidden = stage(hidden, width)
            losses.append(F.cross_entropy(stage.exit(hidden, width), labels))
    return torch.stack(losses).mean()
