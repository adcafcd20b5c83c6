"""A detector in two halves: a slimmable head with an early exit that gives boxes, and one small tail for every width.

Both halves give a map of 8-pixel cells: class logits, then the box's centre and the logarithm of its size, in cells. Only
the tail sees context at 16 pixels, and only for the box: objects are a few pixels large, and what a class branch learns of
wide surroundings is the training's scenes. The tail's class logits are the mean of two branches: a wide one, and one as
small as the exit, which knows less and generalises better; the mean is better than either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.training.layers import PlainConv, SeparableConv, SlimConv

CELL = 8
"""Pixels between the cells of both halves' maps."""
BOX = 4
"""Values of a cell behind its class logits: x, y, log w, log h."""
RARE = -4.0
"""The class logits' first bias: nearly every cell is empty (Lin et al. 2017)."""


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the shapes of a detector in two halves. Height and width are multiples of 16."""

    height: int = 256
    width: int = 320
    classes: int = 4
    widths: tuple[float, ...] = (0.5, 0.75, 1.0)
    channels: tuple[int, int, int] = (16, 32, 64)
    """Of the head's maps at 2, 4 and 8 pixels a cell."""
    exit_blocks: int = 2
    bottleneck: int = 12
    tail: tuple[int, int] = (40, 64)
    """Of the tail's maps at 8 and 16 pixels a cell."""
    small: int = 32
    """Of the tail's small class branch."""

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of both halves' maps."""
        return self.height // CELL, self.width // CELL

    @property
    def outputs(self) -> int:
        """Values of a cell."""
        return self.classes + BOX


class SlimHead(nn.Module):
    """A 1x1 convolution on the leading channels, all outputs and a bias: (N, C(width), h, w) -> (N, K + 4, h, w)."""

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.full = nn.Conv2d(c_in, classes + BOX, 1)
        nn.init.normal_(self.full.weight, std=0.01)
        with torch.no_grad():
            bias = _bias(self.full)
            bias.zero_()
            bias[:classes] = RARE

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.full.weight[:, : x.shape[1]], self.full.bias)

    def folded(self, c_in: int) -> PlainConv:
        """A plain convolution that equals this one on `c_in` channels."""
        return PlainConv(self.full.weight[:, :c_in].detach(), _bias(self.full).detach(), 1, relu=False)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


class Head(nn.Module):
    """The device's half: normalised pictures (N, 3, H, W) -> what crosses (N, C, h, w), and the exit's map."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        widths, (a, b, c) = arch.widths, arch.channels
        self.trunk = nn.ModuleList(
            [
                SlimConv(3, a, widths, stride=2, fixed_in=True),
                SlimConv(a, b, widths, stride=2),
                _separable(b, c, widths, stride=2),
                _separable(c, c, widths),
                _separable(c, c, widths),
            ]
        )
        self.residual = (False, False, False, True, True)
        self.project = SlimConv(c, arch.bottleneck, widths, kernel=1, relu=False, fixed_out=True)
        self.exit = nn.ModuleList([_separable(c, c, widths) for _ in range(arch.exit_blocks)])
        self.answer = SlimHead(c, arch.classes)

    def forward(self, x: Tensor, width: float) -> tuple[Tensor, Tensor]:
        for layer, residual in zip(self.trunk, self.residual, strict=True):
            y = layer(x, width)
            x = x + y if residual else y
        features = self.project(x, width)
        for layer in self.exit:
            x = layer(x, width)
        return features, self.answer(x)

    def macs(self, arch: Architecture, width: float) -> int:
        """Multiply-accumulates of trunk, projection and exit for one picture."""
        total, area, channels = 0, arch.height * arch.width, 3
        for layer in (*self.trunk, self.project, *self.exit):
            assert isinstance(layer, SlimConv | SeparableConv)
            for conv in (layer,) if isinstance(layer, SlimConv) else (layer.depthwise, layer.pointwise):
                area //= conv.stride**2
                c_in, c_out = conv.channels(width)
                total += area * conv.kernel**2 * (c_out if conv.groups > 1 else c_in * c_out)
                channels = c_out if layer is not self.project else channels
        return total + area * channels * self.answer.full.out_channels


def _separable(c_in: int, c_out: int, widths: tuple[float, ...], stride: int = 1) -> SeparableConv:
    return SeparableConv(c_in, c_out, widths, stride=stride, members=1, pooling="strided")


class PlainHead(nn.Module):
    """A head at one width with its batch norms folded: (1, H, W, 3) -> features and the exit's map, NHWC in and out."""

    def __init__(self, head: Head, width: float) -> None:
        super().__init__()
        self.trunk = nn.ModuleList([_folded(layer, width) for layer in head.trunk])
        self.residual = head.residual
        self.project = head.project.folded(width)
        self.exit = nn.ModuleList([_folded(layer, width) for layer in head.exit])
        last = head.exit[-1]
        assert isinstance(last, SeparableConv)
        self.answer = head.answer.folded(last.pointwise.channels(width)[1])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = image.permute(0, 3, 1, 2)
        for layer, residual in zip(self.trunk, self.residual, strict=True):
            y = layer(x)
            x = x + y if residual else y
        features = self.project(x)
        for layer in self.exit:
            x = layer(x)
        return {"features": features.permute(0, 2, 3, 1), "boxes": self.answer(x).permute(0, 2, 3, 1)}


def _folded(layer: nn.Module, width: float) -> nn.Module:
    assert isinstance(layer, SlimConv | SeparableConv)
    return layer.folded(width)


class Tail(nn.Module):
    """The server's half: what crossed (N, C, h, w) -> two maps (N, K + 4, h, w), of the wide and of the small branch."""

    def __init__(self, arch: Architecture, dropout: float = 0.1) -> None:
        super().__init__()
        near, far = arch.tail
        self.enter = _conv(arch.bottleneck, near)
        self.near = _Residual(near)
        self.down = _conv(near, far, stride=2)
        self.far = nn.Sequential(_Residual(far), _Residual(far))
        self.up = nn.Conv2d(far, near, 1)
        self.place = nn.Sequential(_conv(near, near), nn.Conv2d(near, BOX, 1))
        self.drop = nn.Dropout2d(dropout)
        last = nn.Conv2d(near, arch.classes, 1)
        self.name = nn.Sequential(_conv(near, near), last)
        self.small = nn.Sequential(_conv(arch.bottleneck, arch.small), _depthwise(arch.small), _depthwise(arch.small))
        self.small_answer = SlimHead(arch.small, arch.classes)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(_bias(last), RARE)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.widely(features), self.briefly(features)

    def widely(self, features: Tensor) -> Tensor:
        """The wide branch's map."""
        x = self.near(self.enter(features))
        context = self.up(self.far(self.down(x)))
        place = self.place(x + F.interpolate(context, scale_factor=2.0, mode="nearest"))
        return torch.cat([self.name(self.drop(x)), place], 1)

    def briefly(self, features: Tensor) -> Tensor:
        """The small branch's map."""
        return self.small_answer(self.drop(self.small(features)))

    def macs(self, arch: Architecture) -> int:
        """Multiply-accumulates for one frame."""
        near = arch.cells[0] * arch.cells[1]
        far = {*self.down.modules(), *self.far.modules(), self.up}
        total = 0
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                total += module.weight.numel() * (near // 4 if module in far else near)
        return total


def fused(wide: Tensor, small: Tensor) -> Tensor:
    """The server's answer of both branches: the mean of their class logits, the wide one's box."""
    k = wide.shape[1] - BOX
    return torch.cat([(wide[:, :k] + small[:, :k]) / 2, wide[:, k:]], 1)


def _conv(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


def _depthwise(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Detector(nn.Module):
    """Both halves, and the scale of each channel's density, which prices what crosses."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.head, self.tail = Head(arch), Tail(arch)
        self.log_scale = nn.Parameter(torch.zeros(len(arch.widths), arch.bottleneck))

    def bits(self, features: Tensor, step: Tensor, width: float, noise: Tensor) -> Tensor:
        """The bits (N,) of each frame's features (N, C, h, w), with `noise` of one step in the place of rounding.

        The density of each channel is a logistic about zero (Ballé et al. 2018 have a learned one); zero is what the codec
        writes as runs.
        """
        x = features / step + noise
        scale = self.log_scale[self.arch.widths.index(width)].exp()[None, :, None, None] / step
        mass = torch.sigmoid((x.abs() + 0.5) / scale) - torch.sigmoid((x.abs() - 0.5) / scale)
        return -torch.log2(mass.clamp_min(1e-6)).sum((1, 2, 3))
