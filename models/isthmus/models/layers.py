"""Slimmable layers: one set of weights, any share of its leading channels. Width is an argument, never state.

A layer sliced to width w uses the leading channels of its weights (nested channels) and a batch norm of its own for
every width, since the statistics of a sliced layer differ (Slimmable Neural Networks, Yu et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def channels_at(channels: int, width: float) -> int:
    """Channels kept at `width`, a multiple of 8 and at least 8 (XNNPACK and NEON work in eights)."""
    return min(channels, max(8, round(channels * width / 8) * 8))


def width_key(width: float) -> str:
    """The name of a width in signatures and state: 0.25 -> 'w025', 1.0 -> 'w100'."""
    return f"w{round(width * 100):03d}"


def pad_same(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME padding for a 3x3 kernel on even sizes, which the converter folds into the convolution."""
    return F.pad(x, (0, 1, 0, 1)) if stride == 2 else F.pad(x, (1, 1, 1, 1))


class PlainConv(nn.Module):
    """A convolution with its batch norm folded in: what is exported."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, relu: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride)
        self.conv.weight.data.copy_(weight)
        assert self.conv.bias is not None
        self.conv.bias.data.copy_(bias)
        self.stride, self.relu = stride, relu

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.kernel_size[0] == 3:
            x = pad_same(x, self.stride)
        x = self.conv(x)
        return F.relu(x) if self.relu else x


class SlimConv(nn.Module):
    """Convolution, batch norm, optional ReLU: (N, C_in(width), H, W) -> (N, C_out(width), H/stride, W/stride).

    `fixed_in` and `fixed_out` keep all channels on that side: the picture, the bottleneck.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        widths: Sequence[float],
        *,
        kernel: int = 3,
        stride: int = 1,
        relu: bool = True,
        fixed_in: bool = False,
        fixed_out: bool = False,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.c_in, self.c_out, self.kernel, self.stride, self.relu = c_in, c_out, kernel, stride, relu
        self.fixed_in, self.fixed_out = fixed_in, fixed_out
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norms = nn.ModuleDict({width_key(w): nn.BatchNorm2d(self.channels(w)[1], affine=affine) for w in widths})

    def channels(self, width: float) -> tuple[int, int]:
        """(input, output) channels at `width`."""
        return (
            self.c_in if self.fixed_in else channels_at(self.c_in, width),
            self.c_out if self.fixed_out else channels_at(self.c_out, width),
        )

    def sliced(self, width: float) -> Tensor:
        """The leading weights at `width`: (C_out, C_in, k, k)."""
        c_in, c_out = self.channels(width)
        return self.weight[:c_out, :c_in]

    def forward(self, x: Tensor, width: float) -> Tensor:
        if self.kernel == 3:
            x = pad_same(x, self.stride)
        x = F.conv2d(x, self.sliced(width), stride=self.stride)
        x = self.norms[width_key(width)](x)
        return F.relu(x) if self.relu else x

    def folded(self, width: float) -> PlainConv:
        """The plain convolution that equals this layer at `width` in evaluation."""
        norm = self.norms[width_key(width)]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps) * (norm.weight if norm.affine else 1.0)
        bias = (norm.bias if norm.affine else 0.0) - norm.running_mean * scale
        weight = self.sliced(width) * scale[:, None, None, None]
        return PlainConv(weight.detach(), bias.detach(), self.stride, self.relu)

    def macs(self, size: int, width: float) -> int:
        """Multiply-accumulates for a square input of `size` at `width`."""
        c_in, c_out = self.channels(width)
        return c_in * c_out * self.kernel**2 * (size // self.stride) ** 2


class SlimLinear(nn.Module):
    """Linear layer on the leading input channels: (N, C_in(width)) -> (N, outputs)."""

    def __init__(self, c_in: int, outputs: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.full = nn.Linear(c_in, outputs)

    def forward(self, x: Tensor, width: float) -> Tensor:
        return F.linear(x, self.full.weight[:, : channels_at(self.c_in, width)], self.full.bias)

    def folded(self, width: float) -> nn.Linear:
        """A plain linear layer that equals this one at `width`."""
        c_in = channels_at(self.c_in, width)
        plain = nn.Linear(c_in, self.full.out_features)
        plain.weight.data.copy_(self.full.weight[:, :c_in])
        plain.bias.data.copy_(self.full.bias)
        return plain
