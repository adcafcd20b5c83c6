"""A `.tflite` file as the graph that `split` cuts, and parts of that graph as `.tflite` files again. Reads and writes bytes only.

What cannot be cut is refused when the file is read, with the operator that stops it; so every graph that comes out of
`read` can be cut wherever it says so. A part keeps its tensors' quantisation, its operators' options and the constants
that it uses, byte for byte; nothing else comes along.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.models import flatbuffer_check, trial
from isthmus.models.litert import Interpreter, allocated
from isthmus.models.operators import BRANCHING, CARRIED, CONTROL_FLOW, STATEFUL, UNKNOWN_SIZE, countable, flops
from isthmus.proto.errors import ModelError

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError as error:
    way_out = "tflite-runtime runs bundles, but reads and cuts no model; do it where ai-edge-litert can be installed"
    raise ModelError(f"{error.name or 'ai-edge-litert'}: not installed; {way_out}") from error

IDENTIFIER = b"TFL3"
_KINDS: dict[int, str] = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_VALUE_BYTES = {"float32": 4, "float16": 2, "int32": 4, "int64": 8, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a graph: real value = scale * (stored - zero_point) where it is quantised, scale 0 where it is not."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    constant: bool
    sized: bool = True
    """Whether its size is known before it is computed."""

    @property
    def elements(self) -> int:
        """The number of values in the tensor."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The bytes that the tensor takes in memory."""
        return self.elements * _VALUE_BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class Operator:
    """One operator, in order of execution; absent optional inputs are left out."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    flops: int
    estimated: bool
    """Its kind is not known to `operators`: one operation is counted for each value that it gives."""
    traffic_bytes: int
    """What it reads, constants included, and what it writes."""


@dataclass(frozen=True)
class Graph:
    """A model of one subgraph with static shapes, and the branches that its operators choose from."""

    path: Path
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    model: Any
    """The file as the schema's own objects."""

    @property
    def flops(self) -> int:
        """The FLOPs of one pass."""
        return sum(operator.flops for operator in self.operators)


def read(path: Path) -> Graph:
    """The graph in `path`. Raises ModelError naming the file, and the operator that cannot be cut around."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    trial.check(path)
    model = _parsed(path, raw)
    _refuse(path, model)
    subgraph = model.subgraphs[0]
    _fill_in_shapes(path, raw, subgraph)
    tensors, operators = _contents(path, model, subgraph)
    return Graph(path, tensors, operators, _indices(subgraph.inputs), _indices(subgraph.outputs), model)


def _fill_in_shapes(path: Path, raw: bytes, subgraph: Any) -> None:
    """Give a carried operator's outputs, whose shapes stand as () in the file, the shapes that LiteRT finds for them."""
    made = {i for operator in subgraph.operators or [] for i in _indices(operator.outputs)}
    missing = {i for i in made if subgraph.tensors[i].shape is None or not len(subgraph.tensors[i].shape)}
    if not missing:
        return
    try:
        interpreter = allocated(raw)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: LiteRT cannot run it ({str(error).strip()})") from error
    for details in interpreter.get_tensor_details():
        if details["index"] in missing:
            subgraph.tensors[details["index"]].shape = [int(size) for size in details["shape"]]


class Signature(NamedTuple):
    """A signature of a file of any number of subgraphs: its graph, which cannot be cut."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def signatures(path: Path) -> dict[str, Signature]:
    """The signatures of the file in `path`. Raises ModelError."""
    try:
        model = _parsed(path, path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    return {_text(s.signatureKey): _signature(path, model, s) for s in model.signatureDefs or []}


def _signature(path: Path, model: Any, signature: Any) -> Signature:
    tensors, operators = _contents(path, model, model.subgraphs[signature.subgraphIndex])
    ports = signature.inputs, signature.outputs
    inputs, outputs = ({_text(p.name): tensors[p.tensorIndex] for p in s} for s in ports)
    return Signature(tensors, operators, inputs, outputs)


def _contents(path: Path, model: Any, subgraph: Any) -> tuple[tuple[Tensor, ...], tuple[Operator, ...]]:
    free = {i for o in subgraph.operators or [] if _kind(model, o) in UNKNOWN_SIZE for i in _indices(o.outputs)}
    tensors = tuple(_tensor(model, i, t, i not in free) for i, t in enumerate(subgraph.tensors or []))
    try:
        return tensors, tuple(_operator(model, i, o, tensors) for i, o in enumerate(subgraph.operators or []))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def weights(path: Path) -> dict[str, list[tuple[NDArray[np.generic], NDArray[np.generic]]]]:
    """Weight and bias of the convolutions and linear layers, by signature, in the order that they run. Raises ModelError."""
    model = _parsed(path, path.read_bytes())
    return {_text(s.signatureKey): list(_weights(model, model.subgraphs[s.subgraphIndex])) for s in model.signatureDefs}


def _weights(model: Any, subgraph: Any) -> Iterator[tuple[NDArray[np.generic], NDArray[np.generic]]]:
    for operator in subgraph.operators:
        if _kind(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            weight, bias = (_values(model, subgraph.tensors[i]) for i in _indices(operator.inputs)[1:3])
            yield weight, bias


def _values(model: Any, tensor: Any) -> NDArray[np.generic]:
    raw = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    values: NDArray[np.generic] = raw.view(_TYPES[tensor.type]).reshape(tensor.shape)
    return values


def _parsed(path: Path, raw: bytes) -> Any:
    if raw[4:8] != IDENTIFIER:
        raise ModelError(f"{path}: not a .tflite model: bytes 4 to 8 are {raw[4:8]!r}, expected {IDENTIFIER!r}")
    try:
        Interpreter(
            model_content=raw
        )  # its verifier checks every offset; the schema's Python would follow them anywhere
    except (ValueError, RuntimeError) as error:
        why = str(error).strip()
        if "for builtin opcode" in why:
            raise ModelError(f"{path}: needs a newer LiteRT ({why.splitlines()[0]})") from error
        if "custom op" not in why:  # which is named below
            raise ModelError(f"{path}: truncated or damaged ({why or 'LiteRT refuses it'})") from error
    model = schema.ModelT.InitFromPackedBuf(raw, 0)
    if fault := flatbuffer_check.fault(model, frozenset(_TYPES)):
        raise ModelError(f"{path}: damaged: {fault} is not there; convert or fetch it again")
    return model


def _refuse(path: Path, model: Any) -> None:
    if model.externalBuffers or any(buffer.offset > 1 for buffer in model.buffers):
        raise ModelError(f"{path}: its weights lie outside the flatbuffer; convert the model again, below 2 GB")
    for number, subgraph in enumerate(model.subgraphs):
        for index, operator in enumerate(subgraph.operators or []):
            _refuse_operator(path, model, subgraph, f"operator {index}" if number == 0 else "an operator", operator)
    if set(range(1, len(model.subgraphs))) != set(_branches(model, model.subgraphs[0])):
        raise ModelError(f"{path}: {len(model.subgraphs)} subgraphs, expected one; export one signature on its own")
    if not _indices(model.subgraphs[0].outputs):
        raise ModelError(f"{path}: gives nothing; export the model with its answer as an output")
    tensors = model.subgraphs[0].tensors or []
    for index in _indices(model.subgraphs[0].inputs):
        if _is_dynamic(tensors[index]):
            raise ModelError(f"{path}: input {_text(tensors[index].name)}: {_DYNAMIC}")
    for tensor in tensors:
        if tensor.isVariable:
            raise ModelError(f"{path}: tensor {_text(tensor.name)} keeps state from frame to frame; {_WITHOUT}")


_WITHOUT = "export the model without it"
_DYNAMIC = "a shape that is only known at run time; convert the model again with fixed input sizes"


def _refuse_operator(path: Path, model: Any, subgraph: Any, where: str, operator: Any) -> None:
    kind = _kind(model, operator)
    code = model.operatorCodes[operator.opcodeIndex]
    if kind == "CUSTOM":
        raise ModelError(
            f"{path}: {where}, custom {_text(code.customCode)}: custom operators cannot be cut around, but for "
            f"{', '.join(CARRIED)}; export the model with built-in operators, or ending before this one"
        )
    if kind in CONTROL_FLOW or (kind == BRANCHING and subgraph is not model.subgraphs[0]):
        raise ModelError(f"{path}: {where}, {kind}: control flow cannot be cut; {_WITHOUT}")
    if kind in STATEFUL:
        raise ModelError(f"{path}: {where}, {kind}: keeps state from frame to frame; {_WITHOUT}")


BRANCHES = ("thenSubgraphIndex", "elseSubgraphIndex")


def _branches(model: Any, subgraph: Any) -> list[int]:
    """The numbers of the subgraphs that operators of a subgraph choose from; -1 where a damaged one does not say."""
    choosing = [o.builtinOptions for o in subgraph.operators or [] if _kind(model, o) == BRANCHING]
    return [int(getattr(options, field, -1)) for options in choosing for field in BRANCHES]


def _is_dynamic(tensor: Any) -> bool:
    """Whether a size is unknown, the batch's aside: that one is run at 1, as the file's own shape says."""
    signature = [] if tensor.shapeSignature is None else list(tensor.shapeSignature)
    shape = [] if tensor.shape is None else list(tensor.shape)
    return any(size < 0 for size in signature[1:]) or any(size < 1 for size in shape)


def _kind(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    number = int(max(code.builtinCode, code.deprecatedBuiltinCode))
    custom = _text(code.customCode)
    return custom if custom in CARRIED else _KINDS.get(number, f"builtin {number}")


def _tensor(model: Any, index: int, tensor: Any, sized: bool) -> Tensor:
    quantisation = tensor.quantization
    scales = [] if quantisation is None or quantisation.scale is None else list(quantisation.scale)
    zeros = [] if quantisation is None or quantisation.zeroPoint is None else list(quantisation.zeroPoint)
    data = model.buffers[tensor.buffer].data
    return Tensor(
        index=index,
        name=_text(tensor.name),
        shape=tuple(int(size) for size in ([] if tensor.shape is None else tensor.shape)),
        dtype=_TYPES[tensor.type],
        scale=float(scales[0]) if len(scales) == 1 else 0.0,
        zero_point=int(zeros[0]) if len(zeros) == 1 else 0,
        constant=data is not None and len(data) > 0,
        sized=sized and not _is_dynamic(tensor),
    )


def _operator(model: Any, index: int, operator: Any, tensors: Sequence[Tensor]) -> Operator:
    kind = _kind(model, operator)
    inputs = tuple(i for i in _indices(operator.inputs) if i >= 0)
    outputs = _indices(operator.outputs)
    shapes = [tensors[i].shape for i in inputs]
    if not countable(kind, shapes, operator):
        raise ModelError(
            f"operator {index}, {kind}: lacks an input or an option; the file is damaged, convert it again"
        )
    counted = flops(kind, shapes, [tensors[i].shape for i in outputs], operator)
    traffic = sum(tensors[i].size_bytes for i in (*inputs, *outputs))
    estimate = sum(tensors[i].elements for i in outputs)
    return Operator(index, kind, inputs, outputs, estimate if counted is None else counted, counted is None, traffic)


def _indices(vector: Any) -> tuple[int, ...]:
    return () if vector is None else tuple(int(i) for i in vector)


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""


@dataclass(frozen=True)
class Part:
    """Operators of a graph that are to be a signature `key` of a file: named tensors in, named tensors out."""

    graph: Graph
    key: str
    operators: tuple[int, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def written(parts: Sequence[Part]) -> bytes:
    """A `.tflite` with one subgraph and one signature for each part; constants and operator codes that it uses, no others."""
    model = schema.ModelT()
    model.version = max(part.graph.model.version for part in parts)
    model.description = "a part of a model, cut by isthmus"
    model.buffers, model.operatorCodes, model.subgraphs, model.signatureDefs = [schema.BufferT()], [], [], []
    for part in parts:
        _Copy(model, part).add()
    builder = flatbuffers.Builder(sum(len(b.data) for b in model.buffers if b.data is not None) + 65536)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


class _Copy:
    """Copies one part into a model, numbering anew whatever comes along."""

    def __init__(self, model: Any, part: Part) -> None:
        self._model, self._part = model, part
        self._source = part.graph.model
        self._subgraph = self._source.subgraphs[0]
        self._tensors: dict[int, int] = {}
        self._buffers: dict[int, int] = {0: 0}
        self._codes: dict[int, int] = {}
        self._new = schema.SubGraphT()
        self._choosing: list[Any] = []  # options of operators whose branches come behind the part's own subgraph

    def add(self) -> None:
        """Append the part's subgraph and its signature."""
        part, new = self._part, self._new
        new.name, new.tensors, new.operators = part.key, [], []
        new.inputs = [self._tensor(i) for i in part.inputs.values()]
        new.operators = [self._operator(self._subgraph.operators[i]) for i in part.operators]
        new.outputs = [self._tensor(i) for i in part.outputs.values()]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = part.key, len(self._model.subgraphs)
        signature.inputs = [self._port(name, i) for name, i in part.inputs.items()]
        signature.outputs = [self._port(name, i) for name, i in part.outputs.items()]
        self._model.subgraphs.append(new)
        self._model.signatureDefs.append(signature)
        for options, field in itertools.product(self._choosing, BRANCHES):
            setattr(options, field, self._branch(getattr(options, field)))

    def _branch(self, number: int) -> int:
        """Append a subgraph of the source as it is; its new number."""
        self._subgraph, self._tensors, self._new = self._source.subgraphs[number], {}, schema.SubGraphT()
        new, self._new.name, self._new.tensors = self._new, self._subgraph.name, []
        new.inputs = [self._tensor(i) for i in _indices(self._subgraph.inputs)]
        new.operators = [self._operator(operator) for operator in self._subgraph.operators or []]
        new.outputs = [self._tensor(i) for i in _indices(self._subgraph.outputs)]
        self._model.subgraphs.append(new)
        return len(self._model.subgraphs) - 1

    def _port(self, name: str, tensor: int) -> Any:
        port = schema.TensorMapT()
        port.name, port.tensorIndex = name, self._tensors[tensor]
        return port

    def _tensor(self, index: int) -> int:
        """The new number of a tensor; -1 stands for an input that an operator does without."""
        if index < 0:
            return -1
        if index not in self._tensors:
            tensor = copy.copy(self._subgraph.tensors[index])
            tensor.buffer = self._buffer(tensor.buffer)
            self._tensors[index] = len(self._new.tensors)
            self._new.tensors.append(tensor)
        return self._tensors[index]

    def _buffer(self, index: int) -> int:
        if index not in self._buffers:
            self._buffers[index] = len(self._model.buffers)
            self._model.buffers.append(self._source.buffers[index])
        return self._buffers[index]

    def _operator(self, operator: Any) -> Any:
        new = copy.copy(operator)
        new.opcodeIndex = self._code(operator.opcodeIndex)
        new.inputs = [self._tensor(i) for i in _indices(operator.inputs)]
        new.outputs = [self._tensor(i) for i in _indices(operator.outputs)]
        new.intermediates = [self._tensor(i) for i in _indices(operator.intermediates)]
        if _kind(self._source, operator) == BRANCHING:
            new.builtinOptions = copy.copy(operator.builtinOptions)
            self._choosing.append(new.builtinOptions)
        return new

    def _code(self, index: int) -> int:
        if index not in self._codes:
            self._codes[index] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(self._source.operatorCodes[index])
        return self._codes[index]
