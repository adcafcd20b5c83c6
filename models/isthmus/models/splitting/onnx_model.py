"""An `.onnx` file as the server's model of a pair: run whole by ONNX Runtime, never cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.flatbuffer import Graph, Operator, Tensor
from isthmus.proto.errors import ConfigError, ModelError

KIND = "ONNX"
FLOAT = "tensor(float)"
FATAL = 4
"""ONNX Runtime logs nothing less: what fails is raised too."""
ONE_EACH = 1
"""Operations for each value that an operator gives, where it is no convolution and no product of matrices."""


class OnnxGraph(Graph):
    """An ONNX file as a graph of one operator: what it takes, what it gives, what it costs."""


def is_onnx(path: Path) -> bool:
    """Whether a file is named as ONNX."""
    return path.suffix.lower() == ".onnx"


def read(path: Path) -> OnnxGraph:
    """The model in `path`. Raises ModelError naming what is not supported, ConfigError when a package is missing."""
    try:
        import onnx
        from onnx.external_data_helper import uses_external_data
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed; reading {path.name} needs it: pip install onnx") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own, and whatever onnx makes of a damaged file
        raise ModelError(f"{path}: not an ONNX model ({error})") from error
    if any(uses_external_data(tensor) for tensor in model.graph.initializer):
        raise ModelError(f"{path}: keeps its weights in another file; save it as one: onnx.save(onnx.load(path), path)")
    session = _session(path)
    image = _picture(path, session.get_inputs())
    outputs = [port.name for port in session.get_outputs()]
    answer = _run(path, session, image.name, np.zeros(image.shape, np.float32), outputs)
    given = tuple(_tensor(1 + i, name, array) for i, (name, array) in enumerate(zip(outputs, answer, strict=True)))
    flops = _flops(onnx.shape_inference.infer_shapes(model).graph, image)
    numbers = tuple(t.index for t in given)
    return OnnxGraph(path, (image, *given), (Operator(0, KIND, (0,), numbers, flops, False, 0),), (0,), numbers, None)


class OnnxRun:
    """One picture after the other through an ONNX file."""

    def __init__(self, graph: Graph) -> None:
        self._path, self._image = graph.path, graph.tensors[0].name
        self._outputs = [graph.tensors[i].name for i in graph.outputs]
        self._session = _session(graph.path)

    def __call__(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """What the model gives to a picture (1, …), by output. Raises ModelError where it cannot."""
        return dict(zip(self._outputs, _run(self._path, self._session, self._image, image, self._outputs), strict=True))


def _session(path: Path) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ConfigError(f"{error.name}: not installed; {path.name} needs the 'server' extra") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen, without a common base
        raise ModelError(f"{path}: not a model that ONNX Runtime can run ({error})") from error


def _picture(path: Path, ports: Sequence[Any]) -> Tensor:
    """The one input. Raises ModelError where that is no picture of one size."""
    if len(ports) != 1:
        raise ModelError(
            f"{path}: takes {len(ports)} inputs ({', '.join(p.name for p in ports)}), expected one picture"
        )
    (port,) = ports
    if port.type != FLOAT:
        raise ModelError(f"{path}: input {port.name} is {port.type}, expected {FLOAT}; export it with float32 inputs")
    if len(port.shape) != 4 or not all(isinstance(side, int) and side > 0 for side in port.shape[1:]):
        raise ModelError(
            f"{path}: input {port.name} is {port.shape}, expected (1, 3, height, width) in numbers; export it with a fixed size"
        )
    return Tensor(0, port.name, (1, *port.shape[1:]), "float32", 0.0, 0, False)


def _run(path: Path, session: Any, name: str, image: NDArray[np.float32], outputs: Sequence[str]) -> list[NDArray[Any]]:
    try:
        found: list[NDArray[Any]] = session.run(list(outputs), {name: image})
    except Exception as error:  # as above
        raise ModelError(f"{path}: ONNX Runtime cannot run it on a picture ({error})") from error
    if not all(isinstance(array, np.ndarray) and array.shape[:1] == (1,) for array in found):
        raise ModelError(
            f"{path}: gives no arrays with a batch of one to begin with; export the model without its last step"
        )
    return found


def _tensor(index: int, name: str, array: NDArray[Any]) -> Tensor:
    return Tensor(index, name, array.shape, str(array.dtype), 0.0, 0, False)


def _flops(graph: Any, image: Tensor) -> int:
    """Two for each multiplication of convolutions and matrices, one for each value of whatever else has a known shape."""
    shapes = {v.name: _shape(v) for v in (*graph.value_info, *graph.input, *graph.output)} | {image.name: image.shape}
    weights = {w.name: tuple(w.dims) for w in graph.initializer}
    total = 0
    for node in graph.node:
        made = sum(math.prod(shapes.get(name) or (0,)) for name in node.output)
        total += made * _each(node, shapes | weights)
    return total


def _each(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Operations for each value that a node gives."""
    second = shapes.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type == "Conv" and second:
        return 2 * math.prod(second[1:])  # (out, in / groups, height, width)
    if node.op_type in ("Gemm", "MatMul") and (first := shapes.get(node.input[0])):
        return 2 * (first[-1] if first else 1)
    return ONE_EACH


def _shape(value: Any) -> tuple[int, ...]:
    """Sides of a value, those that are free counted once."""
    return tuple(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)
