"""What is trained in front of a teacher: a slimmable head of its own, and a decoder that rebuilds the teacher's picture.

A student begins as an image codec. Beside the slimmable trunk a straight path takes patches of the picture to their
principal components, and the decoder's straight path takes them back; all else begins at zero. So it never answers
worse than the transform, and training only adds to it. Tensors are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.backbones import Architecture, Conv, Head, Stage
from isthmus.models.bundle import Input
from isthmus.models.layers import SlimConv
from isthmus.proto.errors import ModelError

PATCH = 4
REDUCTION = 16
"""Picture size over bottleneck size."""
SIDE = 8
"""Of the patches that the straight path sees in the first stage; the last stage joins four of them."""
STRAIGHT = 32
"""Components of each."""
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
    """A head whose first convolution takes patches, and whose features are those of a straight path and what its trunk adds.

    The straight path is the same at every width. What it gives in the first stage travels behind the trunk's channels
    to the last.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        channels = arch.stages[0][0].channels
        stem = SlimConv(3, channels, arch.widths, kernel=PATCH, stride=PATCH, fixed_in=True)
        first = self.stages[0]
        assert isinstance(first, Stage)
        first.convs[0] = stem
        self.patches = nn.Conv2d(3, STRAIGHT, SIDE, SIDE)
        self.joined = nn.Conv2d(STRAIGHT, arch.bottleneck_channels, 2, 2, bias=False)
        third = arch.stages[-1][-1].channels
        self.project = SlimConv(third, arch.bottleneck_channels, arch.widths, kernel=1, relu=False, fixed_out=True)
        for norm in self.project.norms.values():
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor, width: float) -> tuple[Tensor, list[Tensor]]:
        added, exits = super().forward(x, width)
        return self.joined(self.patches(x)) + added, exits

    def plain_stage(self, index: int, width: float) -> nn.Module:
        """See `Head`."""
        plain = super().plain_stage(index, width)
        return (_Last(plain, self.joined) if index else _First(plain, self.patches)).eval()

    def macs(self, width: float) -> list[int]:
        """See `Head`."""
        counts, places = super().macs(width), self.arch.input_size // SIDE
        counts[0] += places**2 * self.patches.weight.numel()
        counts[-1] += (places // 2) ** 2 * self.joined.weight.numel()
        return counts


class _First(nn.Module):
    """The first stage as it is exported: its hidden channels, and the straight path's behind them."""

    def __init__(self, plain: nn.Module, patches: nn.Conv2d) -> None:
        super().__init__()
        self.plain, self.patches = plain, patches

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.plain(x)
        straight = self.patches(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return {"hidden": torch.cat((out["hidden"], straight), 3), "logits": out["logits"]}


class _Last(nn.Module):
    """The last stage as it is exported."""

    def __init__(self, plain: nn.Module, joined: nn.Conv2d) -> None:
        super().__init__()
        self.plain, self.joined = plain, joined

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.plain(x[..., :-STRAIGHT])
        straight = self.joined(x[..., -STRAIGHT:].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return {"features": straight + out["features"], "logits": out["logits"]}


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


class Decoder(nn.Module):
    """Features (N, C_b, S_b, S_b) of any width -> the picture as the teacher's file takes it: (N, H, W, 3).

    The straight path's picture is corrected by what the features say of each patch, and by what a quarter of the
    picture's resolution shows of the borders between patches.
    """

    low: Tensor
    high: Tensor

    def __init__(self, arch: Architecture, picture: Input, channels: int, finer: int, blocks: int) -> None:
        super().__init__()
        self.straight = nn.ConvTranspose2d(arch.bottleneck_channels, 3, REDUCTION, REDUCTION)
        self.enter = nn.Sequential(
            nn.Conv2d(arch.bottleneck_channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.coarse = nn.Sequential(*[_Residual(channels) for _ in range(blocks)])
        self.spread = nn.Conv2d(channels, finer * (REDUCTION // PATCH) ** 2, 1)
        self.seen = nn.Conv2d(3, finer, PATCH, PATCH)
        self.fine = nn.Sequential(*[_Residual(finer) for _ in range(blocks)])
        self.leave = nn.Conv2d(finer, 3 * PATCH**2, 1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)
        mean, std = (torch.tensor(v)[:, None, None] for v in (picture.mean, picture.std))
        self.register_buffer("low", (0.0 - mean) / std)
        self.register_buffer("high", (1.0 - mean) / std)

    def forward(self, x: Tensor) -> Tensor:
        picture = self.straight(x)
        fine = F.pixel_shuffle(self.spread(self.coarse(self.enter(x))), REDUCTION // PATCH)
        fine = self.fine(F.relu(fine + self.seen(picture)))
        picture = picture + F.pixel_shuffle(self.leave(fine), PATCH)
        out: Tensor = torch.minimum(torch.maximum(picture.float(), self.low), self.high).permute(0, 2, 3, 1)
        return out

    def macs(self, size: int) -> int:
        """Multiply-accumulates for features of `size` x `size`."""
        coarse = [*self.enter.modules(), *self.coarse.modules(), self.spread, self.straight]
        fine = [*self.fine.modules(), self.seen, self.leave]
        finely = size * REDUCTION // PATCH
        return sum(
            places**2 * sum(m.weight.numel() for m in modules if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
            for places, modules in ((size, coarse), (finely, fine))
        )


class Student(nn.Module):
    """Head and decoder together, as they are trained: a split network whose tail ends in the teacher's picture."""

    def __init__(self, arch: Architecture, picture: Input, channels: int, finer: int, blocks: int) -> None:
        super().__init__()
        self.arch, self.picture = arch, picture
        self.head = PatchHead(arch)
        self.tail = Decoder(arch, picture, channels, finer, blocks)

    @property
    def straight(self) -> list[nn.Parameter]:
        """What begins as a transform, and what is added to the picture: small steps already change the answers."""
        modules = (self.head.patches, self.head.joined, self.tail.straight, self.tail.leave)
        return [p for module in modules for p in module.parameters()]

    @torch.no_grad()
    def begin(self, images: NDArray[np.uint8]) -> None:
        """Set the straight paths to the principal components of `images` (N, S, S, 3); features are in their 0..1."""
        pixels = images.astype(np.float32) / 255
        mean = pixels.mean((0, 1, 2))
        first = _components(_blocks(pixels - mean, SIDE), STRAIGHT)  # (8 * 8 * 3, 32)
        small = _blocks(pixels - mean, SIDE) @ first
        second = _components(_blocks(small, 2), self.arch.bottleneck_channels)  # (2 * 2 * 32, C_b)
        std, offset = np.array(self.picture.std, np.float32), np.array(self.picture.mean, np.float32)
        down = first.reshape(SIDE, SIDE, 3, STRAIGHT)
        together = second.reshape(2, 2, STRAIGHT, -1)
        whole = np.einsum("abks,yxcs->kaybxc", together.transpose(0, 1, 3, 2), down)
        back = whole.reshape(-1, REDUCTION, REDUCTION, 3) / std  # (C_b, 16, 16, 3)
        assert self.head.patches.bias is not None
        assert self.tail.straight.bias is not None
        _set(self.head.patches.weight, (down * std[:, None]).transpose(3, 2, 0, 1))
        _set(self.head.patches.bias, np.einsum("yxcs,c->s", down, offset - mean))
        _set(self.head.joined.weight, together.transpose(3, 2, 0, 1))
        _set(self.tail.straight.weight, back.transpose(0, 3, 1, 2))
        _set(self.tail.straight.bias, (mean - offset) / std)


def _blocks(maps: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(N, H, W, C) -> (N, H / side, W / side, side * side * C)."""
    n, height, width, channels = maps.shape
    parted = maps.reshape(n, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return parted.reshape(n, height // side, width // side, -1)


def _components(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The directions (D, count) in which `vectors` (..., D) are largest, orthonormal; zeros where D is less."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    _, directions = np.linalg.eigh(flat.T @ flat)
    found: NDArray[np.float32] = directions[:, ::-1][:, :count].astype(np.float32)
    return np.pad(found, ((0, 0), (0, count - found.shape[1])))


def _set(parameter: Tensor, value: NDArray[np.float32]) -> None:
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))
