"""What is trained in a teacher's place: a slimmable head of its own, and a decoder that rebuilds the teacher's map.

The student's first convolution takes patches of 4 x 4 pixels, so that most of its work is done at a quarter of the
picture's resolution and below: large pictures are cheap. Tensors are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.backbones import Architecture, Conv, Head, Stage
from isthmus.models.layers import SlimConv
from isthmus.proto.errors import ModelError

PATCH = 4
REDUCTION = 16
"""Picture size over bottleneck size."""
_PROPORTIONS = (3, 6, 8)
"""Channels behind the patches, at an eighth and at a sixteenth of the picture's size, in relation to each other."""


def fitted(input_size: int, classes: int, widths: tuple[float, ...], channels: int, most_flops: float) -> Architecture:
    """The widest student head of at most `most_flops` at width 1.0, exits included. Raises ModelError if none fits."""
    if input_size < 2 * REDUCTION or input_size // PATCH % (REDUCTION // PATCH):
        raise ModelError(f"input: {input_size} pixels; a student takes a multiple of {REDUCTION}, and 32 or more")
    best = None
    for arch in _growing(input_size, classes, widths, channels):
        if 2 * sum(PatchHead(arch).macs(max(widths))) > most_flops:
            break
        best = arch
    if best is None:
        raise ModelError(f"head: none of at most {most_flops / 1e6:.1f} MFLOP for {input_size} pixels; allow it more")
    return best


def _growing(input_size: int, classes: int, widths: tuple[float, ...], channels: int) -> Iterator[Architecture]:
    for eighths in range(2, 64):
        first, second, third = (max(8, 8 * round(p * eighths / 8)) for p in _PROPORTIONS)
        yield Architecture(
            input_size=input_size,
            classes=classes,
            widths=widths,
            stages=(
                (Conv(first, stride=PATCH), Conv(second, stride=2)),
                (Conv(third, stride=2), Conv(third, residual=True)),
            ),
            exit_channels=(first, third),
            bottleneck_channels=channels,
            tail=(),
        )


class PatchHead(Head):
    """A head whose first convolution takes patches: kernel and stride 4, no padding."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        channels = arch.stages[0][0].channels
        stem = SlimConv(3, channels, arch.widths, kernel=PATCH, stride=PATCH, fixed_in=True)
        first = self.stages[0]
        assert isinstance(first, Stage)
        first.convs[0] = stem


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a straight way."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


@dataclass(frozen=True)
class Target:
    """The teacher's tensor at the cut: (C, H, W), and each channel's mean and standard deviation."""

    shape: tuple[int, int, int]
    mean: Tensor
    std: Tensor


class Decoder(nn.Module):
    """Features (N, C_b, S_b, S_b) of any width -> the teacher's map at the cut, as its file has it: (N, H, W, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, arch: Architecture, target: Target, channels: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.Conv2d(arch.bottleneck_channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.blocks = nn.Sequential(*[_Residual(channels) for _ in range(blocks)])
        self.size = target.shape[1:]
        self.finer = _finer(self.size, arch.bottleneck_size)
        self.leave = nn.Conv2d(channels, target.shape[0] * self.finer**2, 1)
        self.register_buffer("mean", target.mean)
        self.register_buffer("std", target.std)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.leave(self.blocks(self.enter(x))), self.finer)
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        out: Tensor = x.float().permute(0, 2, 3, 1)
        return out * self.std + self.mean

    def macs(self, size: int) -> int:
        """Multiply-accumulates for features of `size` x `size`."""
        return size**2 * sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Conv2d))


def _finer(size: tuple[int, int], bottleneck_size: int) -> int:
    """How many times finer than the features a decoder's map is, where that is a whole number; 1 where it is coarser."""
    return max(1, round(min(size) / bottleneck_size))


class Student(nn.Module):
    """Head and decoder together, as they are trained: a split network whose tail ends in the teacher's map."""

    def __init__(self, arch: Architecture, target: Target, channels: int, blocks: int) -> None:
        super().__init__()
        self.arch = arch
        self.head = PatchHead(arch)
        self.tail = Decoder(arch, target, channels, blocks)
