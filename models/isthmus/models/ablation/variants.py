"""Changes to a training, each against the recipe that ships: `VARIANTS` is the list that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isthmus.models.ablation.trainers import (
    ChannelDropoutTrainer,
    FrozenHeadTrainer,
    MatchingTrainer,
    TaughtTrainer,
    VectorTrainer,
)
from isthmus.models.training import run
from isthmus.models.training.backbones import Architecture, Conv, Head
from isthmus.models.training.recipes import Recipe
from isthmus.models.training.run import TrainingRun
from isthmus.models.training.trainer import Trainer
from isthmus.proto.errors import ConfigError

MEMBERS = 4
"""The members of an ensemble: one for each width of the recipes, so that every width is some of them."""
FULL_FIRST = 0.4
"""Share of the training that the full width has to itself."""
SHORT_BATCH, SHORT_TURN_RATE, SHORT_AVERAGING = 128, 0.1, 0.97


@dataclass(frozen=True)
class Variant:
    """One change to the training that ships."""

    title: str
    recipe: Callable[[Recipe], Recipe]
    trainer: type[Trainer] = Trainer
    every_width: bool = False
    """Measured at every width, not at the narrowest and the full one alone."""

    @property
    def taught(self) -> bool:
        """Its trainer takes a teacher, the network of `teacher_of`."""
        return issubclass(self.trainer, TaughtTrainer)


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """`recipe` for a table of many runs: few epochs of small batches, a head of half and a tail of a quarter of the channels.

    Few steps must each go further, and the average must forget sooner.
    """
    arch = scaled(recipe.arch, 1, 2)
    arch = replace(arch, tail=tuple(replace(conv, channels=conv.channels // 4) for conv in arch.tail))
    return replace(
        recipe,
        arch=arch,
        epochs=epochs,
        batch=SHORT_BATCH,
        turn_rate=SHORT_TURN_RATE,
        averaging=SHORT_AVERAGING,
        late_exit_epochs=0,
    )


def scaled(arch: Architecture, times: int, over: int = 1) -> Architecture:
    """`arch` with `times / over` of the channels in its head, its exits included."""
    stages = tuple(tuple(replace(c, channels=c.channels * times // over) for c in stage) for stage in arch.stages)
    return replace(arch, stages=stages, exit_channels=tuple(c * times // over for c in arch.exit_channels))


def teacher_of(recipe: Recipe) -> Recipe:
    """The same network without a bottleneck, at full width only: what maps are matched to. It is trained unquantised."""
    last = recipe.arch.stages[-1][-1].channels
    arch = replace(recipe.arch, widths=recipe.arch.widths[-1:], bottleneck_channels=last)
    return replace(recipe, arch=arch, rate_weight=0.0)


def ensemble(arch: Architecture) -> Architecture:
    """MEMBERS members of 1 / sqrt(MEMBERS) of the channels each, so that all of them take the FLOPs of the sliced head."""
    widths = tuple((i + 1) / MEMBERS for i in range(MEMBERS))
    return replace(scaled(arch, round(MEMBERS**0.5)), widths=widths, members=MEMBERS)


def fast_down_sampling(arch: Architecture) -> Architecture:
    """A trunk that is at the bottleneck's size after its first layers, then separable: the same FLOPs, nearly."""
    target = sum(Head(arch).macs(arch.widths[-1]))
    trunks = [_fast(arch, channels) for channels in range(64, 513, 16)]
    return min(trunks, key=lambda trunk: abs(sum(Head(trunk).macs(trunk.widths[-1])) - target))


def _fast(arch: Architecture, channels: int) -> Architecture:
    halvings = (arch.input_size // arch.bottleneck_size).bit_length() - 1
    down = [Conv(32, stride=2), *[Conv(channels // 2, stride=2, separable=True)] * (halvings - 1)]
    flat = Conv(channels, residual=True, separable=True)
    first = (*down, Conv(channels, separable=True), flat, flat)
    return replace(arch, stages=(first, (flat, flat, flat)))


def _arch(change: Callable[[Architecture], Architecture]) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, arch=change(recipe.arch))


def _as_it_is(recipe: Recipe) -> Recipe:
    return recipe


def _with(**changes: float) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replace(recipe, **changes)  # type: ignore[arg-type]


def _together(recipe: Recipe) -> Recipe:
    return replace(recipe, arch=replace(recipe.arch, pooling="max"), whitened=True, slim_from=FULL_FIRST)


BASE = "base"
VARIANTS: dict[str, Variant] = {
    BASE: Variant("the recipe that ships", _as_it_is, every_width=True),
    "separate-full": Variant("a network of its own: full width", _arch(lambda a: replace(a, widths=a.widths[-1:]))),
    "separate-narrow": Variant("a network of its own: narrowest", _arch(lambda a: replace(a, widths=a.widths[:1]))),
    "ensemble": Variant("slimmable ensemble, features added up", _arch(ensemble), every_width=True),
    "no-invariance": Variant("without feature invariance across widths", _with(invariance_weight=0.0)),
    "noise-only": Variant("quantiser noise to the end", _with(straight_through_from=1.0)),
    "rounding-only": Variant("straight-through rounding from the start", _with(straight_through_from=0.0)),
    "no-rate": Variant("without the rate loss", _with(rate_weight=0.0)),
    "vector": Variant("residual vector quantiser, quantiser dropout", _as_it_is, VectorTrainer),
    "channel-dropout": Variant("nested channel dropout", _as_it_is, ChannelDropoutTrainer),
    "ghnd": Variant("GHND: match a guide's maps, then tune the tail", _as_it_is, MatchingTrainer),
    "softpool": Variant("SoftPool before the convolution, not strides", _arch(lambda a: replace(a, pooling="soft"))),
    "fast-down": Variant("FD-MobileNet trunk", _arch(fast_down_sampling)),
    "exits-after": Variant("exits trained after the network", _with(exit_weight=0.0, late_exit_epochs=2)),
    "ensemble-concat": Variant(
        "slimmable ensemble, features side by side",
        _arch(lambda arch: replace(ensemble(arch), joining="concatenation")),
        every_width=True,
    ),
    "maxpool": Variant("max pool before the convolution, not strides", _arch(lambda a: replace(a, pooling="max"))),
    "frozen-head": Variant("joint, then the tail alone is tuned", _as_it_is, FrozenHeadTrainer),
    "no-distillation": Variant("without self-distillation", _with(distill_from=1.0)),
    "guide": Variant("with a guide's opinion", _as_it_is, TaughtTrainer),
    "rate-x3": Variant("three times the rate loss", _with(rate_weight=0.3)),
    "full-first": Variant("the full width alone at first, then all of them", _with(slim_from=FULL_FIRST)),
    "whitened": Variant("a first convolution of principal components", _with(whitened=True)),
    "together": Variant("max pool, whitened, the full width first", _together),
}


def open_run(name: str, pictures: Path | None = None, variants: Sequence[str] = ()) -> TrainingRun:
    """Open a run as `training.run.open_run` does, changed by `variants`, one after the other.

    Raises ConfigError when there is no such variant, it takes a teacher, or two take a trainer each.
    """
    chosen = [_alone(variant) for variant in variants]
    special = [(n, v.trainer) for n, v in zip(variants, chosen, strict=True) if v.trainer is not Trainer]
    if len(special) > 1:
        raise ConfigError(f"{special[1][0]}: changes the training itself, as {special[0][0]} does; give one of them")
    opened = run.open_run(name, pictures, [(n, v.recipe) for n, v in zip(variants, chosen, strict=True)])
    return replace(opened, trainer=special[0][1]) if special else opened


def _alone(name: str) -> Variant:
    alone = [n for n, variant in VARIANTS.items() if not variant.taught]
    if name not in alone:
        raise ConfigError(f"{name}: no variant that a training can do by itself; there are {', '.join(alone)}")
    return VARIANTS[name]
