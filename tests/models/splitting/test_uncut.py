"""A model before it is cut: what its answers are, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphs import Builder, classifier
from isthmus.models import flatbuffer
from isthmus.models.splitting import split
from isthmus.models.splitting.cuts import cut_after
from isthmus.models.splitting.outputs import Reading, check, classes_of, told
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.errors import ModelError

PICTURES = [np.full((16, 16, 3), 40 * i, np.uint8) for i in range(5)]


def test_classes_are_told_by_what_the_model_gives(tmp_path: Path) -> None:
    assert classes_of(flatbuffer.read(classifier(tmp_path / "c.tflite", classes=7)), "classification") == 7
    assert classes_of(flatbuffer.read(scores(tmp_path / "s.tflite")), "segmentation") == 3
    assert classes_of(flatbuffer.read(classifier(tmp_path / "c.tflite")), "detection") is None


def scores(path: Path) -> Path:
    """The greatest of three scores at each place."""
    b = Builder(3)
    image = b.tensor((1, 8, 8, 3))
    best = b.tensor((1, 8, 8), np.int64)
    inputs = [b.conv(image, 3, 3, 8), b.constant(np.array(3, np.int32))]
    b.add("ARG_MAX", inputs, [best], "ArgMaxOptions", outputType=4)
    return b.write(path, [image], [best])


def boxes(path: Path, order: str) -> Path:
    """Four outputs in the order of the letters: b for boxes (10, 4), s for scores and c for classes (10,), n for their count."""
    b = Builder(3)
    image = b.tensor((1, 16, 16, 3))
    pooled = b.mean(b.conv(image, 3, 8, 16, stride=2), 8)
    flat = b.dense(pooled, 8, 40)
    shape = b.constant(np.array([1, 10, 4], np.int32))
    made = {
        "b": b.add("RESHAPE", [flat, shape], [b.tensor((1, 10, 4))], "ReshapeOptions", newShape=[1, 10, 4]),
        "s": b.dense(pooled, 8, 10),
        "c": b.dense(pooled, 8, 10),
        "n": b.dense(pooled, 8, 1),
    }
    return b.write(path, [image], [made[letter] for letter in order])


@pytest.mark.parametrize(
    ("order", "task", "given"),
    [
        ("sbnc", "detection", r"\(1, 10\), \(1, 10, 4\), \(1, 1\), \(1, 10\)"),
        ("b", "detection", r"\(1, 10, 4\)"),
        ("bs", "detection", r"\(1, 10, 4\), \(1, 10\)"),
        ("s", "segmentation", r"\(1, 10\)"),
    ],
)
def test_outputs_that_are_not_the_task_s_are_one_line(order: str, task: str, given: str, tmp_path: Path) -> None:
    graph = flatbuffer.read(boxes(tmp_path / "model.tflite", order))
    with pytest.raises(ModelError, match=rf"model\.tflite: --task {task} needs .*; this model gives {given}"):
        Uncut.of(graph, input_of(graph, "0..1"), told(task, None), PICTURES)


def test_boxes_in_the_order_that_is_expected_are_taken(tmp_path: Path) -> None:
    graph = flatbuffer.read(boxes(tmp_path / "model.tflite", "bcsn"))
    corners, classes, scored = np.tile([0.1, 0.1, 0.5, 0.5], (10, 1)), np.zeros(10), np.full(10, 0.9)
    check(graph, Reading("detection"), (16, 16), [(corners, classes, scored, np.array([10.0]))])


def test_what_litert_refuses_to_run_is_one_line(tmp_path: Path) -> None:
    """It opens: only allocating finds that the shapes do not go together."""
    b = Builder()
    image = b.tensor((1, 16, 16, 3))
    first = b.conv(image, 3, 4, 16)
    wrong = b.add("ADD", [first, b.weights(5, 7)], [b.tensor((1, 16, 16, 4))], "AddOptions")
    graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [wrong]))
    with pytest.raises(ModelError, match=r"model\.tflite: LiteRT cannot run it \("):
        Uncut.of(graph, input_of(graph, "0..1"), told("segmentation", None), PICTURES)


def test_pixels_of_another_type_than_the_model_takes_are_one_line(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 16, 16, 3), np.bool_)
    real = b.add("CAST", [image], [b.tensor((1, 16, 16, 3))], "CastOptions", inDataType=6, outDataType=0)
    graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [b.conv(real, 3, 4, 16)]))
    with pytest.raises(ModelError, match=r"model\.tflite: LiteRT cannot run it on a picture \("):
        Uncut.of(graph, input_of(graph, "0..255"), told("segmentation", None), PICTURES)


def test_a_model_that_takes_bare_bytes_is_given_the_pixels_themselves(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 16, 16, 3), np.uint8)
    real = b.add("CAST", [image], [b.tensor((1, 16, 16, 3))], "CastOptions", inDataType=3, outDataType=0)
    graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [real]))
    found = Uncut.of(graph, input_of(graph), told("segmentation", None), PICTURES)
    assert [output.max() for output in found.outputs] == [picture.max() for picture in PICTURES]


def test_sizes_that_are_not_the_file_s_are_one_line(tmp_path: Path) -> None:
    """Flipped bits of a shape: LiteRT works the sizes out for itself and never looks."""
    b = Builder()
    image = b.tensor((1, 16, 16, 3))
    first = b.conv(image, 3, 4, 16)
    b.graph.tensors[first].shape = [1, 16, 16, 6]
    graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [b.conv(first, 4, 4, 16)]))
    uncut = Uncut.of(graph, input_of(graph, "0..1"), told("segmentation", None), PICTURES)
    why = r"model\.tflite: t1 is \(1, 16, 16, 4\) when it runs, the file says \(1, 16, 16, 6\)"
    with pytest.raises(ModelError, match=why):
        split.listed(uncut)
    with pytest.raises(
        ModelError, match=r"model\.tflite: "
    ):  # the tail alone, as the file has it, may not even be allocated
        split.measured(uncut, cut_after(graph, 0))


def test_features_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 16, 16, 3))
    endless = b.constant(np.broadcast_to(np.array([np.inf, 0, 0], np.float32), (1, 16, 16, 3)))
    total = b.add("ADD", [image, endless], [b.tensor((1, 16, 16, 3))], "AddOptions")
    small = b.add("TANH", [total], [b.tensor((1, 16, 16, 3))])
    graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [small]))
    whole = Uncut.of(graph, input_of(graph, "0..1"), told("segmentation", None), PICTURES)
    with pytest.raises(ModelError, match=r"model\.tflite: after operator 0: values that are not finite"):
        split.measured(whole, cut_after(graph, 0))
