"""Small `.tflite` graphs written with the schema: one for each class of operator, and those that must be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.bool_): schema.TensorType.BOOL,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
Quantised = tuple[float, int]


class Builder:
    """A graph in the making: tensors by number, operators in order."""

    def __init__(self, seed: int = 0) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]
        self.rng = np.random.default_rng(seed)

    def tensor(self, shape: Sequence[int], dtype: Any = np.float32, quantised: Quantised | None = None) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.name = list(shape), TYPES[np.dtype(dtype)], f"t{len(self.graph.tensors)}"
        if quantised is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantised[0]], [quantised[1]]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, value: Any, quantised: Quantised | None = None) -> int:
        array = np.ascontiguousarray(value)
        index = self.tensor(array.shape, array.dtype, quantised)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.graph.tensors[index].buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)
        return index

    def weights(self, *shape: int) -> int:
        return self.constant(self.rng.normal(0, 0.3, shape).astype(np.float32))

    def add(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", custom: str = "", **set_: Any
    ) -> int:
        """Append an operator; returns its first output."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = custom or None
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in set_.items():
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return outputs[0] if outputs else -1

    def conv(self, x: int, c_in: int, c_out: int, size: int, stride: int = 1) -> int:
        """A 3 x 3 convolution with ReLU on (1, size, size, c_in)."""
        out = self.tensor((1, -(-size // stride), -(-size // stride), c_out))
        inputs = [x, self.weights(c_out, 3, 3, c_in), self.weights(c_out)]
        strides: dict[str, Any] = {"strideH": stride, "strideW": stride, "dilationHFactor": 1, "dilationWFactor": 1}
        return self.add("CONV_2D", inputs, [out], "Conv2DOptions", **strides, fusedActivationFunction=1)

    def dense(self, x: int, c_in: int, c_out: int) -> int:
        """A fully connected layer on (1, c_in)."""
        inputs = [x, self.weights(c_out, c_in), self.weights(c_out)]
        return self.add("FULLY_CONNECTED", inputs, [self.tensor((1, c_out))], "FullyConnectedOptions")

    def mean(self, x: int, channels: int) -> int:
        axes = self.constant(np.array([1, 2], np.int32))
        return self.add("MEAN", [x, axes], [self.tensor((1, channels))], "ReducerOptions", keepDims=False)

    def softmax(self, x: int, classes: int) -> int:
        return self.add("SOFTMAX", [x], [self.tensor((1, classes))], "SoftmaxOptions", beta=1.0)

    def write(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def classifier(path: Path, *, size: int = 16, classes: int = 4, seed: int = 0) -> Path:
    """Two convolutions, a skip connection around the second, pooling, a dense layer, softmax."""
    b = Builder(seed)
    image = b.tensor((1, size, size, 3))
    first = b.conv(image, 3, 8, size, stride=2)
    second = b.conv(first, 8, 8, size // 2)
    total = b.add("ADD", [first, second], [b.tensor((1, size // 2, size // 2, 8))], "AddOptions")
    answer = b.softmax(b.dense(b.mean(total, 8), 8, classes), classes)
    return b.write(path, [image], [answer])


def branches(path: Path, count: int, *, classes: int = 4) -> Path:
    """`count` convolutions of the picture side by side, each read by a convolution of its own; their tensors are alike."""
    b = Builder(5)
    image = b.tensor((1, 16, 16, 3))
    side = [b.conv(image, 3, 4, 16, stride=2) for _ in range(count)]
    read = [b.conv(x, 4, 4, 8) for x in side]
    joined = b.add("CONCATENATION", read, [b.tensor((1, 8, 8, 4 * count))], "ConcatenationOptions", axis=3)
    answer = b.dense(b.mean(joined, 4 * count), 4 * count, classes)
    return b.write(path, [image], [answer])


def around(path: Path, middle: Callable[[Builder, int], int]) -> Path:
    """Convolution, whatever `middle` makes of its (1, 8, 8, 4) features, and a ReLU behind it: two cuts at least."""
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    out = middle(b, b.conv(image, 3, 4, 8))
    shape = [int(s) for s in b.graph.tensors[out].shape]
    return b.write(path, [image], [b.add("RELU", [out], [b.tensor(shape)])])


def _conv(b: Builder, x: int) -> int:
    return b.conv(x, 4, 6, 8, stride=2)


def _depthwise(b: Builder, x: int) -> int:
    inputs = [x, b.weights(1, 3, 3, 4), b.weights(4)]
    strides: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    return b.add(
        "DEPTHWISE_CONV_2D", inputs, [b.tensor((1, 8, 8, 4))], "DepthwiseConv2DOptions", depthMultiplier=1, **strides
    )


def _transposed(b: Builder, x: int) -> int:
    inputs = [b.constant(np.array([1, 16, 16, 2], np.int32)), b.weights(2, 3, 3, 4), x]
    return b.add("TRANSPOSE_CONV", inputs, [b.tensor((1, 16, 16, 2))], "TransposeConvOptions", strideH=2, strideW=2)


def _dense(b: Builder, x: int) -> int:
    return b.dense(b.mean(x, 4), 4, 5)


def _matmul(b: Builder, x: int) -> int:
    return b.add("BATCH_MATMUL", [x, x], [b.tensor((1, 8, 8, 8))], "BatchMatMulOptions", adjY=True)


def _pool(b: Builder, x: int) -> int:
    pooled = b.add(
        "AVERAGE_POOL_2D",
        [x],
        [b.tensor((1, 4, 4, 4))],
        "Pool2DOptions",
        strideH=2,
        strideW=2,
        filterHeight=2,
        filterWidth=2,
    )
    how: dict[str, Any] = {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    return b.add("MAX_POOL_2D", [pooled], [b.tensor((1, 2, 2, 4))], "Pool2DOptions", **how)


def _skip(b: Builder, x: int) -> int:
    once = b.conv(x, 4, 4, 8)
    return b.add("MUL", [x, b.conv(once, 4, 4, 8)], [b.tensor((1, 8, 8, 4))], "MulOptions")


def _activations(b: Builder, x: int) -> int:
    x = b.add("HARD_SWISH", [x], [b.tensor((1, 8, 8, 4))])
    return b.add("LOGISTIC", [x], [b.tensor((1, 8, 8, 4))])


def _moves(b: Builder, x: int) -> int:
    padded = b.add(
        "PAD", [x, b.constant(np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.int32))], [b.tensor((1, 10, 8, 4))]
    )
    begin, end, strides = (b.constant(np.array(v, np.int32)) for v in ([0, 1, 0, 0], [1, 9, 8, 4], [1, 1, 1, 1]))
    sliced = b.add("STRIDED_SLICE", [padded, begin, end, strides], [b.tensor((1, 8, 8, 4))], "StridedSliceOptions")
    joined = b.add("CONCATENATION", [x, sliced], [b.tensor((1, 8, 8, 8))], "ConcatenationOptions", axis=3)
    shape = b.constant(np.array([1, 4, 128], np.int32))
    return b.add("RESHAPE", [joined, shape], [b.tensor((1, 4, 128))], "ReshapeOptions", newShape=[1, 4, 128])


def _resize(b: Builder, x: int) -> int:
    size = b.constant(np.array([12, 12], np.int32))
    return b.add("RESIZE_BILINEAR", [x, size], [b.tensor((1, 12, 12, 4))], "ResizeBilinearOptions", alignCorners=True)


def _quantised(b: Builder, x: int) -> int:
    stored = b.add("QUANTIZE", [x], [b.tensor((1, 8, 8, 4), np.int8, (0.02, -128))], "QuantizeOptions")
    doubled = b.add("ADD", [stored, stored], [b.tensor((1, 8, 8, 4), np.int8, (0.04, -128))], "AddOptions")
    return b.add("DEQUANTIZE", [doubled], [b.tensor((1, 8, 8, 4))], "DequantizeOptions")


def _half_weights(b: Builder, x: int) -> int:
    """float16 weights, widened by an operator of their own that comes before the convolutions that use them."""
    halves = b.constant(b.rng.normal(0, 0.3, (4, 3, 3, 4)).astype(np.float16))
    wide = b.add("DEQUANTIZE", [halves], [b.tensor((4, 3, 3, 4))], "DequantizeOptions")
    for _ in range(2):
        strides: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        x = b.add("CONV_2D", [x, wide, b.weights(4)], [b.tensor((1, 8, 8, 4))], "Conv2DOptions", **strides)
    return x


def _softmax(b: Builder, x: int) -> int:
    return b.softmax(b.mean(x, 4), 4)


def _unknown(b: Builder, x: int) -> int:
    """Of no known number of operations."""
    return b.add(
        "LOCAL_RESPONSE_NORMALIZATION",
        [x],
        [b.tensor((1, 8, 8, 4))],
        "LocalResponseNormalizationOptions",
        radius=2,
        bias=1.0,
        alpha=0.5,
        beta=0.5,
    )


MIDDLES: dict[str, Callable[[Builder, int], int]] = {
    "convolution": _conv,
    "depthwise": _depthwise,
    "transposed": _transposed,
    "dense": _dense,
    "matmul": _matmul,
    "pool": _pool,
    "skip": _skip,
    "activations": _activations,
    "moves": _moves,
    "resize": _resize,
    "quantised": _quantised,
    "half_weights": _half_weights,
    "softmax": _softmax,
    "unknown": _unknown,
}
