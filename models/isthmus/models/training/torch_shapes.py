"""Operators of a `.tflite` graph that move values and compute none, for `torch_graph`.

Maps are held as (N, C, H, W) where the file has (N, H, W, C); tensors of another rank are held as the file has them. A
batch may be of any size, whatever the file's is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from isthmus.models.flatbuffer import Graph
from isthmus.proto.errors import ModelError

Constant = Callable[[Graph, int], NDArray[Any]]
"""Gives the values of a constant by its number."""
HELD = (0, 2, 3, 1)
"""Where each axis of a map is held."""


def as_stored(x: Tensor) -> Tensor:
    """The tensor (N, C, H, W) as the file has it: (N, H, W, C)."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def as_held(x: Tensor) -> Tensor:
    """The tensor (N, H, W, C) of the file as it is held here: (N, C, H, W)."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def axis_of(graph: Graph, tensor: int, axis: int) -> int:
    """Where an axis of the file's tensor is held."""
    rank = len(graph.tensors[tensor].shape)
    return HELD[axis % rank] if rank == 4 else axis % rank


def concatenation(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """CONCATENATION."""
    axis = axis_of(graph, inputs[0], options.axis)
    return lambda *x: torch.cat(x, axis)


def slice_(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """SLICE, of anything but the batch."""
    begin, size = (constant(graph, i).ravel().tolist() for i in inputs[1:3])
    shape = graph.tensors[inputs[0]].shape
    parts = [(b, whole if s < 0 else b + s, 1) for b, s, whole in zip(begin, size, shape, strict=True)]
    return _sliced(graph, inputs[0], parts)


def strided_slice(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """STRIDED_SLICE that keeps its axes. Raises ModelError for another."""
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
        raise ModelError(f"{graph.path}: a STRIDED_SLICE that adds or drops axes has no gradient here")
    begin, end, stride = (constant(graph, i).ravel().tolist() for i in inputs[1:4])
    parts = []
    for axis, whole in enumerate(graph.tensors[inputs[0]].shape):
        first = 0 if options.beginMask >> axis & 1 else begin[axis] % (whole + (begin[axis] == whole))
        last = whole if options.endMask >> axis & 1 else min(whole, end[axis] + whole * (end[axis] < 0))
        if stride[axis] < 1:
            raise ModelError(f"{graph.path}: a STRIDED_SLICE that turns an axis round has no gradient here")
        parts.append((first, last, stride[axis]))
    return _sliced(graph, inputs[0], parts)


def _sliced(graph: Graph, tensor: int, parts: Sequence[tuple[int, int, int]]) -> Callable[..., Tensor]:
    at = [slice(None)] * len(parts)
    for axis, (first, last, stride) in enumerate(parts[1:], 1):
        if (first, last, stride) != (0, graph.tensors[tensor].shape[axis], 1):
            at[axis_of(graph, tensor, axis)] = slice(first, last, stride)
    key = tuple(at)
    return lambda x: x[key]


def pad(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """PAD of a map's height and width. Raises ModelError for another."""
    around = constant(graph, inputs[1]).tolist()
    if len(around) != 4 or any(map(any, (around[0], around[3]))):
        raise ModelError(f"{graph.path}: a PAD of more than height and width has no gradient here")
    (top, bottom), (left, right) = around[1:3]
    return lambda x: F.pad(x, (left, right, top, bottom))


def nearest(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """RESIZE_NEAREST_NEIGHBOR by a whole number. Raises ModelError for another."""
    size, shape = constant(graph, inputs[1]).ravel().tolist(), graph.tensors[inputs[0]].shape[1:3]
    if options.alignCorners or any(large % small for large, small in zip(size, shape, strict=True)):
        raise ModelError(f"{graph.path}: a RESIZE_NEAREST_NEIGHBOR of {shape} to {tuple(size)} has no gradient here")
    times = tuple(float(large // small) for large, small in zip(size, shape, strict=True))
    return lambda x: F.interpolate(x, scale_factor=times, mode="nearest")


def transpose(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """TRANSPOSE that leaves the batch where it is. Raises ModelError for another."""
    order = constant(graph, inputs[1]).ravel().tolist()
    if order[0] != 0:
        raise ModelError(f"{graph.path}: a TRANSPOSE of the batch has no gradient here")
    return lambda x: as_held(as_stored(x).permute(order))


def reshape(graph: Graph, inputs: Sequence[int], output: int) -> Callable[..., Tensor]:
    """RESHAPE and SQUEEZE: the values in the file's order; a vector is as long as its input, of whatever size that is."""
    shape = graph.tensors[output].shape
    if len(shape) < 3:
        return lambda x: as_stored(x).flatten(1)
    return lambda x: as_held(as_stored(x).reshape(x.shape[0], *shape[1:]))


def largest(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """REDUCE_MAX over some axes."""
    axes = [axis_of(graph, inputs[0], int(a)) for a in constant(graph, inputs[1]).ravel()]
    keep = bool(options.keepDims)
    return lambda x: x.amax(axes, keepdim=keep)


def arg_max(graph: Graph, inputs: Sequence[int], options: Any, constant: Constant) -> Callable[..., Tensor]:
    """ARG_MAX: the number of the greatest along an axis."""
    axis = axis_of(graph, inputs[0], int(np.ravel(constant(graph, inputs[1]))[0]))
    return lambda x: x.argmax(axis)
