"""A part of a `.tflite` graph as a torch module that gradients pass: what leads a student by the answers behind it.

Weights are dequantised, activations are real: it answers nearly as the file does, never bit for bit. The server runs the
file. Maps are (N, C, H, W) inside and at both ends, whatever the file's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.models.flatbuffer import Graph, Operator, Part
from isthmus.models.training import torch_shapes
from isthmus.models.training.torch_shapes import as_stored
from isthmus.proto.errors import ModelError

Build = Callable[[Graph, Sequence[int], Any], Callable[..., Tensor]]
"""Takes a graph, an operator's inputs and its options; gives what computes it from those inputs that are no constants."""
Layer = tuple[Callable[..., Tensor], tuple[int, ...], int]
"""What computes an operator, its inputs that are no constants, and its output."""
SAME = 0
"""SAME in the schema's Padding."""
_STORED = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8, "int32": np.int32}
_ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    0: lambda x: x,
    1: F.relu,
    2: lambda x: torch.clamp(x, -1.0, 1.0),
    3: F.relu6,
    4: torch.tanh,
}
"""The activations by the schema's ActivationFunctionType."""


class TorchPart(nn.Module):
    """The operators of `part` one after the other: its one input -> its outputs in their order, each (N, ...)."""

    def __init__(self, part: Part) -> None:
        """Raises ModelError naming the operator that has no gradient here."""
        super().__init__()
        graph = part.graph
        self._path = graph.path
        (self._input,), self._outputs = part.inputs.values(), tuple(part.outputs.values())
        self._layers: list[Layer] = []
        wanted, swished = set(self._outputs), _swished(graph, part)
        for index in part.operators:
            operator = graph.operators[index]
            varying = tuple(i for i in operator.inputs if _source(graph, i) is None)
            if not varying:  # it widens a constant, which is read where it is used
                continue
            if operator.outputs[0] in swished and operator.outputs[0] not in wanted:
                continue
            if operator.kind == "MUL" and (gate := swished.intersection(operator.inputs) - wanted):
                self._layers.append((F.silu, tuple(set(varying) - gate), operator.outputs[0]))
                continue
            layer = _layer(graph, operator)
            if isinstance(layer, nn.Module):
                self.add_module(f"operator{index}", layer)
            self._layers.append((layer, varying, operator.outputs[0]))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        known = {self._input: x}
        for layer, inputs, output in self._layers:
            known[output] = layer(*[known[i] for i in inputs])
        return tuple(known[i] for i in self._outputs)

    @torch.no_grad()
    def macs(self, size: int) -> int:
        """Multiply-accumulates for a picture (1, 3, size, size), which may be of another size than the file's.

        Raises ModelError when an operator takes maps of the file's own size only.
        """
        total = 0

        def count(layer: nn.Module, _: Any, out: Tensor) -> None:
            nonlocal total
            assert isinstance(layer, _Conv | _Dense)
            total += layer.weight[0].numel() * out.numel()

        hooks = [m.register_forward_hook(count) for m in self.modules() if isinstance(m, _Conv | _Dense)]
        try:
            self(next(self.parameters()).new_zeros(1, 3, size, size))
        except RuntimeError as error:
            raise ModelError(
                f"{self._path}: takes pictures of its own size only, not of {size} pixels ({error})"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        return total


def _layer(graph: Graph, operator: Operator) -> Callable[..., Tensor]:
    """What computes an operator. Raises ModelError when it has no gradient here."""
    if operator.kind in ("RESHAPE", "SQUEEZE"):
        return torch_shapes.reshape(graph, operator.inputs, operator.outputs[0])
    if operator.kind not in _BUILDERS:
        raise ModelError(
            f"{graph.path}: operator {operator.index}, {operator.kind}: no gradient for it, and so no distillation"
        )
    options = graph.model.subgraphs[0].operators[operator.index].builtinOptions
    return _BUILDERS[operator.kind](graph, operator.inputs, options)


def _swished(graph: Graph, part: Part) -> set[int]:
    """The sigmoids that only gate what they are the sigmoids of: x * sigmoid(x) is one operator here, and half the memory."""
    users: dict[int, list[Operator]] = {}
    for index in part.operators:
        for tensor in graph.operators[index].inputs:
            users.setdefault(tensor, []).append(graph.operators[index])
    gates = (graph.operators[i] for i in part.operators if graph.operators[i].kind == "LOGISTIC")
    return {gate.outputs[0] for gate in gates if _gates_itself(gate, users.get(gate.outputs[0], []))}


def _gates_itself(gate: Operator, users: Sequence[Operator]) -> bool:
    both = {gate.inputs[0], gate.outputs[0]}
    return len(users) == 1 and users[0].kind == "MUL" and set(users[0].inputs) == both


def _source(graph: Graph, index: int) -> int | None:
    """The constant that a tensor is, or that an operator widens to it; None when it varies."""
    if graph.tensors[index].constant:
        return index
    for operator in graph.operators:
        if operator.kind == "DEQUANTIZE" and operator.outputs == (index,):
            return _source(graph, operator.inputs[0])
    return None


def constant(graph: Graph, index: int) -> NDArray[Any]:
    """The real values of a constant, in the file's layout; integers that are not quantised as they are.

    Raises ModelError when it is none.
    """
    source = _source(graph, index)
    if source is None:
        raise ModelError(f"{graph.path}: {graph.tensors[index].name}: weights that are computed have no gradient here")
    tensor, stored = graph.tensors[source], graph.model.subgraphs[0].tensors[source]
    raw = np.asarray(graph.model.buffers[stored.buffer].data, np.uint8).tobytes()
    values = np.frombuffer(raw, _STORED[tensor.dtype]).reshape(tensor.shape)
    q = stored.quantization
    if q is None or q.scale is None or not len(q.scale):
        return values.astype(np.float32) if values.dtype == np.float16 else values
    along = [1] * values.ndim
    if len(q.scale) > 1:
        along[q.quantizedDimension] = -1
    scale, zero = (np.asarray(v, np.float32).reshape(along) for v in (q.scale, q.zeroPoint))
    real: NDArray[np.float32] = (values.astype(np.float32) - zero) * scale
    return real


def _weights(graph: Graph, inputs: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Weight and bias of an operator that takes them behind its input."""
    return constant(graph, inputs[1]), constant(graph, inputs[2]) if len(inputs) > 2 else None


def _parameter(value: NDArray[Any]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(value, np.float32)))


class _Conv(nn.Module):
    """CONV_2D and DEPTHWISE_CONV_2D, with their padding and their activation."""

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any] | None, options: Any, groups: int) -> None:
        super().__init__()
        self.weight = _parameter(weight)
        self.bias = None if bias is None else _parameter(bias)
        self.stride = (options.strideH, options.strideW)
        self.dilation = (options.dilationHFactor, options.dilationWFactor)
        self.same, self.groups = options.padding == SAME, groups
        self.depthwise = groups == len(weight) > 1
        self.activation = _ACTIVATIONS[options.fusedActivationFunction]

    def forward(self, x: Tensor) -> Tensor:
        inside = (0, 0)
        if self.same:
            (top, bottom), (left, right) = (
                _same(x.shape[2 + i], self.weight.shape[2 + i], self.stride[i], self.dilation[i]) for i in (0, 1)
            )
            if (top, left) == (bottom, right):
                inside = (top, left)
            else:
                x = F.pad(x, (left, right, top, bottom))
        # A depthwise filter's gradient in bfloat16 takes a processor longer than in float32, even one that is made for it.
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and not self.depthwise):
            x = x.to(self.weight.dtype) if self.depthwise else x
            y = F.conv2d(x, self.weight, self.bias, self.stride, inside, self.dilation, self.groups)
        return self.activation(y)


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding, before and behind."""
    reach = (kernel - 1) * dilation + 1
    total = max(0, (-(-size // stride) - 1) * stride + reach - size)
    return total // 2, total - total // 2


class _Dense(nn.Module):
    """FULLY_CONNECTED on whatever its input flattens to."""

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any] | None, options: Any) -> None:
        super().__init__()
        self.weight = _parameter(weight)
        self.bias = None if bias is None else _parameter(bias)
        self.activation = _ACTIVATIONS[options.fusedActivationFunction]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(F.linear(as_stored(x).flatten(1), self.weight, self.bias))


def _conv(graph: Graph, inputs: Sequence[int], options: Any) -> nn.Module:
    weight, bias = _weights(graph, inputs)  # (out, h, w, in of the group)
    return _Conv(weight.transpose(0, 3, 1, 2), bias, options, graph.tensors[inputs[0]].shape[3] // weight.shape[3])


def _depthwise(graph: Graph, inputs: Sequence[int], options: Any) -> nn.Module:
    weight, bias = _weights(graph, inputs)  # (1, h, w, out)
    return _Conv(weight.transpose(3, 0, 1, 2), bias, options, graph.tensors[inputs[0]].shape[3])


def _dense(graph: Graph, inputs: Sequence[int], options: Any) -> nn.Module:
    return _Dense(*_weights(graph, inputs), options)


def _elementwise(compute: Callable[[Tensor, Tensor], Tensor]) -> Build:
    def build(graph: Graph, inputs: Sequence[int], options: Any) -> Callable[..., Tensor]:
        activation = _ACTIVATIONS[options.fusedActivationFunction]
        constants = [i for i in inputs if _source(graph, i) is not None]
        if not constants:
            return lambda x, y: activation(compute(x, y))
        value = torch.from_numpy(np.array(constant(graph, constants[0]), np.float32))
        term = torch_shapes.as_held(value)
        if value.ndim < 2 and max(len(graph.tensors[i].shape) for i in inputs) == 4:
            term = value.reshape(1, -1, 1, 1)
        if constants[0] == inputs[0]:
            return lambda x: activation(compute(term.to(x), x))
        return lambda x: activation(compute(x, term.to(x)))

    return build


def _mean(graph: Graph, inputs: Sequence[int], options: Any) -> Callable[..., Tensor]:
    axes = sorted(int(a) % 4 for a in constant(graph, inputs[1]).ravel())
    if axes != [1, 2]:
        raise ModelError(f"{graph.path}: MEAN over {axes}: only the one over height and width has a gradient here")
    keep = bool(options.keepDims)
    return lambda x: x.mean((2, 3), keepdim=keep)


def _pool(compute: Callable[..., Tensor]) -> Build:
    def build(graph: Graph, inputs: Sequence[int], options: Any) -> Callable[..., Tensor]:
        activation = _ACTIVATIONS[options.fusedActivationFunction]
        kernel, stride = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
        _, height, width, _ = graph.tensors[inputs[0]].shape
        if compute is F.max_pool2d and options.padding == SAME and stride == (1, 1) and all(k % 2 for k in kernel):
            around = kernel[0] // 2, kernel[1] // 2
            return lambda x: activation(compute(x, kernel, 1, around))
        if options.padding == SAME and (kernel != stride or height % stride[0] or width % stride[1]):
            raise ModelError(f"{graph.path}: a pooling that pads has no gradient here")
        if kernel == (height, width):  # whatever the map's size, then
            return lambda x: activation(compute(x, x.shape[2:]))
        return lambda x: activation(compute(x, kernel, stride))

    return build


def _softmax(graph: Graph, inputs: Sequence[int], options: Any) -> Callable[..., Tensor]:
    beta, axis = options.beta, torch_shapes.axis_of(graph, inputs[0], -1)
    return lambda x: torch.softmax(beta * x, axis)


def _alone(compute: Callable[[Tensor], Tensor]) -> Build:
    """An operator without weights or options."""
    return lambda graph, inputs, options: compute


def _moving(build: Callable[[Graph, Sequence[int], Any, torch_shapes.Constant], Callable[..., Tensor]]) -> Build:
    """An operator of `torch_shapes`."""
    return lambda graph, inputs, options: build(graph, inputs, options, constant)


_BUILDERS: dict[str, Build] = {
    "ADD": _elementwise(torch.add),
    "ARG_MAX": _moving(torch_shapes.arg_max),
    "AVERAGE_POOL_2D": _pool(F.avg_pool2d),
    "CAST": _alone(lambda x: x.float()),
    "CONCATENATION": _moving(torch_shapes.concatenation),
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _alone(lambda x: x),
    "EXP": _alone(torch.exp),
    "FULLY_CONNECTED": _dense,
    "HARD_SWISH": _alone(F.hardswish),
    "LOGISTIC": _alone(torch.sigmoid),
    "MAX_POOL_2D": _pool(F.max_pool2d),
    "MEAN": _mean,
    "MUL": _elementwise(torch.mul),
    "PAD": _moving(torch_shapes.pad),
    "QUANTIZE": _alone(lambda x: x),
    "REDUCE_MAX": _moving(torch_shapes.largest),
    "RELU": _alone(F.relu),
    "RELU6": _alone(F.relu6),
    "RESIZE_NEAREST_NEIGHBOR": _moving(torch_shapes.nearest),
    "SLICE": _moving(torch_shapes.slice_),
    "SOFTMAX": _softmax,
    "STRIDED_SLICE": _moving(torch_shapes.strided_slice),
    "SUB": _elementwise(torch.sub),
    "TANH": _alone(torch.tanh),
    "TRANSPOSE": _moving(torch_shapes.transpose),
}
