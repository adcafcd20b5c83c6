"""Muon for convolutions under batch norm: orthogonalised momentum on weights kept at a fixed norm (Jordan et al. 2024).

A convolution that a batch norm follows does not feel the scale of its weights, only their direction. So every weight is
held at the norm of an orthogonal matrix, sqrt(C_out), and a step turns it by an orthogonal matrix of that same norm: the
learning rate is the relative change of the weight, whatever its gradient. All else (norms, linear layers) takes SGD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from isthmus.models.training.processors import quick_dtype

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that sends singular values to about 1 (Jordan et al. 2024)."""


def orthogonalised(matrix: Tensor, iterations: int = 4) -> Tensor:
    """The nearest orthogonal matrix to (m, n) `matrix`, nearly: singular values in about [0.7, 1.2]."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.to(quick_dtype(matrix.device))
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """The optimiser of convolutions (C_out, C_in, k, k) under batch norms alone. `lr` is a weight's relative change a step."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.9) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.mul_(math.sqrt(len(weight)) / weight.norm())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the orthogonalised Nesterov momentum, back to the sphere."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight.grad))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(momentum, group["momentum"]).flatten(1)  # (C_out, C_in k k)
                turn = orthogonalised(ahead).view_as(weight)
                norm = math.sqrt(len(weight))
                size = max(float(turn.norm()), 1e-7)  # what lies in front of layers that are still zero is not turned
                weight.add_(turn, alpha=-group["lr"] * norm / size)
                weight.mul_(norm / weight.norm())
