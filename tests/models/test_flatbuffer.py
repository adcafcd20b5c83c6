"""Every index that is read from a `.tflite` is checked before anybody follows it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from graphs import Builder, classifier
from isthmus.models import flatbuffer, flatbuffer_check, trial
from isthmus.models.splitting.cuts import cuts
from isthmus.proto.errors import ModelError

DAMAGED = Path(__file__).parent / "damaged"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("crash-flatbuffer-1", "damaged: subgraph 0: operator 0: tensor 16386 is not there"),
        ("crash-flatbuffer-2", "operator 0, CONV_2D: lacks an input or an option"),
    ],
)
def test_flipped_bits_that_fuzzing_found_are_an_error_message(name: str, why: str) -> None:
    with pytest.raises(ModelError, match=rf"{name}\.tflite: {why}"):
        flatbuffer.read(DAMAGED / f"{name}.tflite")


def _set(where: Callable[[Any], Any], name: str, value: object) -> Callable[[Any], None]:
    return lambda model: setattr(where(model), name, value)


CHANGES: dict[str, Callable[[Any], None]] = {
    "tensor 99 as input or output": _set(lambda m: m.subgraphs[0], "inputs", [99]),
    "tensor -1 as input or output": _set(lambda m: m.subgraphs[0], "outputs", [-1]),
    "operator 2: code 77": _set(lambda m: m.subgraphs[0].operators[2], "opcodeIndex", 77),
    "operator 1: tensor 50": _set(lambda m: m.subgraphs[0].operators[1], "inputs", [0, 50]),
    "operator 1: tensor -2": _set(lambda m: m.subgraphs[0].operators[1], "inputs", [-2]),
    "operator 1: tensor -1": _set(lambda m: m.subgraphs[0].operators[1], "outputs", [-1]),
    "operator 3: tensor 60": _set(lambda m: m.subgraphs[0].operators[3], "intermediates", [60]),
    "tensor 1: buffer 1000": _set(lambda m: m.subgraphs[0].tensors[1], "buffer", 1000),
    "type 99": _set(lambda m: m.subgraphs[0].tensors[1], "type", 99),
    "signature: subgraph 7": lambda m: _signature(m, 7, 0),
    "signature: tensor 70": lambda m: _signature(m, 0, 70),
    "no subgraphs": _set(lambda m: m, "subgraphs", None),
    "no buffers": _set(lambda m: m, "buffers", None),
}


def _signature(model: Any, subgraph: int, tensor: int) -> None:
    made, port = schema.SignatureDefT(), schema.TensorMapT()
    made.subgraphIndex, port.tensorIndex = subgraph, tensor
    made.inputs, made.outputs = [port], []
    model.signatureDefs = [made]


@pytest.mark.parametrize("why", CHANGES)
def test_an_index_that_leads_nowhere_is_named(why: str, tmp_path: Path) -> None:
    raw = classifier(tmp_path / "model.tflite").read_bytes()
    model, types = schema.ModelT.InitFromPackedBuf(raw, 0), frozenset(range(10))
    assert flatbuffer_check.fault(model, types) is None
    CHANGES[why](model)
    found = flatbuffer_check.fault(model, types)
    assert found is not None
    assert why in found


def test_an_operator_without_what_its_work_is_counted_by_is_refused(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    first = b.conv(image, 3, 4, 8)
    b.add("CONV_2D", [first], [b.tensor((1, 8, 8, 4))], "Conv2DOptions")
    with pytest.raises(ModelError, match="operator 1, CONV_2D"):
        flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [first]))


def test_flipped_bits_never_end_in_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only such as LiteRT opens alive: bits of the tables, seeded; what kills it is `test_trial`'s."""
    monkeypatch.setattr(trial, "check", lambda path: None)
    monkeypatch.setattr(flatbuffer, "Interpreter", lambda model_content: None)
    path, rng = classifier(tmp_path / "model.tflite"), np.random.default_rng(5)
    raw = path.read_bytes()
    parsed = schema.ModelT.InitFromPackedBuf(raw, 0)
    for _ in range(300):
        model = copy.deepcopy(parsed)
        for vector in _vectors(model, rng):
            vector[int(rng.integers(len(vector)))] ^= 1 << int(rng.integers(31))
        monkeypatch.setattr(schema.ModelT, "InitFromPackedBuf", lambda raw, at, model=model: model)
        with contextlib.suppress(ModelError):
            cuts(flatbuffer.read(path))


def _vectors(model: Any, rng: np.random.Generator) -> list[list[int]]:
    """One or two lists of indices of the graph, as lists that can be changed."""
    graph = model.subgraphs[0]
    owners = [(o, name) for o in graph.operators for name in ("inputs", "outputs")] + [
        (graph, "inputs"),
        (graph, "outputs"),
    ]
    chosen = [owners[int(i)] for i in rng.integers(len(owners), size=2)]
    for owner, name in chosen:
        setattr(owner, name, [int(i) for i in getattr(owner, name)])
    return [getattr(owner, name) for owner, name in chosen]


def test_an_operator_that_litert_does_not_know_is_named(tmp_path: Path) -> None:
    """Though its own name has the word custom in it."""
    import flatbuffers

    path = classifier(tmp_path / "new.tflite", size=4)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.STABLEHLO_CUSTOM_CALL
    model.operatorCodes[0].deprecatedBuiltinCode = 127
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ModelError, match=r"new\.tflite: needs a newer LiteRT .*STABLEHLO_CUSTOM_CALL"):
        flatbuffer.read(path)
