from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from graphs import MIDDLES, around, classifier
from isthmus.edge_server.engines import LiteRtModel, Tail
from isthmus.edge_server.repository.tail import warm_up
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.models import flatbuffer
from isthmus.models.bundle import Bundle, Crossing
from isthmus.models.crossing import joined
from isthmus.models.litert import Signature, opened
from isthmus.models.picture_ladder import TailPart
from isthmus.models.splitting.cuts import cut_after, cut_files
from isthmus.proto.errors import BundleError


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


def bundle_of(folder: Path, *parts: TailPart, tensors: tuple[Crossing, ...] = ()) -> Bundle:
    """A bundle of which only the tail matters."""
    whole = bundles.load("signs")
    bottleneck = msgspec.structs.replace(whole.manifest.bottleneck, tensors=tensors)
    return replace(
        whole, folder=folder, manifest=msgspec.structs.replace(whole.manifest, tail=parts, bottleneck=bottleneck)
    )


ONNX = TailPart("tail.onnx", "onnx")


def test_onnx_runs_any_batch(tmp_path: Path) -> None:
    mean_tail(tmp_path / "tail.onnx")
    tail = Tail(bundle_of(tmp_path, ONNX), 1)
    for batch in (1, 3, 8):
        features = np.random.default_rng(0).normal(size=(batch, 4, 4, 8)).astype(np.float32)
        np.testing.assert_allclose(
            np.asarray(tail.run(list(features))), features.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6
        )


def test_a_tail_with_other_ports_is_named(tmp_path: Path) -> None:
    mean_tail(tmp_path / "tail.onnx", "images")
    with pytest.raises(BundleError, match=r"tail\.onnx: takes \['images'\]"):
        Tail(bundle_of(tmp_path, ONNX), 1)


def test_a_file_that_is_no_tail_is_named(tmp_path: Path) -> None:
    (tmp_path / "tail.onnx").write_bytes(b"not a model")
    (tmp_path / "tail.tflite").write_bytes(b"not a model")
    for file, engine in (
        ("tail.onnx", "onnx"),
        ("none.onnx", "onnx"),
        ("tail.tflite", "litert"),
        ("no.tflite", "litert"),
    ):
        with pytest.raises(BundleError, match=file.replace(".", r"\.")):
            Tail(bundle_of(tmp_path, TailPart(file, engine)), 1)


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"tail\.bin: engine 'abacus' unknown"):
        Tail(bundle_of(tmp_path, TailPart("tail.bin", "abacus")), 1)


def litert_tail(folder: Path, after: int, **kwargs: Any) -> flatbuffer.Graph:
    graph = flatbuffer.read(classifier(folder / "model.tflite"))
    (folder / "tail.tflite").write_bytes(cut_files(graph, cut_after(graph, after))[1])
    return graph


def test_litert_runs_a_batch_as_it_runs_each(tmp_path: Path) -> None:
    litert_tail(tmp_path, 0)
    model = LiteRtModel(tmp_path / "tail.tflite", 1)
    assert sorted(model.batched) == [2, 4, 8]
    features = np.random.default_rng(0).normal(size=(7, 8, 8, 8)).astype(np.float32)
    (together,) = model.run((features,))
    alone = np.concatenate([model.run((features[i : i + 1],))[0] for i in range(7)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert together.shape == (7, 4)


def test_a_graph_that_insists_on_one_runs_one_by_one(tmp_path: Path) -> None:
    graph = flatbuffer.read(around(tmp_path / "model.tflite", MIDDLES["moves"]))
    (tmp_path / "tail.tflite").write_bytes(cut_files(graph, cut_after(graph, 0))[1])
    model = LiteRtModel(tmp_path / "tail.tflite", 1)
    assert not model.batched
    (out,) = model.run((np.ones((3, 8, 8, 4), np.float32),))
    assert out.shape == (3, 4, 128)


def test_several_tensors_cross_as_one(tmp_path: Path) -> None:
    """What the head's outputs are joined into, the tail takes apart again."""
    graph = litert_tail(tmp_path, 1)
    tensors = tuple(Crossing(f"features{i}", (8, 8, 8), gain) for i, gain in enumerate((0.5, 2.0)))
    head, _ = cut_files(graph, cut_after(graph, 1))
    image = np.random.default_rng(3).random((1, 16, 16, 3), np.float32)
    bundle = bundle_of(tmp_path, TailPart("tail.tflite", "litert"), tensors=tensors)
    features = joined(Signature(opened(head), "head")(image=image), bundle.manifest.bottleneck)
    assert features.shape == (1, 1024, 1)
    (packed,) = Tail(bundle, 1).run([features])
    interpreter = opened(graph.path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    np.testing.assert_allclose(
        np.asarray(packed), interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], rtol=1e-5
    )


def test_a_decoder_runs_before_the_original_tail(tmp_path: Path) -> None:
    """ONNX Runtime first, LiteRT behind it."""
    onnx = pytest.importorskip("onnx")
    litert_tail(tmp_path, 0)
    floats = onnx.TensorProto.FLOAT
    half = onnx.helper.make_tensor("half", floats, [1], [0.5])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["features", "half"], ["activation"])],
        "decoder",
        [onnx.helper.make_tensor_value_info("features", floats, ["b", 8, 8, 8])],
        [onnx.helper.make_tensor_value_info("activation", floats, ["b", 8, 8, 8])],
        [half],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "decoder.onnx")
    last = TailPart("tail.tflite", "litert")
    features = np.random.default_rng(0).normal(size=(3, 8, 8, 8)).astype(np.float32)
    both = Tail(bundle_of(tmp_path, TailPart("decoder.onnx", "onnx"), last), 1).run(list(features))
    behind = Tail(bundle_of(tmp_path, last), 1).run(list(features * np.float32(0.5)))
    np.testing.assert_allclose(np.asarray(both), np.asarray(behind), rtol=1e-5)


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_warm_up_covers_every_batch(served: Served, engine: Any, max_batch: int, sizes: list[int]) -> None:
    assert sorted(warm_up(engine, served, max_batch)) == sizes
