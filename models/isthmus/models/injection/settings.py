"""How a bottleneck is injected and trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class InjectionSettings:
    """The settings of an injection."""

    epochs: int = 60
    views: int = 1024
    """The number of small views that an epoch sees."""
    batch: int = 16
    small_share: float = 0.3
    """The share of the epochs that see small pictures, of `small` of the side; the others see a quarter as many, whole ones."""
    small: float = 0.46
    noise_share: float = 0.2
    """The share of the epochs in which noise stands in for rounding."""
    steps: tuple[float, ...] = (1.0, 1.4, 2.0, 2.8)
    """The quantiser's ladder, in the map's own unit; finest first."""
    aimed_step: int = 1
    """The step that is to take `aimed_bytes`."""
    aimed_bytes: int = 1400
    price: float = 1.0
    """What a kilobyte costs in the beginning; it follows the bytes that are measured."""
    inside: int = 96
    """The decoder's channels."""
    new_rate: float = 1e-3
    """Peak learning rates: of what begins at random or at zero,"""
    transform_rate: float = 3e-4
    """of the transforms,"""
    tuned_rate: float = 3e-4
    """and of the detector's own layers."""
    map_weight: float = 0.5
    hint_weight: float = 1.0
    answer_weight: float = 1.0

    def identity(self) -> dict[str, object]:
        """What a checkpoint must have been trained with, to go on with; the number of epochs may change."""
        return {name: value for name, value in asdict(self).items() if name != "epochs"}
