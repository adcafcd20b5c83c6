"""Decoders: a box that a family of detectors would write is found where it is; of doubles the surest stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto.tasks.boxes import (
    BINS,
    STRIDES,
    Boxes,
    Floats,
    cell_count,
    cells_of,
    decoded,
    overlaps,
    suppressed,
)
from isthmus.proto.tasks.detection import Detection
from isthmus.proto.vocabulary import Box
from real_data import data

SIZE = (64, 96)
CLASSES, LABEL = 7, 4
TOP, LEFT, BOTTOM, RIGHT = PLACE = (0.25, 0.125, 0.75, 0.5)
CENTER = np.array([(LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2]) * (SIZE[1], SIZE[0])
EXTENT = np.array([RIGHT - LEFT, BOTTOM - TOP]) * (SIZE[1], SIZE[0])
CELLS = cell_count(SIZE, STRIDES)


def classes(at: int, cells: int = CELLS) -> Floats:
    scores = np.full((cells, CLASSES), 0.01, np.float32)
    scores[at, LABEL] = 0.9
    return scores


def yolov5() -> Floats:
    rows = np.zeros((3 * CELLS, 5 + CLASSES), np.float32)
    rows[:, 5:] = classes(100, 3 * CELLS)
    rows[100, :5] = *CENTER, *EXTENT, 1.0
    return rows


def yolov8() -> Floats:
    rows = np.zeros((CELLS, 4 + CLASSES), np.float32)
    rows[:, 4:] = classes(20)
    rows[20, :4] = *(CENTER / (SIZE[1], SIZE[0])), *(EXTENT / (SIZE[1], SIZE[0]))
    return rows.T


def yolox() -> Floats:
    at, stride = cells_of(SIZE, STRIDES, CELLS)
    rows = np.zeros((CELLS, 5 + CLASSES), np.float32)
    rows[:, 5:] = classes(99)
    rows[99, :5] = *(CENTER / stride[99] - at[99]), *np.log(EXTENT / stride[99]), 1.0
    return rows


def nanodet() -> Floats:
    at, stride = cells_of(SIZE, STRIDES, CELLS)
    rows = np.zeros((CELLS, CLASSES + 4 * BINS), np.float32)
    rows[:, :CLASSES] = classes(109)
    here = (at[109] + 0.5) * stride[109]
    sides = np.hstack([here - (CENTER - EXTENT / 2), CENTER + EXTENT / 2 - here]) / stride[109]
    bins = np.full((4, BINS), -30.0)
    for side, distance in enumerate(sides):
        low = int(distance)
        bins[side, low : low + 2] = np.log(np.maximum([1 - distance + low, distance - low], 1e-12))
    rows[109, CLASSES:] = bins.ravel()
    return rows


def fastestdet() -> Floats:
    rows, columns = SIZE[0] // 16, SIZE[1] // 16
    cells = np.zeros((5 + CLASSES, rows, columns), np.float32)
    y, x = 2, 1
    center, extent = CENTER / 16, EXTENT / (SIZE[1], SIZE[0])
    cells[0, y, x], cells[5 + LABEL, y, x] = 0.95, 0.9
    cells[1:3, y, x] = np.arctanh(center - (x, y))
    cells[3:5, y, x] = np.log(extent / (1 - extent))
    return cells


def cells() -> Floats:
    rows, columns = SIZE[0] // 8, SIZE[1] // 8
    found = np.full((rows, columns, CLASSES + 4), -9.0, np.float32)
    y, x = 3, 4
    found[y, x, LABEL] = np.log(0.9 / 0.1)
    found[y, x, -4:-2] = CENTER / 8 - (x + 0.5, y + 0.5)
    found[y, x, -2:] = np.log(EXTENT / 8)
    return found


@pytest.mark.parametrize(
    ("boxes", "raw"),
    [
        (Boxes("cells"), cells),
        (Boxes("yolov5", unit="pixels"), yolov5),
        (Boxes("yolov8"), yolov8),
        (Boxes("yolox"), yolox),
        (Boxes("nanodet"), nanodet),
        (Boxes("fastestdet"), fastestdet),
    ],
    ids=lambda value: value.decoder if isinstance(value, Boxes) else "",
)
def test_a_family_is_read_as_it_writes(boxes: Boxes, raw: Callable[[], Floats]) -> None:
    ((label, score, *place),) = decoded([raw()], boxes, SIZE).tolist()
    assert (label, place) == (LABEL, pytest.approx(PLACE, abs=1e-4))
    assert score == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_faces_are_read_from_the_middles_of_their_cells(short: bool, swapped: bool) -> None:
    size = (128, 128) if short else (192, 192)
    n = 896 if short else 2304
    number = 2 * (16 * 3 + 5) if short else 48 * 3 + 5
    middle = np.array([(5 + 0.5), (3 + 0.5)]) * (8 if short else 4)  # x, y of the fifth cell of the third row
    places, logits = np.zeros((n, 16), np.float32), np.full((n, 1), -9, np.float32)
    places[number, :4] = 10, 20, 32, 40
    logits[number] = 1.5
    outputs = [logits, places] if swapped else [places, logits]
    ((label, score, *place),) = decoded(outputs, Boxes("blazeface"), size).tolist()
    left, top = middle + np.array([10 - 16, 20 - 20])
    assert (label, score) == (0, pytest.approx(1 / (1 + np.exp(-1.5))))
    assert place == pytest.approx([v / size[0] for v in (top, left, top + 40, left + 32)], abs=1e-6)


def test_what_are_no_faces_is_refused() -> None:
    for outputs in (
        [np.zeros((2304, 16))],
        [np.zeros((2304, 15)), np.zeros((2304, 1))],
        [np.zeros((9, 16)), np.zeros((9, 1))],
    ):
        with pytest.raises(ValueError, match=r"expected|has 2304 or"):
            decoded(outputs, Boxes("blazeface"), (192, 192))


@pytest.mark.parametrize(
    ("order", "form"), [((0, 1, 2, 3), "tlbr"), ((1, 3, 0, 2), "tlbr"), ((0, 1, 2), "ltrb"), ((0, 1, 2), "center")]
)
def test_places_are_read_in_their_order_form_and_count(order: tuple[int, ...], form: str) -> None:
    written = {
        "tlbr": PLACE,
        "ltrb": (LEFT, TOP, RIGHT, BOTTOM),
        "center": ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2, RIGHT - LEFT, BOTTOM - TOP),
    }[form]
    own = [np.array([written] * 3, np.float32), np.full(3, LABEL), np.array([0.8, 0.7, 0.6]), np.array([2.0])]
    outputs = [own[order.index(i)] for i in range(len(order))]
    rows = decoded(outputs, Boxes(order=order, form=form), SIZE)  # type: ignore[arg-type]
    assert len(rows) == (2 if len(order) == 4 else 3)
    np.testing.assert_allclose(rows[0], [LABEL, 0.8, *PLACE], atol=1e-6)


def test_a_graph_that_suppresses_by_itself_is_read_by_rows() -> None:
    raw = np.array([[12, 16, 48, 48, 0.9, 4], [0, 0, 0, 0, 0.0, 0]], np.float32)
    ((label, score, *place),) = decoded([raw], Boxes("rows", form="ltrb", unit="pixels"), SIZE).tolist()
    assert (label, round(score, 3), place) == (4, 0.9, pytest.approx(PLACE))


@pytest.mark.parametrize("family", ["yolov5", "yolov8", "yolox", "nanodet", "fastestdet", "places", "rows", "cells"])
def test_outputs_of_another_form_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match=r"expected|cells"):
        decoded([np.zeros((3, 2, 5, 1), np.float32)], Boxes(family), SIZE)  # type: ignore[arg-type]


rows_of = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.floats(0, 1, width=32),
        *[st.floats(0, 1, width=32)] * 2,
        *[st.floats(0.125, 1, width=32)] * 2,
    ),
    max_size=40,
)


@given(rows_of, st.floats(0.1, 0.9))
def test_what_is_suppressed_lies_over_a_surer_box_of_its_class(
    given_rows: list[tuple[float, ...]], overlap: float
) -> None:
    rows = np.array([(k, s, t, left, t + h, left + w) for k, s, t, left, h, w in given_rows], np.float32).reshape(-1, 6)
    kept = suppressed(rows, overlap, 100)
    assert (np.diff(kept[:, 1]) <= 0).all()
    for row in rows:
        over = [k for k in kept if k[0] == row[0] and k[1] >= row[1] and overlaps(row[2:], k[None, 2:])[0] > overlap]
        assert over or any(np.array_equal(row, k) for k in kept)
    for i, row in enumerate(kept):
        same = kept[:i][kept[:i, 0] == row[0]]
        assert not len(same) or overlaps(row[2:], same[:, 2:]).max() <= overlap


def test_an_answer_holds_the_surest_boxes_once() -> None:
    outputs = [
        np.array([[0, 0, 0.5, 0.5], [0.01, 0, 0.5, 0.5], [0.6, 0.6, 1, 1]]),
        np.array([1, 1, 1]),
        np.array([0.5, 0.9, 0.2]),
    ]
    guess = Detection().guess(Detection().pack(outputs), temperature=1.0, accuracy=0.3)
    (box,) = guess.detail  # type: ignore[misc]
    assert isinstance(box, Box)
    assert (box.label, round(box.score, 3), round(box.top, 3)) == (1, 0.9, 0.01)


def test_raw_outputs_are_read_as_the_same_network_reads_them_itself() -> None:
    """FastestDet and YOLOX-nano, each once as published, and once with its decoding inside the graph."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from ai_edge_litert.interpreter import Interpreter

    picture = np.random.default_rng(0).integers(0, 256, (1, 352, 352, 3)).astype(np.float32)
    raw = onnxruntime.InferenceSession(str(data("models/FastestDet.onnx"))).run(
        None, {"input.1": picture[..., ::-1].transpose(0, 3, 1, 2) / 255}
    )
    inside = Interpreter(str(data("detectors/fastestdet_352_f32.tflite")))
    inside.allocate_tensors()
    inside.set_tensor(inside.get_input_details()[0]["index"], picture)
    inside.invoke()
    own = [inside.get_tensor(d["index"])[0] for d in inside.get_output_details()]
    least = Boxes("fastestdet", score=0.02)
    ours, theirs = decoded([raw[0][0]], least, (352, 352)), decoded(own, Boxes(score=0.02), (352, 352))
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
