"""The network in two halves: a slimmable head in stages, each with an early exit, and one tail for every width.

Every stage starts with its convolutions and ends in an early exit; the last stage also projects to the bottleneck.
A head is slimmed in one of two ways: its layers are sliced, or it is an ensemble of narrow members of which a width takes
the leading ones. An ensemble is a sliced head whose convolutions are grouped, one group a member, and whose projection
adds up what the members give, or keeps them side by side. Tensors are (N, C, H, W) here; the exported graphs are NHWC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.training.layers import PlainConv, Pooling, SeparableConv, SlimConv, SlimLinear
from isthmus.proto.errors import ConfigError


@dataclass(frozen=True)
class Conv:
    """One 3x3 convolution of a trunk; `residual` adds its input (needs stride 1 and equal channels).

    `separable` splits it into a depthwise and a 1x1 convolution; heads only, and not the first one.
    """

    channels: int
    stride: int = 1
    residual: bool = False
    separable: bool = False


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the shapes of a split network. Channels of an ensemble's head are of all members together."""

    input_size: int
    classes: int
    widths: tuple[float, ...]
    stages: tuple[tuple[Conv, ...], ...]
    exit_channels: tuple[int, ...]
    bottleneck_channels: int
    tail: tuple[Conv, ...]
    pooling: Pooling = "strided"
    """The way in which the head's trunk halves its maps."""
    members: int = 1
    """More than one: the head is an ensemble of so many (Slimmable Encoders), and widths are multiples of 1 / members."""
    joining: Literal["sum", "concatenation"] = "sum"
    """What an ensemble's projection does with its members' features."""

    def __post_init__(self) -> None:
        """Raises ConfigError when an ensemble's channels or widths do not come out even."""
        if self.members == 1:
            return
        channels = [conv.channels for stage in self.stages for conv in stage] + list(self.exit_channels)
        channels += [self.bottleneck_channels] if self.joining == "concatenation" else []
        if uneven := [c for c in channels if c % self.members]:
            raise ConfigError(f"members: {uneven[0]} channels cannot be shared out to {self.members} members")
        if broken := [w for w in self.widths if abs(w * self.members - round(w * self.members)) > 1e-6 or not w]:
            raise ConfigError(f"widths: {broken[0]:g} is no whole number of {self.members} members")

    @property
    def bottleneck_size(self) -> int:
        """The height and width of the bottleneck."""
        size = self.input_size
        for stage in self.stages:
            for conv in stage:
                size //= conv.stride
        return size


class Exit(nn.Module):
    """An early exit: a strided convolution, global average, linear: (N, C, H, W) -> (N, classes)."""

    def __init__(self, c_in: int, channels: int, classes: int, widths: Sequence[float], members: int = 1) -> None:
        super().__init__()
        self.conv = SlimConv(c_in, channels, widths, stride=2, members=members)
        self.linear = SlimLinear(channels, classes, members)

    def forward(self, x: Tensor, width: float) -> Tensor:
        return self.linear(self.conv(x, width).mean((2, 3)), width)


class Stage(nn.Module):
    """A run of slimmable convolutions, then an early exit."""

    def __init__(self, c_in: int, spec: tuple[Conv, ...], exit_channels: int, arch: Architecture, first: bool) -> None:
        super().__init__()
        convs = []
        for i, conv in enumerate(spec):
            convs.append(_slim(c_in, conv, arch, fixed_in=first and i == 0))
            c_in = conv.channels
        self.convs = nn.ModuleList(convs)
        self.residual = [conv.residual for conv in spec]
        self.c_out = c_in
        self.exit = Exit(c_in, exit_channels, arch.classes, arch.widths, arch.members)

    def forward(self, x: Tensor, width: float) -> Tensor:
        for conv, residual in zip(self.convs, self.residual, strict=True):
            y = conv(x, width)
            x = x + y if residual else y
        return x


def _slim(c_in: int, conv: Conv, arch: Architecture, *, fixed_in: bool) -> SlimConv | SeparableConv:
    stride, members, pooling = conv.stride, arch.members, arch.pooling
    if conv.separable:
        return SeparableConv(c_in, conv.channels, arch.widths, stride=stride, members=members, pooling=pooling)
    return SlimConv(
        c_in, conv.channels, arch.widths, stride=stride, fixed_in=fixed_in, members=members, pooling=pooling
    )


class PlainStage(nn.Module):
    """One stage at one width with its batch norms folded, NHWC in and out: the graph that is exported.

    `image_or_hidden` (1, H, W, C) -> hidden (1, H', W', C') for the next stage, or features for the last; and logits.
    """

    def __init__(self, stage: Stage, project: SlimConv | None, width: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList([c.folded(width) for c in stage.convs if isinstance(c, SlimConv | SeparableConv)])
        self.residual = stage.residual
        self.exit_conv: PlainConv = stage.exit.conv.folded(width)
        self.exit_linear: nn.Linear = stage.exit.linear.folded(width)
        self.project = project.folded(width) if project is not None else None
        self.channels = project.c_out if project is not None else 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.permute(0, 3, 1, 2)
        for conv, residual in zip(self.convs, self.residual, strict=True):
            y = conv(x)
            x = x + y if residual else y
        logits = self.exit_linear(self.exit_conv(x).mean((2, 3)))
        if self.project is None:
            return {"hidden": x.permute(0, 2, 3, 1), "logits": logits}
        return {"features": padded(self.project(x), self.channels).permute(0, 2, 3, 1), "logits": logits}


def padded(features: Tensor, channels: int) -> Tensor:
    """(N, C, H, W) -> (N, channels, H, W): zeros, the features' mean, in the place of members that did not run."""
    missing = channels - features.shape[1]
    return F.pad(features, (0, 0, 0, 0, 0, missing)) if missing else features


class Head(nn.Module):
    """The device's half: picture (N, 3, S, S) -> features (N, C_b, S_b, S_b) and one logits tensor per exit.

    The projection ends in a batch norm without scale, one per width, so that the features of every width have mean 0
    and variance 1: one quantiser and one tail serve them all.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        stages, c_in = [], 3
        for i, (spec, exit_channels) in enumerate(zip(arch.stages, arch.exit_channels, strict=True)):
            stages.append(Stage(c_in, spec, exit_channels, arch, first=i == 0))
            c_in = spec[-1].channels
        self.stages = nn.ModuleList(stages)
        self.project = SlimConv(
            c_in,
            arch.bottleneck_channels,
            arch.widths,
            kernel=1,
            relu=False,
            fixed_out=arch.joining == "sum",
            affine=False,
            members=arch.members,
        )

    def forward(self, x: Tensor, width: float) -> tuple[Tensor, list[Tensor]]:
        exits = []
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = stage(x, width)
            exits.append(stage.exit(x, width))
        return padded(self.project(x, width), self.arch.bottleneck_channels), exits

    @property
    def first(self) -> SlimConv:
        """The convolution that sees the picture."""
        stage = self.stages[0]
        assert isinstance(stage, Stage)
        conv = stage.convs[0]
        assert isinstance(conv, SlimConv)
        return conv

    def plain_stage(self, index: int, width: float) -> nn.Module:
        """Stage `index` at `width` as an exportable graph."""
        stage = self.stages[index]
        assert isinstance(stage, Stage)
        return PlainStage(stage, self.project if index == len(self.stages) - 1 else None, width).eval()

    def macs(self, width: float) -> list[int]:
        """Multiply-accumulates of each stage at `width`, its exit included and the projection in the last."""
        counts, size = [], self.arch.input_size
        for stage in self.stages:
            assert isinstance(stage, Stage)
            total = 0
            for conv in stage.convs:
                assert isinstance(conv, SlimConv | SeparableConv)
                total += conv.macs(size, width)
                size //= conv.stride
            total += stage.exit.conv.macs(size, width)
            total += stage.exit.linear.inputs(width) * self.arch.classes
            counts.append(total)
        counts[-1] += self.project.macs(size, width)
        return counts


def _block(c_in: int, conv: Conv) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, conv.channels, 3, conv.stride, 1, bias=False),
        nn.BatchNorm2d(conv.channels),
        nn.ReLU(),
    ]
    if conv.residual:
        layers += [nn.Conv2d(conv.channels, conv.channels, 3, 1, 1, bias=False), nn.BatchNorm2d(conv.channels)]
    return nn.Sequential(*layers)


class Tail(nn.Module):
    """The server's half: features (N, C_b, S_b, S_b) of any width -> logits (N, classes)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        blocks, c_in = [], arch.bottleneck_channels
        for conv in arch.tail:
            blocks.append(_block(c_in, conv))
            c_in = conv.channels
        self.blocks = nn.ModuleList(blocks)
        self.residual = [conv.residual for conv in arch.tail]
        self.linear = nn.Linear(c_in, arch.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.maps(x)[-1])

    def maps(self, x: Tensor) -> list[Tensor]:
        """The map (N, C_i, S_i, S_i) that each block gives."""
        maps = []
        for block, residual in zip(self.blocks, self.residual, strict=True):
            y = block(x)
            x = F.relu(x + y) if residual else y
            maps.append(x)
        return maps

    def answer(self, last: Tensor) -> Tensor:
        """Logits (N, classes) of the last block's map."""
        logits: Tensor = self.linear(last.mean((2, 3)))
        return logits

    def macs(self, size: int) -> int:
        """Multiply-accumulates for features of `size` x `size`."""
        total = 0
        for block in self.blocks:
            assert isinstance(block, nn.Sequential)
            for layer in block:
                if isinstance(layer, nn.Conv2d):
                    size //= layer.stride[0]
                    total += layer.in_channels * layer.out_channels * 9 * size**2
        return total + self.linear.in_features * self.linear.out_features


class Network(Protocol):
    """A split network in torch: what evaluation and export ask of one."""

    @property
    def arch(self) -> Architecture:
        """The network's shapes."""

    @property
    def head(self) -> HeadModule:
        """The device's half."""

    @property
    def tail(self) -> TailModule:
        """The server's half, or the first part of it."""


class HeadModule(Protocol):
    """The interface of a head in torch."""

    def __call__(self, x: Tensor, width: float) -> tuple[Tensor, list[Tensor]]:
        """Picture (N, 3, S, S) -> features (N, C_b, S_b, S_b), and the logits of every exit."""

    def plain_stage(self, index: int, width: float) -> nn.Module:
        """A stage at one width as an exportable graph, NHWC."""

    def macs(self, width: float) -> list[int]:
        """Multiply-accumulates of each stage at `width`."""

    def eval(self) -> nn.Module:
        """Switch batch norms from batches' statistics to the running ones."""


class TailModule(Protocol):
    """The interface of a tail in torch."""

    def __call__(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) of any width -> logits, or a map for the next part of the tail; the batch first."""

    def eval(self) -> nn.Module:
        """Switch batch norms from batches' statistics to the running ones."""

    def macs(self, size: int) -> int:
        """Multiply-accumulates for features of `size` x `size`."""


class SplitNetwork(nn.Module):
    """Head and tail together, as they are trained."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.head = Head(arch)
        self.tail = Tail(arch)

    @torch.no_grad()
    def answer(self, x: Tensor, width: float) -> Tensor:
        """The logits (N, K) without a quantiser: the accuracy that the bottleneck alone leaves."""
        features, _ = self.head(x, width)
        logits: Tensor = self.tail(features)
        return logits
