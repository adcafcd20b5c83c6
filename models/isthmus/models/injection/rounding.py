"""The quantiser as an injected network sees it in training: cosines over the places, rounded, and what they cost.

It is `proto.spectrum` with every channel transformed, for maps of any size: training sees smaller pictures for most of the
time. First noise of a step stands in for rounding, then rounding itself has a straight-through gradient: a tail that learnt
from noise alone would live on values below a step, which rounding deletes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isthmus.proto.bits.spectrum import cosines


class Rounding(nn.Module):
    """Rounds maps (N, C, H, W) about the channels' means, and prices what crosses."""

    mean: Tensor
    price: Tensor
    bytes_per_bit: Tensor

    def __init__(self, channels: int, cells: tuple[int, int], price: float) -> None:
        """`cells` (H, W) are those of a whole picture; `price` is a kilobyte's, and follows what is measured."""
        super().__init__()
        self._cells = cells[0] * cells[1]
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("price", torch.tensor(price))
        self.register_buffer("bytes_per_bit", torch.tensor(3 / 8))

    def begin(self, features: Tensor) -> None:
        """Take the channels' means of features (N, C, H, W)."""
        self.mean.copy_(features.mean((0, 2, 3))[:, None, None])

    def forward(self, features: Tensor, step: Tensor, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The features as they cross at `step` (N, 1, 1, 1), or with `noise` of a step; and their kilobytes, about, (N,)."""
        height, width = features.shape[2:]
        down, across = (torch.from_numpy(cosines(n)).to(features) for n in (height, width))
        values = down.T @ (features - self.mean) @ across / step
        bits = torch.log2(1 + values.abs()).sum((1, 2, 3)) * (self._cells / (height * width))
        if noise is not None:
            crossed = values + torch.rand(values.shape, generator=noise).to(values) - 0.5
        else:
            crossed = values + (values.round() - values).detach()
        return down @ (crossed * step) @ across.T + self.mean, bits * self.bytes_per_bit / 1000
