"""Detectors as people have them, cut in two: head after tail is the uncut model, and boxes come out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.models import flatbuffer, scenes
from isthmus.models.litert import Signature, opened
from isthmus.models.splitting import split
from isthmus.models.splitting.cuts import HEAD, TAIL, cut_files, cuts
from isthmus.models.splitting.outputs import Reading, told
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.tasks.boxes import Boxes
from real_data import data

CASES = Path(__file__).parent / "cases"
PICTURES = list(scenes.samples(12, 3)[0])
ANY = Boxes(score=0.0)


def test_an_ssd_is_cut_before_the_operator_that_litert_carries() -> None:
    """The four outputs stand without a shape in the file, as in every converted SSD of TensorFlow 1."""
    graph = flatbuffer.read(CASES / "ssd_postprocess.tflite")
    assert [graph.tensors[i].shape for i in graph.outputs] == [(1, 10, 4), (1, 10), (1, 10), (1,)]
    uncut = Uncut.of(graph, input_of(graph, "0..1"), Reading("detection", ANY), PICTURES)
    usable = [cut for cut in cuts(graph) if not cut.obstacle]
    assert len(usable) > 5
    for cut in usable:
        head, tail = (
            Signature(opened(file), key) for file, key in zip(cut_files(graph, cut), (HEAD, TAIL), strict=True)
        )
        out = head(image=uncut.images[0])
        answer = tail(**{name: out[name] for name in tail.inputs})
        np.testing.assert_array_equal(answer["output0"][0], uncut.outputs[0], err_msg=f"after {cut.after}")


@pytest.mark.parametrize("said", [None, "detection"])
@pytest.mark.parametrize(
    ("file", "order"), [("ssd_postprocess.tflite", (0, 1, 2, 3)), ("boxes_tf2_order.tflite", (1, 3, 0, 2))]
)
def test_the_order_of_an_ssds_outputs_is_found(
    file: str, order: tuple[int, ...], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the task is told, but not how its boxes are read."""
    monkeypatch.setattr("isthmus.models.splitting.uncut.check", lambda *_: None)  # untrained: hardly anything is sure
    graph = flatbuffer.read(CASES / file)
    reading = Uncut.of(graph, input_of(graph, "0..1"), told(said, None), PICTURES).reading
    assert (reading.task, reading.boxes and reading.boxes.order) == ("detection", order)


def test_a_cut_where_a_pools_padding_would_cross_is_the_only_one_that_is_not_possible() -> None:
    """FastestDet pads a pool with minus infinity, which no quantiser takes; what is beside that cut can be cut."""
    graph = flatbuffer.read(data("detectors/fastestdet_352_f32.tflite"))
    uncut = Uncut.of(graph, input_of(graph, "0..255"), Reading("detection", ANY), PICTURES[:4])
    places = split.listed(uncut)
    infinite = [place.cut.after for place in places if "not finite" in (place.cut.obstacle or "")]
    assert 0 < len(infinite) < 5
    assert sum(place.coded_bytes is not None for place in places) > 100
