"""Ways to halve a feature map. A pool stands in front of its convolution, which then need not stride: equal FLOPs."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Pooling = Literal["strided", "max", "soft"]


def pooled(x: Tensor, how: Pooling) -> Tensor:
    """(N, C, H, W) -> (N, C, H/2, W/2): the greatest of each 2x2, or its mean weighted by exp (SoftPool, Stergiou 2021)."""
    if how == "max":
        return F.max_pool2d(x, 2)
    assert how == "soft", how
    weight = x.clamp(max=LARGEST).exp()
    return F.avg_pool2d(x * weight, 2) / F.avg_pool2d(weight, 2)


LARGEST = 20.0
"""Far below where exp overflows; features after a batch norm hardly reach it."""
