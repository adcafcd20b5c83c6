"""What is minimised: labels, the teacher's opinion, and features that do not depend on the width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Mean Kullback-Leibler divergence from the teacher at `temperature` (Hinton et al. 2015), scaled by its square."""
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean") * temperature**2


def feature_invariance(features: Tensor, reference: Tensor) -> Tensor:
    """Mean squared distance of a narrow width's features to the full width's."""
    return F.mse_loss(features, reference.detach())


def map_distance(maps: Sequence[Tensor], guide: Sequence[Tensor]) -> Tensor:
    """Squared distance of a tail's maps to a guide's, each as a share of the guide's power (GHND, Matsubara 2022)."""
    shares = [F.mse_loss(a.float(), b.float()) / b.float().square().mean() for a, b in zip(maps, guide, strict=True)]
    return torch.stack(shares).mean()


def rate(features: Tensor) -> Tensor:
    """Mean magnitude: up to a constant, the bits of the features under a Laplacian prior.

    Their variance is fixed by a batch norm, so this asks for many small values and a few large ones, which code short.
    """
    return features.abs().mean()
