"""The student: a small head in front of a model, a decoder that rebuilds its picture, and two copies of the model.

A student begins as an image codec: the head's straight path takes patches of the picture to their principal components,
and the decoder's straight path takes them back. Its early exit begins as the model itself, which sees the picture reduced:
a narrower width is a smaller picture. Behind the decoder a copy of the model learns to read rebuilt pictures, unless the
model's own file is to do so. Tensors are (N, C, H, W).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.picture_ladder import Input
from isthmus.models.training.backbones import Architecture, Conv
from isthmus.models.training.torch_graph import TorchPart
from isthmus.proto.errors import ModelError

PATCH = 4
"""The side of the patches that the decoder corrects, in pixels."""
REDUCTION = 16
"""The picture's side over the bottleneck's."""
SIDE = 8
"""The side of the patches that the straight path takes first, in pixels; then it joins four of them."""
STRAIGHT = 32
"""The number of principal components kept of each patch."""
GRAIN = 4
"""Sides of reduced pictures are multiples of so many pixels."""


def architecture(input_size: int, classes: int, widths: tuple[float, ...], channels: int) -> Architecture:
    """A student's shapes: one stage. Raises ModelError when pictures of that size do not come out even."""
    if input_size < 2 * REDUCTION or input_size % REDUCTION:
        raise ModelError(f"input: {input_size} pixels; a student takes a multiple of {REDUCTION}, and 32 or more")
    return Architecture(
        input_size=input_size,
        classes=classes,
        widths=widths,
        stages=((Conv(channels, stride=REDUCTION),),),
        exit_channels=(classes,),
        bottleneck_channels=channels,
        tail=(),
    )


def reduced(x: Tensor, side: int) -> Tensor:
    """(N, 3, S, S) -> (N, 3, side, side): the mean of squares as large as divide S, and linear from there."""
    size = x.shape[2]
    square = max(k for k in range(1, size // side + 1) if size % k == 0)
    x = F.avg_pool2d(x, square) if square > 1 else x
    if x.shape[2] == side:
        return x
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def sides(model: TorchPart, size: int, widths: Sequence[float], most_macs: float) -> dict[float, int]:
    """The side of the largest picture for which the model takes at most `width * most_macs`, for each width.

    Raises ModelError when no picture is small enough.
    """
    work = {side: model.macs(side) for side in range(2 * GRAIN, size + 1, GRAIN)}
    found = {}
    for width in widths:
        fitting = [side for side, macs in work.items() if macs <= width * most_macs]
        if not fitting:
            raise ModelError(
                f"head: the model takes {min(work.values()) / 1e6:.2f} million multiplications for the smallest of pictures, "
                f"an exit may take {max(0, width * most_macs) / 1e6:.2f} at width {width}; allow the head more, or fewer widths"
            )
        found[width] = max(fitting)
    return found


class StudentHead(nn.Module):
    """Picture (N, 3, S, S) -> features (N, C_b, S_b, S_b), the same at every width, and the logits of one early exit."""

    def __init__(self, arch: Architecture, model: TorchPart, most_flops: float) -> None:
        """`model` gives logits first; at width 1.0 all of this takes at most `most_flops`. Raises ModelError as `sides`."""
        super().__init__()
        self.arch = arch
        self.patches = nn.Conv2d(3, STRAIGHT, SIDE, SIDE)
        self.joined = nn.Conv2d(STRAIGHT, arch.bottleneck_channels, 2, 2, bias=False)
        self.exit = copy.deepcopy(model).requires_grad_(True)
        self.sides = sides(model, arch.input_size, arch.widths, most_flops / 2 - self._straight_macs())

    def straight(self, x: Tensor) -> Tensor:
        """The features (N, C_b, S_b, S_b) of pictures (N, 3, S, S)."""
        features: Tensor = self.joined(self.patches(x))
        return features

    def logits(self, x: Tensor, width: float) -> Tensor:
        """The early exit's logits (N, K), from the picture reduced to the width's side."""
        found: Tensor = self.exit(reduced(x, self.sides[width]))[0]
        return found.flatten(1)

    def forward(self, x: Tensor, width: float) -> tuple[Tensor, list[Tensor]]:
        return self.straight(x), [self.logits(x, width)]

    def plain_stage(self, index: int, width: float) -> nn.Module:
        """The one stage at `width` as it is exported."""
        assert index == 0
        return _PlainHead(self, width).eval()

    def macs(self, width: float) -> list[int]:
        """The multiply-accumulates of the one stage."""
        return [self._straight_macs() + self.exit.macs(self.sides[width])]

    def _straight_macs(self) -> int:
        places = self.arch.input_size // SIDE
        return places**2 * self.patches.weight.numel() + (places // 2) ** 2 * self.joined.weight.numel()


class _PlainHead(nn.Module):
    """The head's one stage at one width as it is exported: NHWC in and out."""

    def __init__(self, head: StudentHead, width: float) -> None:
        super().__init__()
        self.head, self.width = head, width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features, (logits,) = self.head(x.permute(0, 3, 1, 2), self.width)
        return {"features": features.permute(0, 2, 3, 1), "logits": logits}


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

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


class PictureDecoder(nn.Module):
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


class Reader(nn.Module):
    """What a server runs whose model has been tuned: features -> logits (N, K)."""

    def __init__(self, decoder: PictureDecoder, model: TorchPart) -> None:
        super().__init__()
        self.decoder, self.model = decoder, model

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.model(self.decoder(features).permute(0, 3, 1, 2))[0]
        return logits.flatten(1)

    def macs(self, size: int) -> int:
        """Multiply-accumulates for features of `size` x `size`."""
        return self.decoder.macs(size) + self.model.macs(size * REDUCTION)


class Student(nn.Module):
    """Head, decoder and the model behind it together, as they are trained."""

    def __init__(self, head: StudentHead, decoder: PictureDecoder, model: TorchPart, *, tuned: bool) -> None:
        """`model` learns too if it is `tuned`; else it only teaches, and the server runs the file that it was read from."""
        super().__init__()
        self.arch, self.head, self.decoder = head.arch, head, decoder
        self.model = copy.deepcopy(model).requires_grad_(tuned)
        self.tuned = tuned

    @property
    def tail(self) -> PictureDecoder | Reader:
        """The server's half, or what stands in front of the model's own file."""
        return Reader(self.decoder, self.model) if self.tuned else self.decoder

    @property
    def straight(self) -> list[nn.Parameter]:
        """The weights that begin as a transform, and those of what is added to the picture: small steps change the answers."""
        modules = (self.head.patches, self.head.joined, self.decoder.straight, self.decoder.leave)
        return [p for module in modules for p in module.parameters()]

    @torch.no_grad()
    def begin(self, images: NDArray[np.uint8], picture: Input) -> None:
        """Set the straight paths to the principal components of `images` (N, S, S, 3); features are in their 0..1."""
        pixels = images.astype(np.float32) / 255
        mean = pixels.mean((0, 1, 2))
        first = _components(_blocks(pixels - mean, SIDE), STRAIGHT)  # (8 * 8 * 3, 32)
        small = _blocks(pixels - mean, SIDE) @ first
        second = _components(_blocks(small, 2), self.arch.bottleneck_channels)  # (2 * 2 * 32, C_b)
        std, offset = np.array(picture.std, np.float32), np.array(picture.mean, np.float32)
        down = first.reshape(SIDE, SIDE, 3, STRAIGHT)
        together = second.reshape(2, 2, STRAIGHT, -1)
        whole = np.einsum("abks,yxcs->kaybxc", together.transpose(0, 1, 3, 2), down)
        back = whole.reshape(-1, REDUCTION, REDUCTION, 3) / std  # (C_b, 16, 16, 3)
        assert self.head.patches.bias is not None
        assert self.decoder.straight.bias is not None
        _set(self.head.patches.weight, (down * std[:, None]).transpose(3, 2, 0, 1))
        _set(self.head.patches.bias, np.einsum("yxcs,c->s", down, offset - mean))
        _set(self.head.joined.weight, together.transpose(3, 2, 0, 1))
        _set(self.decoder.straight.weight, back.transpose(0, 3, 1, 2))
        _set(self.decoder.straight.bias, (mean - offset) / std)


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
