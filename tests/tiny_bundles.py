"""Bundles with nothing but a tail that gives the features back, written in a moment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from isthmus.edge_server.streams import Served

SHAPE = (4, 4, 8)


def write_bundle(folder: Path, served: Served, *, name: str = "tiny", note: str = "") -> Path:
    """A bundle of this name in a folder that is made where it is not there; another `note` gives it another hash."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["features"], ["logits"])],
        "tail",
        [helper.make_tensor_value_info("features", floats, ["b", *SHAPE])],
        [helper.make_tensor_value_info("logits", floats, ["b", 128])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    tail = model.SerializeToString()
    config = served.codec
    tables = [["".join(f"{length:x}" for length in table) for table in row] for row in config.tables]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tail.onnx").write_bytes(tail)
    (folder / "bundle.toml").write_text(f"""
schema = 1
name = "{name}"
made_by = "{note}"
task = "classification"
labels = []
widths = [1.0]
stages = [[{{ width = 1.0, signature = "head", flops = 0 }}]]
tail_flops = 0
confidence_edges = []
points = []
[input]
size = 32
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[bottleneck]
height = {config.height}
width = {config.width}
channels = {config.channels}
zero_point = {json.dumps(config.zero_point)}
steps = {json.dumps(config.steps)}
tables = {json.dumps(tables)}
size_fit = {json.dumps(config.size_fit)}
[files]
"tail.onnx" = "{hashlib.sha256(tail).hexdigest()}"
""")
    return folder


def hash_of(folder: Path) -> bytes:
    """The hash of the bundle in a folder."""
    return hashlib.sha256((folder / "bundle.toml").read_bytes()).digest()
