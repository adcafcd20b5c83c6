"""Slimmable layers: one set of weights, any share of its leading channels. Width is an argument, never state.

A layer sliced to width w uses the leading channels of its weights (nested channels) and a batch norm of its own for
every width, since the statistics of a sliced layer differ (Slimmable Neural Networks, Yu et al. 2019). A layer of an
ensemble has one group of channels a member and width w takes the leading members, each whole: a member does not know
how many others run, so one batch norm serves every width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pooling = Literal["strided", "max", "soft"]
"""Ways to halve a feature map. A pool stands in front of its convolution, which then need not stride: equal FLOPs."""
LARGEST = 20.0
"""Far below where exp overflows; features after a batch norm hardly reach it."""


def pooled(x: Tensor, how: Pooling) -> Tensor:
    """(N, C, H, W) -> (N, C, H/2, W/2): the greatest of each 2x2, or its mean weighted by exp (SoftPool, Stergiou 2021)."""
    if how == "max":
        return F.max_pool2d(x, 2)
    assert how == "soft", how
    weight = x.clamp(max=LARGEST).exp()
    return F.avg_pool2d(x * weight, 2) / F.avg_pool2d(weight, 2)


def channels_at(channels: int, width: float, members: int = 1) -> int:
    """Channels kept at `width`, a multiple of 8 and at least 8 (XNNPACK and NEON work in eights); of members, whole ones."""
    if members > 1:
        return channels // members * round(members * width)
    return min(channels, max(8, round(channels * width / 8) * 8))


def width_key(width: float) -> str:
    """The name of a width in signatures and state: 0.25 -> 'w025', 1.0 -> 'w100'."""
    return f"w{round(width * 100):03d}"


def pad_same(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME padding for a 3x3 kernel on even sizes, which the converter folds into the convolution."""
    return F.pad(x, (0, 1, 0, 1)) if stride == 2 else F.pad(x, (1, 1, 1, 1))


class PlainConv(nn.Module):
    """A convolution with its batch norm folded in: what is exported."""

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: int, relu: bool, groups: int = 1, pooling: Pooling = "strided"
    ) -> None:
        super().__init__()
        c_out, c_in, kernel, _ = weight.shape
        self.conv = nn.Conv2d(c_in * groups, c_out, kernel, stride if pooling == "strided" else 1, groups=groups)
        self.conv.weight.data.copy_(weight)
        assert self.conv.bias is not None
        self.conv.bias.data.copy_(bias)
        self.stride, self.relu, self.pooling = stride, relu, pooling

    def forward(self, x: Tensor) -> Tensor:
        x = before(x, self.conv.kernel_size[0], self.stride, self.pooling)
        x = self.conv(x)
        return F.relu(x) if self.relu else x


def before(x: Tensor, kernel: int, stride: int, pooling: Pooling) -> Tensor:
    """What a convolution is given: pooled where it does not stride itself, and padded where it has 3x3 taps."""
    if stride == 2 and pooling != "strided":
        x, stride = pooled(x, pooling), 1
    return pad_same(x, stride) if kernel == 3 else x


class SlimConv(nn.Module):
    """Convolution, batch norm, optional ReLU: (N, C_in(width), H, W) -> (N, C_out(width), H/stride, W/stride).

    `fixed_in` and `fixed_out` keep all channels on that side: the picture, the bottleneck. `members` > 1 is a layer of
    an ensemble; `depthwise` gives each channel a filter of its own.
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
        members: int = 1,
        depthwise: bool = False,
        pooling: Pooling = "strided",
    ) -> None:
        super().__init__()
        self.c_in, self.c_out, self.kernel, self.stride, self.relu = c_in, c_out, kernel, stride, relu
        self.fixed_in, self.fixed_out, self.members, self.pooling = fixed_in, fixed_out, members, pooling
        self.groups = c_out if depthwise else 1 if fixed_in or fixed_out else members
        self.weight = nn.Parameter(torch.empty(c_out, c_in // self.groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.one_norm = members > 1 and not fixed_out
        normed = widths[-1:] if self.one_norm else widths
        self.norms = nn.ModuleDict({width_key(w): nn.BatchNorm2d(self.channels(w)[1], affine=affine) for w in normed})

    def channels(self, width: float) -> tuple[int, int]:
        """(input, output) channels at `width`."""
        return (
            self.c_in if self.fixed_in else channels_at(self.c_in, width, self.members),
            self.c_out if self.fixed_out else channels_at(self.c_out, width, self.members),
        )

    def _groups_at(self, width: float) -> int:
        return max(1, self.groups * self.channels(width)[1] // self.c_out)

    def sliced(self, width: float) -> Tensor:
        """The leading weights at `width`: (C_out, C_in of a group, k, k)."""
        c_in, c_out = self.channels(width)
        return self.weight[:c_out, : c_in // self._groups_at(width)]

    def norm(self, width: float) -> nn.BatchNorm2d:
        """The batch norm that follows at `width`."""
        norm = next(iter(self.norms.values())) if self.one_norm else self.norms[width_key(width)]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def convolved(self, x: Tensor, width: float) -> Tensor:
        """The convolution's output at `width`, in front of the batch norm."""
        x = before(x, self.kernel, self.stride, self.pooling)
        stride = self.stride if self.pooling == "strided" else 1
        return F.conv2d(x, self.sliced(width), stride=stride, groups=self._groups_at(width))

    def forward(self, x: Tensor, width: float) -> Tensor:
        x = _normalised(self.convolved(x, width), self.norm(width))
        return F.relu(x) if self.relu else x

    def folded(self, width: float) -> PlainConv:
        """The plain convolution that equals this layer at `width` in evaluation."""
        norm, c = self.norm(width), self.channels(width)[1]
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var[:c] + norm.eps) * (norm.weight[:c] if norm.affine else 1.0)
        bias = (norm.bias[:c] if norm.affine else 0.0) - norm.running_mean[:c] * scale
        weight = self.sliced(width) * scale[:, None, None, None]
        return PlainConv(weight.detach(), bias.detach(), self.stride, self.relu, self._groups_at(width), self.pooling)

    def macs(self, size: int, width: float) -> int:
        """Multiply-accumulates for a square input of `size` at `width`."""
        c_in, c_out = self.channels(width)
        return c_in * c_out * self.kernel**2 * (size // self.stride) ** 2 // self._groups_at(width)


def _normalised(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch norm of the leading channels that `x` (N, C, H, W) has; their statistics alone are brought up to date."""
    c = x.shape[1]
    if c == norm.num_features:
        return norm(x)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = (norm.weight[:c], norm.bias[:c]) if norm.affine else (None, None)
    momentum = norm.momentum or 0.0
    return F.batch_norm(x, norm.running_mean[:c], norm.running_var[:c], weight, bias, norm.training, momentum, norm.eps)


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel, then a 1x1 one across them (FD-MobileNet, Qin et al. 2018); as SlimConv."""

    def __init__(
        self, c_in: int, c_out: int, widths: Sequence[float], *, stride: int, members: int, pooling: Pooling
    ) -> None:
        super().__init__()
        self.stride, self.c_out = stride, c_out
        self.depthwise = SlimConv(c_in, c_in, widths, stride=stride, members=members, depthwise=True, pooling=pooling)
        self.pointwise = SlimConv(c_in, c_out, widths, kernel=1, members=members)

    def forward(self, x: Tensor, width: float) -> Tensor:
        return self.pointwise(self.depthwise(x, width), width)

    def folded(self, width: float) -> nn.Sequential:
        """Two plain convolutions that equal this layer at `width`."""
        return nn.Sequential(self.depthwise.folded(width), self.pointwise.folded(width))

    def macs(self, size: int, width: float) -> int:
        """Multiply-accumulates for a square input of `size` at `width`."""
        return self.depthwise.macs(size, width) + self.pointwise.macs(size // self.stride, width)


class SlimLinear(nn.Module):
    """Linear layer on the leading input channels: (N, C_in(width)) -> (N, outputs)."""

    def __init__(self, c_in: int, outputs: int, members: int = 1) -> None:
        super().__init__()
        self.c_in, self.members = c_in, members
        self.full = nn.Linear(c_in, outputs)

    def inputs(self, width: float) -> int:
        """Input channels at `width`."""
        return channels_at(self.c_in, width, self.members)

    def forward(self, x: Tensor, width: float) -> Tensor:
        return F.linear(x, self.full.weight[:, : self.inputs(width)], self.full.bias)

    def folded(self, width: float) -> nn.Linear:
        """A plain linear layer that equals this one at `width`."""
        c_in = self.inputs(width)
        plain = nn.Linear(c_in, self.full.out_features)
        plain.weight.data.copy_(self.full.weight[:, :c_in])
        plain.bias.data.copy_(self.full.bias)
        return plain


@torch.no_grad()
def whiten(conv: SlimConv, pictures: Tensor) -> None:
    """Set the weights (C, 3, k, k) of a network's first convolution to the principal components of the patches of
    `pictures` (N, 3, S, S), and take them out of the training.

    With the batch norm that follows, its outputs are uncorrelated and of equal power, which shortens a training (Jordan,
    94% on CIFAR-10 in 3.29 seconds, 2024). Each component comes with its negative, since a ReLU keeps one side only, and
    the strongest come first, so that a narrow width has what most of a patch consists of. Where the convolution has more
    channels than there are components and negatives, the last ones stay as they are.
    """
    patches = F.unfold(pictures, conv.kernel).permute(0, 2, 1).flatten(0, 1)  # (positions, 3 k k)
    _, components = torch.linalg.eigh(patches.T @ patches / len(patches))  # the weakest first
    strongest = components.flip(1).T
    pairs = torch.stack([strongest, -strongest], 1).flatten(0, 1)[: len(conv.weight)]
    conv.weight[: len(pairs)] = pairs.view(len(pairs), *conv.weight.shape[1:])
    conv.weight.requires_grad_(False)
