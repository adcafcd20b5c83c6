"""A network that begins with a bundle's weights: the bundle is all that a training needs to go on from, or to be tuned to other
pictures.

A bundle has each width's convolutions with their batch norms folded in. Those of the full width are the shared weights;
a narrower one's differ from their leading part by a factor for each output channel only, which its own batch norm gets
back. What the norms' statistics were is measured anew on pictures, so that the network in training is the one in use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models import flatbuffer
from isthmus.models.bundle import Bundle
from isthmus.models.training.backbones import SplitNetwork, Stage
from isthmus.models.training.layers import SlimConv, width_key
from isthmus.proto.errors import BundleError

Layer = tuple[Tensor, Tensor]
"""Weight (C_out, C_in, k, k) or (K, C_in), and bias."""


def warm_start(network: SplitNetwork, bundle: Bundle, pictures: Tensor) -> None:
    """Give `network`, fresh, the weights of `bundle`; its norms are measured on `pictures` (N, 3, S, S).

    Where the classes differ in number, the layers that tell them apart stay as they are; a network of some of the
    bundle's widths begins with those. Raises BundleError when the bundle is of another architecture, or has no float32
    head of sliced widths and ONNX tail of its own.
    """
    arch, manifest = network.arch, bundle.manifest
    if (
        arch.members > 1
        or not set(arch.widths) <= set(manifest.widths)
        or [p.engine for p in manifest.tail] != ["onnx"]
    ):
        raise _other(bundle, f"widths {manifest.widths}, tail {[p.engine for p in manifest.tail]}")
    try:
        _fill_head(network, bundle)
        _fill_tail(network, _tail_layers(bundle.tail_path))
    except (_UnlikeError, StopIteration) as error:
        raise _other(bundle, str(error) or "fewer layers") from error
    _settle(network, pictures)


class _UnlikeError(Exception):
    """A layer that is not what the architecture has in its place."""


def _other(bundle: Bundle, why: str) -> BundleError:
    return BundleError(
        f"{bundle.folder.name}: of another architecture than the recipe ({why}); its training cannot begin there"
    )


def _fill_head(network: SplitNetwork, bundle: Bundle) -> None:
    found = flatbuffer.weights(bundle.head_path)
    last = len(network.head.stages) - 1
    whole = bundle.manifest.widths[-1]
    for width in sorted(
        {whole, *network.arch.widths}, reverse=True
    ):  # the full one first: the others differ from it by factors
        full = width == whole
        for i, stage in enumerate(network.head.stages):
            assert isinstance(stage, Stage)
            layers = iter(found[bundle.stage(i, width).signature])
            for conv in (*stage.convs, stage.exit.conv):
                _take(conv, width, _convolution(next(layers)), full=full)
            weight, bias = _tensors(next(layers))
            if full and len(weight) == network.arch.classes:
                _take_linear(stage.exit.linear.full, weight, bias)
            if i == last:
                _take(network.head.project, width, _convolution(next(layers)), full=full)
            if next(layers, None) is not None:
                raise _UnlikeError("more layers")


def _tensors(layer: tuple[NDArray[np.generic], NDArray[np.generic]]) -> Layer:
    weight, bias = layer
    if weight.dtype != np.float32:
        raise _UnlikeError(f"weights of {weight.dtype}; a quantised head has lost too much")
    return torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())


def _convolution(layer: tuple[NDArray[np.generic], NDArray[np.generic]]) -> Layer:
    weight, bias = _tensors(layer)
    return (weight.permute(0, 3, 1, 2) if weight.ndim == 4 else weight), bias


@torch.no_grad()
def _take(conv: nn.Module, width: float, layer: Layer, *, full: bool) -> None:
    """Set the shared weights where `width` is the full one, and the norm of every width."""
    if not isinstance(conv, SlimConv):
        raise _UnlikeError("separable convolutions")
    weight, bias = layer
    _like(weight, conv.sliced(width))
    if full:
        conv.weight.copy_(weight * (math.sqrt(len(weight)) / weight.norm()))  # the norm that training holds it at
    shared = conv.sliced(width)
    if width_key(width) not in conv.norms:  # the full one, of which a network of narrow widths takes the weights alone
        return
    factor = (weight * shared).flatten(1).sum(1) / shared.square().flatten(1).sum(1).clamp_min(1e-12)
    norm = conv.norm(width)
    if norm.affine:
        _identity(norm, factor, bias)
    else:
        _of(norm.running_mean).copy_(-bias / factor)
        _of(norm.running_var).copy_(factor**-2 - norm.eps)


def _of(buffer: Tensor | None) -> Tensor:
    assert buffer is not None
    return buffer


def _identity(norm: nn.BatchNorm2d, factor: Tensor, bias: Tensor) -> None:
    """Make `norm`, in use, x -> factor x + bias."""
    _of(norm.running_mean).zero_()
    _of(norm.running_var).fill_(1 - norm.eps)
    norm.weight.copy_(factor)
    norm.bias.copy_(bias)


def _like(found: Tensor, own: Tensor) -> None:
    if found.shape != own.shape:
        raise _UnlikeError(f"a layer of {tuple(found.shape)} where the recipe has {tuple(own.shape)}")


@torch.no_grad()
def _take_linear(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    _like(weight, linear.weight)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _tail_layers(path: Path) -> Iterator[Layer]:
    """Convolutions in order, then the linear layer."""
    model = onnx.load(path)
    kept = {t.name.removesuffix("_half"): onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = (torch.from_numpy(kept[name].astype(np.float32)) for name in node.input[1:3])
            yield weight, bias


@torch.no_grad()
def _fill_tail(network: SplitNetwork, layers: Iterator[Layer]) -> None:
    for block in network.tail.blocks:
        assert isinstance(block, nn.Sequential)
        for conv, norm in zip(block, list(block)[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                weight, bias = next(layers)
                _like(weight, conv.weight)
                size = weight.norm() / math.sqrt(len(weight))
                conv.weight.copy_(weight / size)
                _identity(norm, size.expand(len(weight)), bias)
    weight, bias = next(layers)
    if weight.ndim > 2 or next(layers, None) is not None:
        raise _UnlikeError("more layers")
    if len(weight) == network.arch.classes:
        _take_linear(network.tail.linear, weight, bias)


@torch.no_grad()
def _settle(network: SplitNetwork, pictures: Tensor) -> None:
    """Measure what every norm is given, and rewrite it so that it does the same from its statistics."""
    network.eval()
    for width in network.arch.widths:
        x = pictures
        for stage in network.head.stages:
            assert isinstance(stage, Stage)
            for conv, residual in zip(stage.convs, stage.residual, strict=True):
                assert isinstance(conv, SlimConv)
                _measure(conv.norm(width), conv.convolved(x, width))
                y = conv(x, width)
                x = x + y if residual else y
            _measure(stage.exit.conv.norm(width), stage.exit.conv.convolved(x, width))
    x = network.head.project(x, network.arch.widths[-1])
    for block, residual in zip(network.tail.blocks, network.tail.residual, strict=True):
        assert isinstance(block, nn.Sequential)
        y = x
        for layer in block:
            if isinstance(layer, nn.BatchNorm2d):
                _measure(layer, y)
            y = layer(y)
        x = F.relu(x + y) if residual else y


def _measure(norm: nn.BatchNorm2d, x: Tensor) -> None:
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    norm.bias.add_(norm.weight * mean)
    norm.weight.mul_((var + norm.eps).sqrt())
    _of(norm.running_mean).copy_(mean)
    _of(norm.running_var).copy_(var)
