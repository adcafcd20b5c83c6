"""Copies of the shipped bundle whose tail goes wrong, or takes its time, once it sees a real picture; the head is untouched."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.models import bundle as bundles


def _onnx() -> Any:
    return pytest.importorskip("onnx")


def _model() -> Any:
    return _onnx().load(bundles.find("signs") / "tail.onnx")


def _with(model: Any, nodes: list[Any], constants: dict[str, Any], term: str) -> bytes:
    """The model with `term`, a scalar that the nodes compute, added to what it gives."""
    onnx = _onnx()
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = ["plain" if name == output.name else name for name in node.output]
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    graph.node.extend([*nodes, onnx.helper.make_node("Add", ["plain", term], [output.name])])
    raw: bytes = model.SerializeToString()
    return raw


def _live(model: Any) -> list[Any]:
    """`live` is 1 for a picture, and 0 for the zeros that a tail is warmed up with."""
    make = _onnx().helper.make_node
    return [
        make("Abs", [model.graph.input[0].name], ["size"]),
        make("ReduceMax", ["size"], ["most"], keepdims=0),
        make("Sign", ["most"], ["live"]),
    ]


def raising() -> bytes:
    """Fails on every picture: it looks up what is not there."""
    model, make = _model(), _onnx().helper.make_node
    nodes = [
        *_live(model),
        make("Mul", ["live", "far"], ["index_"]),
        make("Cast", ["index_"], ["index"], to=_onnx().TensorProto.INT64),
        make("Gather", ["one_value", "index"], ["term"]),
    ]
    return _with(model, nodes, {"far": np.float32(1e6), "one_value": np.zeros(1, np.float32)}, "term")


def nan() -> bytes:
    """Gives what is no number for every picture."""
    model, make = _model(), _onnx().helper.make_node
    nodes = [*_live(model), make("Neg", ["live"], ["below"]), make("Sqrt", ["below"], ["term"])]
    return _with(model, nodes, {}, "term")


def looping(turns: float, *, always: bool = False) -> bytes:
    """Turns round in a loop before it answers: for so many turns at every picture, or (`always`) at every batch."""
    onnx, model = _onnx(), _model()
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    floats, bools, ints = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL, onnx.TensorProto.INT64
    body = onnx.helper.make_graph(
        [make("Identity", ["go"], ["go_on"]), make("Mul", ["x", "half"], ["x_next"])],
        "turn",
        [info("i", ints, []), info("go", bools, []), info("x", floats, [])],
        [info("go_on", bools, []), info("x_next", floats, [])],
    )
    nodes = [
        *_live(model),
        make("Max" if always else "Min", ["live", "always"], ["on"]),
        make("Mul", ["on", "turns"], ["count_"]),
        make("Cast", ["count_"], ["count"], to=ints),
        make("Loop", ["count", "yes", "nought"], ["term"], body=body),
    ]
    constants = {
        "turns": np.float32(turns),
        "always": np.float32(1),
        "half": np.float32(0.5),
        "yes": np.array(True),
        "nought": np.float32(0),
    }
    return _with(model, nodes, constants, "term")


def biased(label: int) -> bytes:
    """Takes nearly every picture for this class: whoever is given its answers for another tail's notices."""
    classes = len(bundles.load("signs").manifest.labels)
    return _with(_model(), [], {"term": np.float32(20) * np.eye(classes, dtype=np.float32)[label]}, "term")


def slow(seconds: float) -> bytes:
    """Takes so long for every batch, whatever its size, on this machine as it is now."""
    import onnxruntime as ort

    turns = 2000.0
    session = ort.InferenceSession(looping(turns, always=True), providers=["CPUExecutionProvider"])
    features = {session.get_inputs()[0].name: np.zeros((1, *_shape()), np.float32)}
    took = []
    for _ in range(3):
        began = time.perf_counter()
        session.run(None, features)
        took.append(time.perf_counter() - began)
    return looping(turns * seconds / min(took), always=True)


def _shape() -> tuple[int, int, int]:
    bottleneck = bundles.load("signs").manifest.bottleneck
    return bottleneck.height, bottleneck.width, bottleneck.channels


def bundle(folder: Path, tail: bytes) -> str:
    """A bundle in a new folder: the shipped head, this tail."""
    shutil.copytree(bundles.find("signs"), folder)
    (folder / "tail.onnx").write_bytes(tail)
    path = folder / "bundle.toml"
    digest = hashlib.sha256(tail).hexdigest()
    text, count = re.subn(r'("?tail\.onnx"? = )"[0-9a-f]{64}"', rf'\1"{digest}"', path.read_text())
    assert count == 1, "the bundle names its tail's hash once"
    path.write_text(text)
    seal(folder)
    return str(folder)


def seal(folder: Path) -> None:
    """Write the bundle's own hash beside it: whoever changes it on purpose does so."""
    digest = hashlib.sha256((folder / "bundle.toml").read_bytes()).hexdigest()
    (folder / "bundle.sha256").write_text(f"{digest}  bundle.toml\n")
