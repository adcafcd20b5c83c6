"""What outputs mean: recognised where shapes and values make it certain, asked for everywhere else, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from graphs import Builder
from isthmus.models import flatbuffer
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting.outputs import Reading, check, classes_of, reading_of, told, unbatched
from isthmus.proto.errors import ConfigError, ModelError
from isthmus.proto.tasks.boxes import STRIDES, Boxes, cell_count

SIZE = (64, 64)
CELLS = cell_count(SIZE, STRIDES)
RNG = np.random.default_rng(0)


def giving(path: Path, *shapes: tuple[int, ...]) -> Graph:
    """A graph whose outputs are of these shapes; what stands in them is made up by each test."""
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    features = b.conv(image, 3, 4, 8)
    targets = [b.constant(np.array(shape, np.int32)) for shape in shapes]
    outputs = [b.add("RESHAPE", [features, t], [b.tensor(s)]) for t, s in zip(targets, shapes, strict=True)]
    return flatbuffer.read(b.write(path, [image], outputs))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return giving(tmp_path_factory.mktemp("graph") / "any.tflite", (1, 8, 8, 4))


def shown(*arrays: NDArray[np.float32]) -> Sequence[Sequence[NDArray[np.float32]]]:
    return [arrays] * 3


def scores(*shape: int) -> NDArray[np.float32]:
    return RNG.uniform(0, 1, shape).astype(np.float32)


def places(n: int, largest: float = 1.0) -> NDArray[np.float32]:
    return RNG.uniform(0, largest, (n, 4)).astype(np.float32)


CLASSES = RNG.integers(0, 80, 10).astype(np.float32)
COUNT = np.array([10.0], np.float32)
SOFTMAX = np.exp(scores(4, 4, 20)) / np.exp(scores(4, 4, 20)).sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (shown(places(10), CLASSES, scores(10), COUNT), Boxes()),
        (shown(scores(10), places(10), COUNT, CLASSES), Boxes(order=(1, 3, 0, 2))),
        (shown(np.hstack([places(3 * CELLS), scores(3 * CELLS, 6)])), Boxes("yolov5")),
        (shown(np.hstack([places(3 * CELLS, 64), scores(3 * CELLS, 6)])), Boxes("yolov5", unit="pixels")),
        (shown(np.hstack([places(CELLS, 64), scores(CELLS, 6)]).T), Boxes("yolov8", unit="pixels")),
        (shown(np.hstack([places(CELLS) - 0.5, scores(CELLS, 6)])), Boxes("yolox")),
        (shown(np.hstack([scores(CELLS, 6), RNG.normal(0, 3, (CELLS, 32)).astype(np.float32)])), Boxes("nanodet")),
        (
            shown(np.hstack([places(50, 64), scores(50, 1), CLASSES.repeat(5)[:, None]])),
            Boxes("rows", form="ltrb", unit="pixels"),
        ),
    ],
    ids=lambda value: value.decoder if isinstance(value, Boxes) else "",
)
def test_what_is_certain_is_recognised(
    graph: Graph, outputs: Sequence[Sequence[NDArray[np.float32]]], expected: Boxes
) -> None:
    assert reading_of(graph, SIZE, outputs) == Reading("detection", expected)


def test_cells_with_a_softmax_behind_an_objectness_are_fastestdet(graph: Graph) -> None:
    raw = RNG.exponential(1, (20, 4, 4)).astype(np.float32)
    cells = np.concatenate([scores(1, 4, 4), RNG.normal(0, 1, (4, 4, 4)).astype(np.float32), raw / raw.sum(0)])
    assert reading_of(graph, SIZE, shown(cells)) == Reading("detection", Boxes("fastestdet"))
    assert reading_of(graph, SIZE, shown(np.moveaxis(cells, 0, 2))) == Reading("detection", Boxes("fastestdet"))


@pytest.mark.parametrize(
    "outputs",
    [
        shown(scores(9, 64)),  # channels by anchors, but of no picture of this size
        shown(scores(CELLS, 85) * 100),
        shown(places(10), scores(10), scores(10), COUNT),
        shown(places(10), CLASSES, scores(10)),
        shown(scores(10, 6)),
    ],
)
def test_what_is_not_certain_is_asked_for(tmp_path: Path, outputs: Sequence[Sequence[NDArray[np.float32]]]) -> None:
    raw = giving(tmp_path / "raw.tflite", *((1, *a.shape) for a in outputs[0]))
    with pytest.raises(ModelError, match=r"say what that is: --task .*--boxes places, rows, .*yolov5"):
        reading_of(raw, SIZE, outputs)


def test_a_reading_is_told_in_a_word_or_key_by_key() -> None:
    assert told(None, None) is None
    assert told("segmentation", None) == Reading("segmentation")
    assert told("detection", None) == Reading("detection")
    assert told(None, "yolox,score=0.25,most=20") == Reading("detection", Boxes("yolox", score=0.25, most=20))
    assert told(None, "places,order=1:3:0:2,form=ltrb") == Reading("detection", Boxes(order=(1, 3, 0, 2), form="ltrb"))


@pytest.mark.parametrize("boxes", ["yolo9000", "yolox,scare=0.2", "yolox,score=2", "places,order=1:x"])
def test_a_reading_that_does_not_exist_is_refused(boxes: str) -> None:
    with pytest.raises(ConfigError, match=r"^--boxes .*write FAMILY,key=value"):
        told(None, boxes)


def test_a_task_that_does_not_fit_is_one_line(graph: Graph) -> None:
    with pytest.raises(
        ModelError,
        match=r"any\.tflite: --task detection needs boxes \(N, 4\).*; this model gives \(1, 1, 17, 3\) \(1 outputs",
    ):
        check(graph, Reading("detection", Boxes()), SIZE, shown(scores(1, 17, 3)))


def test_a_detector_that_sees_nothing_is_refused(graph: Graph) -> None:
    """Two answers without a box agree in all: every score is zero in a model whose conversion broke."""
    blind = shown(places(10), CLASSES, np.zeros(10, np.float32), COUNT)
    with pytest.raises(ModelError, match=r"no box of 0\.3 or surer in any of 3 pictures"):
        check(graph, Reading("detection", Boxes()), SIZE, blind)


@pytest.mark.parametrize(
    ("shape", "boxes", "classes"),
    [
        ((1, 3 * CELLS, 85), Boxes("yolov5"), 80),
        ((1, CELLS, 25), Boxes("yolox"), 20),
        ((1, 84, CELLS), Boxes("yolov8"), 80),
        ((1, 85, 4, 4), Boxes("fastestdet"), 80),
        ((1, 4, 4, 85), Boxes("fastestdet"), 80),
        ((1, CELLS, 112), Boxes("nanodet"), 80),
        ((1, 100, 6), Boxes("rows"), None),
    ],
)
def test_the_classes_of_a_detector_are_counted_where_each_has_a_score(
    shape: tuple[int, ...], boxes: Boxes, classes: int | None, tmp_path: Path
) -> None:
    assert classes_of(giving(tmp_path / "model.tflite", shape), "detection", boxes) == classes


def test_faces_are_told_by_as_many_cells_as_the_picture_has(graph: Graph) -> None:
    faces = shown(RNG.normal(0, 3, (256, 16)).astype(np.float32), RNG.normal(0, 3, (256, 1)).astype(np.float32))
    assert reading_of(graph, SIZE, faces) == Reading("detection", Boxes("blazeface"))
    assert classes_of(graph, "detection", Boxes("blazeface")) == 1
    assert reading_of(graph, (96, 64), faces).boxes is None  # a graph of one output is a map of scores


def test_outputs_without_a_batch_are_refused(graph: Graph) -> None:
    """Its first row would be taken for the answer to the first picture."""
    with pytest.raises(ModelError, match=r"gives \(100, 4\) to one picture, without a batch"):
        unbatched(graph, [np.zeros((100, 4))])
