"""The detectors that are shipped, and how each is trained: one entry for each bundle of the zoo."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.models.detection.network import Architecture


@dataclass(frozen=True)
class Recipe:
    """An architecture with the settings of its training."""

    arch: Architecture
    epochs: int
    epoch_pictures: int = 2000
    """An epoch is no pass over the pictures, which are varied without end, but so many of them."""
    batch: int = 16
    full_until: float = 0.3
    """The share of the training in which the full width learns alone: the narrower ones begin with what it knows by then."""
    shares: tuple[float, ...] = (0.375, 0.1875, 0.4375)
    """After that, of a batch, by width, the full one first: the narrowest has most to learn, those between it and the full
    one little."""
    every: int = 10
    """Every so many frames of a clip are trained on: what lies between is nearly the same."""
    rate: float = 2e-3
    """AdamW's peak learning rate."""
    warm_up: float = 0.04
    """The share of either part of the training in which it rises."""
    decay: float = 5e-4
    tail_decay: float = 0.02
    averaging: float = 0.998
    """The share of themselves that the averaged weights keep at every step; less in a run too short for it."""
    bits_weight: tuple[float, float] = (4e-6, 3e-5)
    """What a bit of a frame costs, at first and later on: what is dear from the beginning is not learnt at all."""
    bits_from: tuple[float, float] = (0.15, 0.45)
    """The shares of the training over which the first price rises from nothing, and after which the second one holds."""
    steps: tuple[float, ...] = (0.5, 2 / 3, 1.0, 1.5)
    """The quantiser's ladder; the base alone has steps three times as wide, and is what is sent as a rule."""
    base_alone: float = 0.8
    """The share of the pictures of which the tail is given the base alone."""
    distil_from: float = 0.4
    """The share of the training after which what the averaged network says at the full width teaches the narrow exits."""
    distil_weight: float = 0.5
    wide_every: int = 4
    """Before the tail is trained alone, its wide branch takes part in every so many steps: it is most of a step's work."""
    tail_from: float = 0.79
    """The share of the training after which the averaged head stays as it is, and the tail is trained on what it gives."""
    judged_every: int = 4
    """After so many epochs the averaged network is judged on the held-out places. It is kept when it is the best of those whose
    tail has been trained alone."""


RECIPES: dict[str, Recipe] = {"skywatch": Recipe(arch=Architecture(), epochs=64)}
