"""The shipped networks and how each is trained: one entry per bundle of the zoo."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.models.training.backbones import Architecture, Conv

WIDTHS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Recipe:
    """An architecture with the settings of its training. The defaults are what ships; `ablation` measures the others."""

    arch: Architecture
    epochs: int
    batch: int = 256
    turn_rate: float = 0.025
    """Peak relative change of a convolution's weights a step."""
    peak_rate: float = 0.05
    """Peak learning rate of everything else."""
    label_smoothing: float = 0.1
    exit_weight: float = 0.3
    rate_weight: float = 0.1
    """The weight of what the features cost: of their mean magnitude, which stands for their bytes."""
    distill_weight: float = 1.0
    distill_from: float = 0.4
    """Share of the training after which the averaged full-width network teaches the narrow widths and the exits."""
    invariance_weight: float = 1.0
    """The weight of the distance of the narrow widths' features to the full width's, while that teaches."""
    straight_through_from: float = 0.5
    """Share of the training after which rounding replaces noise."""
    late_exit_epochs: int = 0
    """Epochs of training the exits anew on the finished, frozen network; 0 keeps those that were trained with it."""
    slim_from: float = 0.0
    """Share of the training that is spent on the full width alone, before the narrow ones join (Once-for-all)."""
    whitened: bool = False
    """The first convolution is the pictures' own patches' principal components, and stays it (Jordan 2024)."""
    averaging: float = 0.995
    """The share of themselves that the averaged weights keep at every step; less in a run too short for it."""
    steps: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4)
    """The quantiser's ladder, in standard deviations of the features; finest first."""


RECIPES: dict[str, Recipe] = {
    "cifar10": Recipe(
        arch=Architecture(
            input_size=32,
            classes=10,
            widths=WIDTHS,
            stages=(
                (Conv(32), Conv(80, stride=2), Conv(80, residual=True)),
                (Conv(160, stride=2), Conv(160, residual=True)),
            ),
            exit_channels=(64, 64),
            bottleneck_channels=12,
            tail=(
                Conv(192),
                Conv(192, residual=True),
                Conv(320, stride=2),
                Conv(320, residual=True),
            ),
        ),
        epochs=22,
    ),
    "signs": Recipe(
        arch=Architecture(
            input_size=128,
            classes=25,
            widths=WIDTHS,
            stages=(
                (Conv(16, stride=2), Conv(32, stride=2), Conv(48, stride=2), Conv(48, residual=True)),
                (Conv(64), Conv(64, residual=True)),
            ),
            exit_channels=(8, 8),
            bottleneck_channels=6,
            tail=(
                Conv(96, stride=2),
                Conv(96, residual=True),
                Conv(192, stride=2),
                Conv(192, residual=True),
            ),
        ),
        epochs=8,
        batch=128,
        late_exit_epochs=1,
    ),
}
