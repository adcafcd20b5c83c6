"""Channel pruning of a trained head to a budget of FLOPs: greedy, by what each cut is measured to cost.

Channels that must go together make a space: a convolution's outputs, with those of the residual convolutions that are
added to them. Each round ranks the channels of every space by first-order Taylor expansion of the loss (Molchanov et al.
2017), tries the GROUP least ones of every space on calibration pictures, and takes out those whose loss rises least for
the FLOPs that they save (as NetAdapt does with whole layers, Yang et al. 2018). The head that is left has one width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.bundle import Bundle
from isthmus.models.data.labelled import TrainingSet, normalised
from isthmus.models.progress import Report
from isthmus.models.training.backbones import Architecture, Head, SplitNetwork, Stage
from isthmus.models.training.layers import SlimConv
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.run import TrainingRun
from isthmus.models.training.trainer import accuracy
from isthmus.proto.errors import ConfigError

GROUP = 8
"""Channels that go at once: XNNPACK and NEON work in eights."""
FULL = 1.0
"""The width that is pruned."""
CALIBRATION, JUDGED = 512, 1000
"""The number of training pictures that cuts are measured on, and of validation pictures that say what they cost."""
TUNING = 0.2
"""The learning rates of fine-tuning, as a share of the training's own: the network is nearly right already."""
EXIT_WEIGHT = 0.3
"""The weight of each early exit's loss, as in training."""
NORM_BATCH = 250
"""The pictures in each batch that norms are measured on."""


@dataclass
class Space:
    """Channels that stay or go together."""

    name: str
    channels: int
    convs: list[SlimConv] = field(default_factory=list)
    """The convolutions whose outputs they are."""
    kept: Tensor = field(default_factory=lambda: torch.ones(0))
    """(C,) 1 where a channel is still there, 0 where it has gone."""

    def __post_init__(self) -> None:
        self.kept = torch.ones(self.channels)

    @property
    def index(self) -> Tensor:
        """The channels that are still there, ascending."""
        return torch.nonzero(self.kept).flatten()


@dataclass(frozen=True)
class ChannelCut:
    """GROUP channels of a space that may go."""

    space: Space
    channels: Tensor
    macs: int
    """The multiply-accumulates that the cut saves."""


def spaces_of(head: Head) -> list[Space]:
    """The spaces of a head, in the order of its layers; the bottleneck's channels are not among them."""
    found: list[Space] = []
    for i, stage in enumerate(_stages(head)):
        for j, (conv, residual) in enumerate(zip(stage.convs, stage.residual, strict=True)):
            if not isinstance(conv, SlimConv) or conv.weight.shape[1] != conv.c_in:
                raise ConfigError(f"stage {i + 1}, layer {j + 1}: not a plain convolution; only those are pruned")
            if not residual:
                found.append(Space(f"stage {i + 1}, layer {j + 1}", conv.c_out))
            trunk = next(s for s in reversed(found) if not s.name.endswith("exit"))
            trunk.convs.append(conv)
        found.append(Space(f"stage {i + 1}, exit", stage.exit.conv.c_out, [stage.exit.conv]))
    return found


def prune(network: SplitNetwork, share: float, x: Tensor, labels: Tensor, *, report: Report) -> SplitNetwork:
    """Take channels out until the head, at its one width, takes at most `share` of its FLOPs; returns a new network.

    `x` (N, 3, S, S) and `labels` (N,) are calibration pictures; the batch norms are measured anew on them. Raises
    ConfigError when no cut is left before the budget is met.
    """
    if not 0 < share < 1:
        raise ConfigError(f"--flops: {share}, expected a share of the head's own between 0 and 1")
    network = network.eval().requires_grad_(False)
    whole = sum(network.head.macs(FULL))
    spaces = spaces_of(network.head)
    loss, macs = _measured(network, spaces, x, labels), whole
    report(f"{2 * whole / 1e6:.1f} MFLOP, loss {loss:.4f}")
    while macs > share * whole:
        importance = _importance(network, spaces, x, labels)
        cuts = [_cut(network.head, spaces, s, importance[s.name], macs) for s in spaces if s.kept.sum() > GROUP]
        if not cuts:
            raise ConfigError(
                f"--flops: {share}: cannot be met, {macs / whole:.2f} is left when every layer is down to {GROUP} channels"
            )
        costs = [_tried(network, spaces, cut, x, labels) - loss for cut in cuts]
        best = min(range(len(cuts)), key=lambda i: costs[i] / cuts[i].macs)
        cuts[best].space.kept[cuts[best].channels] = 0
        loss, macs = loss + costs[best], macs - cuts[best].macs
        report(
            f"{2 * macs / 1e6:.1f} MFLOP ({macs / whole:.0%}), loss {loss:.4f}: {GROUP} fewer in {cuts[best].space.name}"
        )
    small = _rebuilt(network, spaces)
    _measure_norms(small, x)
    return small


@dataclass(frozen=True)
class Pruning:
    """The options of `isthmus models prune`."""

    share: float
    """The largest share of the head's FLOPs that may be left."""
    epochs: int
    """The number of epochs of fine-tuning; 0 only measures the batch norms anew."""
    seed: int


def to_bundle(
    run: TrainingRun, network: SplitNetwork, made: str, target: Path, asked: Pruning, *, report: Report
) -> Bundle:
    """Prune the head of a trained network, tune what is left, and write its bundle to `target`.

    `made` says how the network was made. Raises ConfigError when the budget cannot be met.
    """
    training, validation = run.corpus.training(), run.corpus.validation()
    chosen = np.random.default_rng(asked.seed).permutation(len(training.pictures))[:CALIBRATION]
    x = normalised(training.pictures.images[chosen], training.mean, training.std)
    judged = normalised(validation.pictures.images[:JUDGED], validation.mean, validation.std)
    truth = torch.from_numpy(validation.pictures.labels[:JUDGED])
    report(f"before: {_accuracies(network, judged, truth)}")
    small = prune(network, asked.share, x, torch.from_numpy(training.pictures.labels[chosen]), report=report)
    report(f"pruned: {_accuracies(small, judged, truth)}")
    smaller = replace(run, recipe=_tuning(run.recipe, small.arch, asked.epochs), name=target.name)
    if asked.epochs:
        small = _tune(small, smaller, training, asked.seed, report)
        report(f"tuned: {_accuracies(small, judged, truth)}")
    made_by = (
        f"{made}; isthmus models prune {run.arguments} "
        f"--flops {asked.share:g} --epochs {asked.epochs} --seed {asked.seed}"
    )
    return smaller.put(small, target, made_by=made_by, report=report)


def _accuracies(network: SplitNetwork, x: Tensor, labels: Tensor) -> str:
    whole, exits = accuracy(network, x, labels, FULL, 0)
    flops = 2 * sum(network.head.macs(FULL)) / 1e6
    return f"head {flops:.1f} MFLOP, {whole:.1%} by the tail, {', '.join(f'{e:.1%}' for e in exits)} by the exits"


def _tuning(recipe: Recipe, arch: Architecture, epochs: int) -> Recipe:
    """A short training that goes on where another ended: low rates, rounding from the start."""
    return replace(
        recipe,
        arch=arch,
        epochs=epochs,
        turn_rate=TUNING * recipe.turn_rate,
        peak_rate=TUNING * recipe.peak_rate,
        distill_from=0.0,
        straight_through_from=0.0,
        late_exit_epochs=0,
    )


def _tune(network: SplitNetwork, run: TrainingRun, training: TrainingSet, seed: int, report: Report) -> SplitNetwork:
    """Train `network` on, as `run` says; returns the averaged network."""
    trainer = run.trainer(run.recipe, training, seed=seed)
    for copy in (trainer.network, trainer.averaged):
        copy.load_state_dict(network.state_dict())
    with tempfile.TemporaryDirectory() as scratch:
        return trainer.run(Path(scratch) / "tuning.pt", report).eval()


def _stages(head: Head) -> list[Stage]:
    return [stage for stage in head.stages if isinstance(stage, Stage)]


@contextmanager
def _masked(spaces: list[Space], masks: dict[str, Tensor]) -> Iterator[None]:
    """Multiply every space's channels by its mask (C,) while the context lasts."""

    def multiplied(mask: Tensor, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * mask[None, :, None, None]

    handles = [
        conv.register_forward_hook(partial(multiplied, masks[space.name])) for space in spaces for conv in space.convs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _loss(network: SplitNetwork, x: Tensor, labels: Tensor) -> Tensor:
    features, exits = network.head(x, FULL)
    loss = F.cross_entropy(network.tail(features), labels)
    for logits in exits:
        loss = loss + EXIT_WEIGHT * F.cross_entropy(logits, labels)
    return loss


@torch.no_grad()
def _measured(network: SplitNetwork, spaces: list[Space], x: Tensor, labels: Tensor) -> float:
    with _masked(spaces, {s.name: s.kept for s in spaces}):
        return float(_loss(network, x, labels))


def _importance(network: SplitNetwork, spaces: list[Space], x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """(C,) for each space: |dloss / dmask|, what the loss would move by without the channel, to first order."""
    masks = {s.name: s.kept.clone().requires_grad_() for s in spaces}
    with _masked(spaces, masks):
        slopes = torch.autograd.grad(_loss(network, x, labels), list(masks.values()))
    return {name: slope.abs() for name, slope in zip(masks, slopes, strict=True)}


def _cut(head: Head, spaces: list[Space], space: Space, importance: Tensor, macs: int) -> ChannelCut:
    candidates = importance.masked_fill(space.kept == 0, torch.inf)
    channels = candidates.argsort()[:GROUP]
    kept = {s.name: int(s.kept.sum()) - GROUP * (s is space) for s in spaces}
    return ChannelCut(space, channels, macs - sum(Head(_architecture(head.arch, spaces, kept)).macs(FULL)))


def _tried(network: SplitNetwork, spaces: list[Space], cut: ChannelCut, x: Tensor, labels: Tensor) -> float:
    """The loss without the channels of the cut."""
    cut.space.kept[cut.channels] = 0
    try:
        return _measured(network, spaces, x, labels)
    finally:
        cut.space.kept[cut.channels] = 1


def _architecture(arch: Architecture, spaces: list[Space], kept: dict[str, int]) -> Architecture:
    """`arch` with so many channels in each space, at full width only."""
    trunk = iter([kept[s.name] for s in spaces for _ in s.convs if not s.name.endswith("exit")])
    return replace(
        arch,
        widths=(FULL,),
        stages=tuple(tuple(replace(conv, channels=next(trunk)) for conv in stage) for stage in arch.stages),
        exit_channels=tuple(kept[s.name] for s in spaces if s.name.endswith("exit")),
    )


@torch.no_grad()
def _rebuilt(network: SplitNetwork, spaces: list[Space]) -> SplitNetwork:
    """The network without the channels that have gone; it answers as the masked one does."""
    small = SplitNetwork(_architecture(network.arch, spaces, {s.name: len(s.index) for s in spaces}))
    small.tail.load_state_dict(network.tail.state_dict())
    of = {id(conv): space.index for space in spaces for conv in space.convs}
    before = torch.arange(3)
    for old, new in zip(_stages(network.head), _stages(small.head), strict=True):
        for a, b in zip(old.convs, new.convs, strict=True):
            assert isinstance(a, SlimConv)
            assert isinstance(b, SlimConv)
            _copy(a, b, before, of[id(a)])
            before = of[id(a)]
        at_exit = of[id(old.exit.conv)]
        _copy(old.exit.conv, new.exit.conv, before, at_exit)
        new.exit.linear.full.weight.copy_(old.exit.linear.full.weight[:, at_exit])
        new.exit.linear.full.bias.copy_(old.exit.linear.full.bias)
    _copy(network.head.project, small.head.project, before, torch.arange(network.arch.bottleneck_channels))
    return small.eval()


def _copy(old: SlimConv, new: SlimConv, c_in: Tensor, c_out: Tensor) -> None:
    """Give `new` the weights of `old` between the channels that are left, and the norm of those that come out."""
    new.weight.copy_(old.weight[c_out][:, c_in])
    (norm,) = new.norms.values()
    full = old.norms["w100"].state_dict()
    norm.load_state_dict({k: v[c_out] if v.ndim else v for k, v in full.items()})


@torch.no_grad()
def _measure_norms(network: SplitNetwork, x: Tensor) -> None:
    """Measure the statistics of the head's batch norms on `x` (N, 3, S, S), without the channels that have gone."""
    norms = [m for m in network.head.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    network.head.train()
    for i in range(0, len(x), NORM_BATCH):
        network.head(x[i : i + NORM_BATCH], FULL)
    network.eval()
    for norm in norms:
        norm.momentum = 0.1
