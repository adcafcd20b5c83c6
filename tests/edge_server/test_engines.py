from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.edge_server.engines import ENGINES, OnnxEngine
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.server import warm_up
from isthmus.edge_server.streams import Served
from isthmus.proto import messages as m
from isthmus.proto.errors import BundleError
from isthmus.proto.plan import ServerTimings


def mean_tail(path: Path, input_name: str = "features") -> Path:
    """A tail whose logits are the channels' means."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [input_name, "axes"], ["logits"], keepdims=0)],
        "tail",
        [helper.make_tensor_value_info(input_name, floats, ["b", 4, 4, 8])],
        [helper.make_tensor_value_info("logits", floats, ["b", 8])],
        [helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [1, 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_onnx_runs_any_batch(tmp_path: Path) -> None:
    engine = OnnxEngine(mean_tail(tmp_path / "tail.onnx"), 1)
    for batch in (1, 3, 8):
        features = np.random.default_rng(0).normal(size=(batch, 4, 4, 8)).astype(np.float32)
        np.testing.assert_allclose(engine.run(features), features.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_a_tail_with_other_ports_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"tail\.onnx: takes \['images'\]"):
        OnnxEngine(mean_tail(tmp_path / "tail.onnx", "images"), 1)


def test_a_file_that_is_no_tail_is_named(tmp_path: Path) -> None:
    (tmp_path / "tail.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"tail\.onnx: not a tail"):
        OnnxEngine(tmp_path / "tail.onnx", 1)
    with pytest.raises(BundleError, match=r"none\.onnx"):
        ENGINES["onnx"](tmp_path / "none.onnx", 1)


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_warm_up_covers_every_batch(served: Served, engine: Any, max_batch: int, sizes: list[int]) -> None:
    assert sorted(warm_up(engine, served, max_batch)) == sizes


def test_outcomes_are_counted() -> None:
    metrics = Metrics()
    timings = ServerTimings(queue_s=0.003)
    for message in (
        m.Ack(1, 0),
        m.Result(1, 2, (0.0,), timings),
        m.Result(2, 2, (0.0,), timings),
        m.Late(3),
        m.Busy(4, 0.1),
        m.Invalid(5, 0, "damaged"),
        m.Invalid(1, 1, "damaged: only a layer, not a frame"),
    ):
        metrics.on_reply(message)
    metrics.on_batch(2, 0.004)
    metrics.on_close("silent")

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    outcomes = {o: value("isthmus_requests_total", outcome=o) for o in ("result", "late", "busy", "invalid")}
    assert outcomes == {"result": 2, "late": 1, "busy": 1, "invalid": 1}
    assert value("isthmus_invalid_layers_total") == 2
    assert value("isthmus_queue_duration_seconds_sum") == pytest.approx(0.006)
    assert value("isthmus_tail_duration_seconds_sum") == pytest.approx(0.004)
    assert value("isthmus_batch_size_sum") == 2
    assert value("isthmus_streams_closed_total", reason="silent") == 1
