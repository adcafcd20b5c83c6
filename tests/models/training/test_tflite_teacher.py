"""The teacher: what a student is trained on, what the server runs of it, and its answers to pictures; a torch copy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from graphs import MIDDLES, around
from isthmus.models import flatbuffer
from isthmus.models.distillation.views import Album, Answers, view
from isthmus.models.litert import Signature, opened
from isthmus.models.splitting.cuts import whole
from isthmus.models.splitting.uncut import input_of
from isthmus.models.training.tflite_teacher import Teacher, TeacherTargets
from isthmus.proto.errors import DataError, ModelError
from small_teachers import SIZE, fill, silent, teacher


def test_a_teacher_tells_a_late_map_and_what_stands_before_its_softmax(tmp_path: Path) -> None:
    found = teacher(tmp_path)
    assert list(found.targets) == ["logits", "hint"]
    assert found.targets["hint"].shape == (1, 16, 16, 8)
    assert (found.classes, found.task) == (4, "classification-probabilities")
    stored = TeacherTargets(found)(np.full((SIZE, SIZE, 3), 80, np.uint8))
    logits = stored["logits"].ravel()
    p = np.exp(logits - logits.max())
    np.testing.assert_allclose(stored["answer"].ravel(), p / p.sum(), atol=1e-5)


def test_the_tail_is_the_whole_model_behind_a_picture(tmp_path: Path) -> None:
    found = teacher(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    answer_of_file = TeacherTargets(found)(picture)["answer"].copy()
    (answer,) = found.opened_tail()(features=picture[None].astype(np.float32) / 255).values()
    np.testing.assert_allclose(answer[0], answer_of_file, atol=1e-6)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    graph = flatbuffer.read(around(tmp_path / "map.tflite", MIDDLES["convolution"]))
    with pytest.raises(
        ModelError, match=r"map\.tflite: answers float32 \(1, 4, 4, 6\); only classes can be learnt from"
    ):
        Teacher(graph, input_of(graph, "0..1"))


def test_view_0_is_what_the_device_sees_and_the_others_are_repeatable_parts() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    device = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(view(picture, 64, 0, seed=5), device)
    np.testing.assert_array_equal(view(picture, 64, 3, seed=5), view(picture, 64, 3, seed=5))
    assert (view(picture, 64, 3, seed=5) != view(picture, 64, 4, seed=5)).any()
    assert (view(picture, 64, 3, seed=5) != view(picture, 64, 3, seed=6)).any()


def test_answers_are_computed_once_and_are_the_teachers(tmp_path: Path) -> None:
    found, source = teacher(tmp_path), fill(tmp_path / "pictures", 5)
    album = Album(source, SIZE, tmp_path / "cache", silent)
    answers = Answers(album, found, seed=1)
    kept = {name: np.array(values) for name, values in answers.of_view(1, silent).items()}
    stored = TeacherTargets(found)(answers.image(3, 1))
    for name, values in kept.items():
        np.testing.assert_array_equal(values[3], stored[name])
    found.graph.path.unlink()
    again = Answers(Album(source, SIZE, tmp_path / "cache", silent), found, seed=1).of_view(1, silent)
    np.testing.assert_array_equal(again["hint"], kept["hint"])


def test_a_picture_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    source = fill(tmp_path / "pictures", 3)
    (source / "001.png").write_bytes(b"no picture")
    said: list[str] = []
    assert len(Album(source, SIZE, tmp_path / "cache", said.append)) == 2
    assert [line for line in said if "001.png: not a picture that OpenCV can read" in line]


def test_without_a_picture_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="pictures: no pictures in it"):
        Album(tmp_path / "pictures", SIZE, tmp_path / "cache", silent)
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="pictures: none of its pictures can be read"):
        Album(tmp_path / "pictures", SIZE, tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").glob("*"))


def test_another_picture_makes_another_album(tmp_path: Path) -> None:
    source = fill(tmp_path / "pictures", 3)
    assert len(Album(source, SIZE, tmp_path / "cache", silent)) == 3
    (source / "000.png").unlink()
    assert len(Album(source, SIZE, tmp_path / "cache", silent)) == 2


DIFFERENTIABLE = ("activations", "convolution", "dense", "depthwise", "half_weights", "pool", "skip", "softmax")


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_a_part_in_torch_computes_what_the_file_computes(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed; distilling needs it")
    from isthmus.models.training.torch_graph import TorchPart

    graph = flatbuffer.read(around(tmp_path / "model.tflite", MIDDLES[kind]))
    part = whole(graph, "whole")
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    (expected,) = Signature(opened(flatbuffer.written([part])), "whole")(image=x).values()
    given = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    (found,) = TorchPart(part)(given)
    found.square().sum().backward()
    assert float(given.grad.abs().sum()) > 0
    values = found.detach()
    values = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-4)


def test_an_operator_without_a_gradient_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed; distilling needs it")
    from isthmus.models.training.torch_graph import TorchPart

    graph = flatbuffer.read(around(tmp_path / "model.tflite", MIDDLES["unknown"]))
    with pytest.raises(ModelError, match="operator 1, LOCAL_RESPONSE_NORMALIZATION: no gradient for it, and so no"):
        TorchPart(whole(graph, "whole"))
