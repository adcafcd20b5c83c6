"""What is minimised: distance to a teacher's answers, features that depend on the width, and what features cost."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """The mean Kullback-Leibler divergence from the teacher at `temperature` (Hinton et al. 2015), scaled by its square."""
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean") * temperature**2


def feature_invariance(features: Tensor, reference: Tensor) -> Tensor:
    """The mean squared distance of a narrow width's features to the full width's."""
    return F.mse_loss(features, reference.detach())


def rate(features: Tensor) -> Tensor:
    """The mean magnitude: up to a constant, the bits of the features under a Laplacian prior.

    Their variance is fixed by a batch norm, so this asks for many small values and a few large ones, which code short.
    """
    return features.abs().mean()
