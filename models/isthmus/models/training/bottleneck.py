"""The quantiser as the network sees it in training: the same rounding and clipping as `isthmus.proto.codec`.

Random steps in training let one network serve a ladder of steps. Additive uniform noise first (smooth gradients), then
rounding with a straight-through gradient: worth 1 to 2 points at equal bytes, and free at run time.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 7
"""Symbols are clipped to -7..7: 15 levels, two to a byte."""


def quantised(x: Tensor, step: Tensor | float) -> Tensor:
    """`x` rounded to the grid of `step` and clipped to the 15 levels; no gradient of its own."""
    return torch.clamp(torch.round(x / step), -LIMIT, LIMIT) * step


def straight_through(x: Tensor, step: Tensor) -> Tensor:
    """Forward: quantised. Backward: identity inside the clip."""
    limit = LIMIT * step
    clipped = torch.maximum(torch.minimum(x, limit), -limit)
    return clipped + (quantised(x, step) - clipped).detach()


def noisy(x: Tensor, step: Tensor, generator: torch.Generator) -> Tensor:
    """Forward: x plus uniform noise of one step, the smooth stand-in for rounding (Ballé et al. 2017)."""
    limit = LIMIT * step
    noise = torch.rand(x.shape, generator=generator).to(x) - 0.5
    return torch.maximum(torch.minimum(x, limit), -limit) + noise * step


def random_steps(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One step for each of `n` samples, log-uniform in [low, high]: (n, 1, 1, 1)."""
    u = torch.rand(n, generator=generator)
    return torch.exp(torch.log(torch.tensor(low)) * (1 - u) + torch.log(torch.tensor(high)) * u).reshape(n, 1, 1, 1)
