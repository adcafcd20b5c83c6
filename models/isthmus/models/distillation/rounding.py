"""The spectral quantiser as a student sees it in training: what `proto.spectrum` does to its features, and what they cost.

Rounding has a straight-through gradient from the first step: a student begins with features of which most round to zero,
and noise in their place would teach its decoder what it never sees. Tensors are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.models.bundling.spectral_fit import spatial_channels
from isthmus.proto.bits.spectrum import cosines


class Rounding(nn.Module):
    """Cosines over the places of those channels whose neighbours say something of each other; all others as they are."""

    basis: Tensor
    transformed: Tensor
    mean: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.from_numpy(cosines(size)))
        self.register_buffer("transformed", torch.zeros(channels, 1, 1, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(channels, 1, 1))

    def begin(self, features: NDArray[np.float32], step: float) -> None:
        """Choose the channels by what features (N, H, W, C) cost at `step`."""
        spatial: Sequence[int] = spatial_channels(features, step)
        self.transformed.fill_(True)
        self.transformed[list(spatial)] = False
        self.mean.copy_(torch.from_numpy(features.mean((0, 1, 2)))[:, None, None])

    def forward(self, features: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Rounded to `step` (N, 1, 1, 1), and the bits that this takes, about: the mean over the samples."""
        about = features - self.mean
        values = torch.where(self.transformed, self.basis.T @ about @ self.basis, about) / step
        bits = torch.log2(1 + values.abs()).sum((1, 2, 3)).mean()
        rounded = (values + (values.round() - values).detach()) * step
        back = torch.where(self.transformed, self.basis @ rounded @ self.basis.T, rounded)
        return back + self.mean, bits
