"""Cutting: head after tail is the uncut model, bit for bit, at every cut; and what cannot be cut says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from graphs import MIDDLES, Builder, around, classifier
from isthmus.models import flatbuffer
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting.cuts import Cut, cut_after, cut_files, cuts
from isthmus.proto.errors import ModelError
from real_data import MODELS, model


def picture(graph: Graph) -> NDArray[np.generic]:
    tensor = graph.tensors[graph.inputs[0]]
    x = np.random.default_rng(1).integers(0, 256, tensor.shape)
    if tensor.dtype == "float32":
        return (x / 255).astype(np.float32)
    return (x - 128).astype(np.int8) if tensor.dtype == "int8" else x.astype(np.uint8)


def uncut(graph: Graph, x: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    interpreter = Interpreter(str(graph.path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def in_two(graph: Graph, cut: Cut, x: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    head, tail = cut_files(graph, cut)
    features = Interpreter(model_content=head, num_threads=1).get_signature_runner("head")(image=x)
    out = Interpreter(model_content=tail, num_threads=1).get_signature_runner("tail")(**features)
    return [out[f"output{i}"] for i in range(len(out))]


def assert_exact(graph: Graph, chosen: list[Cut]) -> None:
    x = picture(graph)
    expected = uncut(graph, x)
    for cut in chosen:
        for found, want in zip(in_two(graph, cut, x), expected, strict=True):
            np.testing.assert_array_equal(found, want, err_msg=f"{graph.path.name}, cut after {cut.after}")


@pytest.mark.parametrize("kind", MIDDLES)
def test_head_and_tail_are_the_uncut_model_for_every_class_of_operator(kind: str, tmp_path: Path) -> None:
    graph = flatbuffer.read(around(tmp_path / "model.tflite", MIDDLES[kind]))
    found = [cut for cut in cuts(graph) if not cut.obstacle]
    assert len(found) >= 2
    assert_exact(graph, found)


@pytest.mark.parametrize("name", MODELS)
def test_head_and_tail_are_the_uncut_model_on_real_ones(name: str) -> None:
    """A few cuts of each here; `benchmarks/split.py exact` runs them all."""
    graph = flatbuffer.read(model(name))
    found = cuts(graph)
    assert not any(cut.obstacle for cut in found)
    several = [cut for cut in found if len(cut.crossing) > 1]
    assert_exact(graph, [found[0], found[len(found) // 2], found[-1], *several[:1]])


def test_flops_and_bytes_add_up(tmp_path: Path) -> None:
    graph = flatbuffer.read(classifier(tmp_path / "model.tflite"))
    assert [o.flops for o in graph.operators] == [2 * 512 * 27, 2 * 512 * 72, 512, 512, 2 * 8 * 4, 5 * 4]
    for cut in cuts(graph):
        assert cut.head_flops + cut.tail_flops == graph.flops
    assert [cut.raw_bytes for cut in cuts(graph)] == [2048, 4096, 2048, 32, 16]
    assert [len(cut.crossing) for cut in cuts(graph)] == [1, 2, 1, 1, 1]


def test_an_operator_of_unknown_cost_is_counted_and_said_so(tmp_path: Path) -> None:
    graph = flatbuffer.read(around(tmp_path / "model.tflite", MIDDLES["unknown"]))
    assert [o.estimated for o in graph.operators] == [False, True, False]
    assert graph.operators[1].flops == 256


def test_a_half_carries_only_what_it_uses(tmp_path: Path) -> None:
    graph = flatbuffer.read(classifier(tmp_path / "model.tflite"))
    head, tail = cut_files(graph, cuts(graph)[0])
    (tmp_path / "head.tflite").write_bytes(head)
    (tmp_path / "tail.tflite").write_bytes(tail)
    first, rest = flatbuffer.read(tmp_path / "head.tflite"), flatbuffer.read(tmp_path / "tail.tflite")
    assert [o.kind for o in first.operators] == ["CONV_2D"]
    assert len(first.tensors) == 4
    assert len(first.model.operatorCodes) == 1
    assert [o.kind for o in rest.operators] == ["CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]


def test_weights_widened_from_float16_do_not_cross(tmp_path: Path) -> None:
    graph = flatbuffer.read(around(tmp_path / "model.tflite", MIDDLES["half_weights"]))
    assert all(len(cut.crossing) == 1 for cut in cuts(graph))


def test_where_an_integer_would_cross_is_no_cut(tmp_path: Path) -> None:
    def middle(b: Builder, x: int) -> int:
        whole = b.add("CAST", [x], [b.tensor((1, 8, 8, 4), np.int32)], "CastOptions", inDataType=0, outDataType=2)
        return b.add("CAST", [whole], [b.tensor((1, 8, 8, 4))], "CastOptions", inDataType=2, outDataType=0)

    graph = flatbuffer.read(around(tmp_path / "model.tflite", middle))
    assert [cut.obstacle for cut in cuts(graph)] == [None, "t4, a tensor of int32, would have to cross", None]
    with pytest.raises(ModelError, match=r"model\.tflite: after operator 1: t4, a tensor of int32"):
        cut_after(graph, 1)
    with pytest.raises(ModelError, match=r"model\.tflite: no cut after operator 9; the nearest is after 2"):
        cut_after(graph, 9)


def test_a_picture_that_is_needed_later_is_no_cut(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    total = b.add("ADD", [image, b.conv(image, 3, 3, 8)], [b.tensor((1, 8, 8, 3))], "AddOptions")
    graph = flatbuffer.read(b.write(tmp_path / "m.tflite", [image], [b.add("RELU", [total], [b.tensor((1, 8, 8, 3))])]))
    assert [cut.obstacle for cut in cuts(graph)] == ["the picture itself is needed behind it", None]


def refused(path: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        flatbuffer.read(path)


def test_a_file_that_is_not_there_or_no_model_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.tflite", r"none\.tflite: No such file")
    (tmp_path / "text.tflite").write_text("not a model at all")
    refused(tmp_path / "text.tflite", r"text\.tflite: not a \.tflite model")
    (tmp_path / "empty.tflite").write_bytes(b"")
    refused(tmp_path / "empty.tflite", r"empty\.tflite: not a \.tflite model")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_model_is_named(share: float, tmp_path: Path) -> None:
    whole = classifier(tmp_path / "model.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "cut.tflite", r"cut\.tflite: truncated or damaged")


def test_a_custom_operator_is_named(tmp_path: Path) -> None:
    def middle(b: Builder, x: int) -> int:
        return b.add("CUSTOM", [x], [b.tensor((1, 8, 8, 4))], custom="FancyPool")

    refused(around(tmp_path / "m.tflite", middle), r"m\.tflite: operator 1, custom FancyPool: custom operators")


def test_control_flow_is_named(tmp_path: Path) -> None:
    def middle(b: Builder, x: int) -> int:
        other = Builder()
        inside = other.tensor((1, 8, 8, 4))
        other.graph.inputs, other.graph.outputs = [inside], [inside]
        b.model.subgraphs.append(other.graph)
        return b.add("WHILE", [x], [b.tensor((1, 8, 8, 4))], "WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=1)

    refused(around(tmp_path / "m.tflite", middle), r"m\.tflite: operator 1, WHILE: control flow cannot be cut")


def choosing(path: Path, *, options: bool = True) -> Path:
    """A graph that ends in one of two branches: what is brighter than a threshold is squashed, what is not is cut off."""
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    features = b.mean(b.conv(b.conv(image, 3, 4, 8), 4, 4, 8), 4)
    for kind in ("LOGISTIC", "RELU"):
        branch = Builder()
        branch.model = b.model
        given, gives = branch.tensor((1, 4)), branch.tensor((1, 4))
        branch.add(kind, [given], [gives])
        branch.graph.inputs, branch.graph.outputs = [given], [gives]
        b.model.subgraphs.append(branch.graph)
    axes = b.constant(np.array([0, 1], np.int32))
    mean = b.add("MEAN", [features, axes], [b.tensor(())], "ReducerOptions", keepDims=False)
    threshold = b.constant(np.float32(0.4))
    b.graph.tensors[threshold].shape = []
    bright = b.add("GREATER", [mean, threshold], [b.tensor((), np.bool_)], "GreaterOptions")
    made: dict[str, Any] = {"thenSubgraphIndex": 1, "elseSubgraphIndex": 2} if options else {}
    answer = b.add("IF", [bright, features], [b.tensor((1, 4))], "IfOptions" if options else "", **made)
    return b.write(path, [image], [answer])


def test_a_choice_at_the_end_runs_whole_in_the_tail(tmp_path: Path) -> None:
    graph = flatbuffer.read(choosing(tmp_path / "m.tflite"))
    found = [cut for cut in cuts(graph) if not cut.obstacle]
    assert [cut.after for cut in found] == [0, 1, 2]
    rng = np.random.default_rng(1)
    for scale in (0.05, 4.0):  # one for each branch
        x = rng.uniform(0, scale, (1, 8, 8, 3)).astype(np.float32)
        for cut in found:
            for part, want in zip(in_two(graph, cut, x), uncut(graph, x), strict=True):
                np.testing.assert_array_equal(part, want)


def test_a_choice_that_does_not_say_between_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.tflite: "):
        flatbuffer.read(choosing(tmp_path / "m.tflite", options=False))


def test_suppression_with_a_constant_number_of_boxes_stays_in_the_tail(tmp_path: Path) -> None:
    """NON_MAX_SUPPRESSION_V4 with constant limits, and the boxes that it chose: as graphs end that suppress by themselves."""
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    features = b.conv(image, 3, 4, 8)
    places, scores = b.conv(features, 4, 4, 8), b.conv(features, 4, 1, 8)
    flat = b.add("RESHAPE", [places, b.constant(np.array([64, 4], np.int32))], [b.tensor((64, 4))], "ReshapeOptions")
    score = b.add("RESHAPE", [scores, b.constant(np.array([64], np.int32))], [b.tensor((64,))], "ReshapeOptions")
    most, overlap, least = (b.constant(v) for v in (np.int32(10), np.float32(0.5), np.float32(-1)))
    for constant in (most, overlap, least):
        b.graph.tensors[constant].shape = []
    chosen, count = b.tensor((), np.int32), b.tensor((), np.int32)
    b.add("NON_MAX_SUPPRESSION_V4", [flat, score, most, overlap, least], [chosen, count], "NonMaxSuppressionV4Options")
    kept = b.add("GATHER", [flat, chosen], [b.tensor((10, 4))], "GatherOptions", axis=0)
    answer = b.add(
        "RESHAPE", [kept, b.constant(np.array([1, 10, 4], np.int32))], [b.tensor((1, 10, 4))], "ReshapeOptions"
    )
    graph = flatbuffer.read(b.write(tmp_path / "nms.tflite", [image], [answer]))
    found = [cut for cut in cuts(graph) if not cut.obstacle]
    assert len(found) >= 3
    assert_exact(graph, found)


def test_several_subgraphs_are_counted(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    b.model.subgraphs.append(b.graph)
    refused(b.write(tmp_path / "m.tflite", [image], [b.conv(image, 3, 4, 8)]), r"m\.tflite: 2 subgraphs, expected one")


def test_a_dynamic_shape_is_named(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    b.graph.tensors[image].shapeSignature = [-1, -1, -1, 3]
    refused(
        b.write(tmp_path / "m.tflite", [image], [b.conv(image, 3, 4, 8)]), r"m\.tflite: input t0: a shape .* run time"
    )


def test_what_has_no_size_before_it_runs_stays_in_one_half(tmp_path: Path) -> None:
    """Keras' Flatten of an open batch: the shape is computed, and the tensor that it gives is sized at run time only."""
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    features = b.conv(image, 3, 4, 8)
    shape = b.add("SHAPE", [features], [b.tensor((4,), np.int32)], "ShapeOptions", outType=2)
    begin, end, strides = (b.constant(np.array([n], np.int32)) for n in (0, 1, 1))
    batch = b.add(
        "STRIDED_SLICE", [shape, begin, end, strides], [b.tensor((), np.int32)], "StridedSliceOptions", shrinkAxisMask=1
    )
    rest = b.constant(np.array(256, np.int32))
    b.graph.tensors[rest].shape = []
    target = b.add("PACK", [batch, rest], [b.tensor((2,), np.int32)], "PackOptions", valuesCount=2)
    flat = b.tensor((1, 1))
    b.graph.tensors[flat].shapeSignature = [-1, -1]
    b.add("RESHAPE", [features, target], [flat])
    graph = flatbuffer.read(b.write(tmp_path / "flatten.tflite", [image], [b.dense(flat, 256, 4)]))
    found = {cut.after: cut.obstacle for cut in cuts(graph)}
    assert found[0] is None
    assert "whose size is only known at run time, would have to cross" in str(found[4])
    assert_exact(graph, [cut for cut in cuts(graph) if not cut.obstacle])


def test_a_batch_of_any_size_is_taken_as_one(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    b.graph.tensors[image].shapeSignature = [-1, 8, 8, 3]
    answer = b.softmax(b.dense(b.mean(b.conv(image, 3, 4, 8), 4), 4, 3), 3)
    graph = flatbuffer.read(b.write(tmp_path / "m.tflite", [image], [answer]))
    assert_exact(graph, list(cuts(graph)))


def test_state_is_refused(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    out = b.conv(image, 3, 4, 8)
    b.graph.tensors[b.tensor((1, 4))].isVariable = True
    refused(b.write(tmp_path / "m.tflite", [image], [out]), r"m\.tflite: tensor t4 keeps state from frame to frame")


def test_a_model_of_one_operator_has_no_place_to_cut(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    graph = flatbuffer.read(b.write(tmp_path / "m.tflite", [image], [b.conv(image, 3, 4, 8)]))
    with pytest.raises(ModelError, match=r"m\.tflite: no place to cut among 1 operators"):
        cuts(graph)


def test_a_second_input_is_named_as_what_it_is(tmp_path: Path) -> None:
    b = Builder()
    images = [b.tensor((1, 8, 8, 3)) for _ in range(2)]
    first, second = (b.conv(image, 3, 4, 8) for image in images)
    total = b.add("ADD", [first, second], [b.tensor((1, 8, 8, 4))], "AddOptions")
    graph = flatbuffer.read(b.write(tmp_path / "two.tflite", images, [total]))
    with pytest.raises(ModelError, match=r"two\.tflite: takes 2 inputs, expected one picture"):
        cuts(graph)


def test_a_graph_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    b.conv(image, 3, 4, 8)
    with pytest.raises(ModelError, match=r"mute\.tflite: gives nothing"):
        flatbuffer.read(b.write(tmp_path / "mute.tflite", [image], []))
