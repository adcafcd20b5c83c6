"""An `.onnx` file as the large model of a pair: the same answers live, and a clear word for what is not supported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs import classifier
from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.models import flatbuffer, scenes
from isthmus.models.bundle import load
from isthmus.models.pictures import Intake
from isthmus.models.splitting import onnx_model, pair
from isthmus.models.splitting.ladder import Coder, Sight
from isthmus.models.splitting.outputs import told
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.errors import ModelError
from isthmus.proto.frame_codec import FrameCodec

PICTURES = [np.ascontiguousarray(cv2.resize(image, (40, 30)).astype(np.uint8)) for image in scenes.samples(10, 5)[0]]


def written(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """A convolution, the mean of its map, a product of matrices, a softmax: (1, 3, 24, 24) to (1, 4)."""
    rng = np.random.default_rng(1)
    p: dict[str, Any] = {
        "inputs": [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 24, 24])],
        "weights": [
            numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "w"),
            numpy_helper.from_array(rng.normal(size=(8, 4)).astype(np.float32), "d"),
        ],
        "nodes": [
            helper.make_node("Conv", ["pixels", "w"], ["map"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "d"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "outputs": [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4])],
    }
    change(p)
    graph = helper.make_graph(p["nodes"], "made", p["inputs"], p["outputs"], p["weights"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_pair_with_it_answers_live_as_it_does(tmp_path: Path) -> None:
    small = flatbuffer.read(classifier(tmp_path / "small.tflite"))
    large = onnx_model.read(written(tmp_path / "large.onnx"))
    assert large.flops == pytest.approx(2 * 27 * 8 * 24 * 24 + 2 * 8 * 4, rel=0.01)
    reading = told("classification-probabilities", None)
    device = Uncut.of(small, input_of(small, "0..1"), reading, PICTURES)
    server = Uncut.of(large, input_of(large, "0..1", colours="bgr"), reading, PICTURES)
    made = pair.pair(device, server, PICTURES, Coder("webp", (Sight((90, 20), 20),)), lambda _: None)
    pair.write(tmp_path / "pair", made, labels=["a", "b", "c", "d"])
    found = load(str(tmp_path / "pair"))
    assert found.manifest.picture is not None
    assert found.manifest.picture.tail[0].file == "large.onnx"
    assert found.manifest.picture.size == (20, 20)
    assert found.manifest.picture.input.layout == "first"
    executor, codec = Executor(found), FrameCodec(found.codec)
    for number, pixels in enumerate(PICTURES[:3]):
        executor.hold(number, pixels)
        for stage in range(2):
            executor.job(number, stage, 1.0)()
    frames = [codec.decode([executor.encode(number, 0, 0)]) for number in range(3)]
    run, intake = onnx_model.OnnxRun(large), Intake(server.input)
    for packed, seen in zip(Tail(found, 1).run(frames), frames, strict=True):  # three at once, of a model for one
        assert packed is not None
        guess = found.manifest.answers.guess(packed, temperature=1.0, accuracy=1.0)
        answer = run(intake(cv2.resize(seen, (24, 24))))["scores"][0]
        assert guess.label == answer.argmax()
        assert guess.confidence == pytest.approx(float(answer.max()), abs=1e-4)


def two_inputs(p: dict[str, Any]) -> None:
    p["inputs"].append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def bytes_in(p: dict[str, Any]) -> None:
    p["inputs"][0] = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 3, 24, 24])
    p["nodes"].insert(0, helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT))
    p["nodes"][1].input[0] = "x"


def of_any_size(p: dict[str, Any]) -> None:
    p["inputs"][0] = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, "height", "width"])


def unknown_operator(p: dict[str, Any]) -> None:
    p["nodes"][0].op_type = "Convolve"


def without_batch(p: dict[str, Any]) -> None:
    p["nodes"][-1] = helper.make_node("ReduceSum", ["logits"], ["scores"], keepdims=0)
    p["outputs"][0] = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [])


def weights_elsewhere(p: dict[str, Any]) -> None:
    onnx.external_data_helper.set_external_data(p["weights"][0], "weights.bin")


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "two inputs": (two_inputs, r"takes 2 inputs \(pixels, more\), expected one picture"),
    "bytes": (bytes_in, r"input pixels is tensor\(uint8\), expected tensor\(float\)"),
    "any size": (of_any_size, r"export it with a fixed size"),
    "an unknown operator": (unknown_operator, r"not a model that ONNX Runtime can run"),
    "no batch": (without_batch, r"gives no arrays with a batch of one"),
    "weights elsewhere": (weights_elsewhere, r"keeps its weights in another file; save it as one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, case: str) -> None:
    change, why = REFUSED[case]
    with pytest.raises(ModelError, match=rf"large\.onnx: .*{why}"):
        onnx_model.read(written(tmp_path / "large.onnx", change))


def test_a_damaged_file_is_an_error_message(tmp_path: Path) -> None:
    path = written(tmp_path / "large.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match=r"large\.onnx: not a"):
        onnx_model.read(path)
    with pytest.raises(ModelError, match=r"absent\.onnx: No such file"):
        onnx_model.read(tmp_path / "absent.onnx")
