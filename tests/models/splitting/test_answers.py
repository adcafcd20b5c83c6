"""Poses, depth, embeddings and plain values from a file to an answer: split, bundled, run live, emulated, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import answering_graphs as made
from isthmus.cli.main import application
from isthmus.cli.models.halves import Halves
from isthmus.cli.models.told import class_names
from isthmus.device.output.drawing import drawn
from isthmus.emulation.replay import Content
from isthmus.models import bundle as bundles
from isthmus.models import flatbuffer, scenes
from isthmus.models.bundle import Bundle
from isthmus.models.splitting import pair, split
from isthmus.models.splitting.cuts import cut_after
from isthmus.models.splitting.ladder import Coder, Sight
from isthmus.models.splitting.outputs import Reading, classes_of, told
from isthmus.models.splitting.split import Split
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.errors import ConfigError, DataError, ModelError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Depth,
    Detail,
    Embedding,
    Frame,
    Pose,
    Reason,
    Values,
)

PICTURES = [np.ascontiguousarray(cv2.resize(image, (80, 60)).astype(np.uint8)) for image in scenes.samples(24, 5)[0]]
KINDS: dict[str, tuple[Callable[[Path], Path], str | None, type]] = {
    "movenet": (made.movenet, None, Pose),
    "posenet": (made.posenet, None, Pose),
    "depth": (made.depth, "depth", Depth),
    "embedding": (made.embedder, None, Embedding),
    "values": (made.values, "values", Values),
}
"""The graph, what must be said of it, and what its answers hold."""


def uncut_of(path: Path, task: str | None) -> Uncut:
    graph = flatbuffer.read(path)
    return Uncut.of(graph, input_of(graph, "0..1"), told(task, None), PICTURES)


def typed(*words: str) -> Result:
    return CliRunner().invoke(application(list(words)), list(words))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Split, Bundle, type]:
    """The model, its split behind the first convolution, and its bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    make, task, detail = KINDS[request.param]
    model = make(folder / "model.tflite")
    found = split.measured(whole := uncut_of(model, task), cut_after(whole.graph, 0))
    return model, found, split.write(folder / "cut", found), detail


def test_what_the_halves_answer_live_is_what_was_measured(kind: tuple[Path, Split, Bundle, type]) -> None:
    _, found, bundle, detail = kind
    halves = Halves(bundle, bundle.manifest)
    for row, number in enumerate(found.uncut.measuring[:3]):
        answers = [guess for guess, _ in halves.answers(PICTURES[number])]
        for answer, measured in zip(answers, found.answered, strict=True):
            assert answer is not None
            assert isinstance(answer.detail, detail)
            assert answer.detail == measured.guesses[row].detail


def test_the_finest_point_agrees_well_and_the_coarsest_less(kind: tuple[Path, Split, Bundle, type]) -> None:
    _, _, bundle, _ = kind
    accuracies = [point.accuracy for point in bundle.manifest.points]
    assert max(accuracies) > 0.9
    assert min(accuracies) < max(accuracies)
    scores = bundle.outcomes().score
    assert scores is not None
    np.testing.assert_allclose(scores.mean(0), accuracies, atol=2e-3)


def test_it_is_emulated_and_evaluated(kind: tuple[Path, Split, Bundle, type], tmp_path: Path) -> None:
    model, _, bundle, _ = kind
    Content.of(bundle)
    done = typed(
        *("emulate", "--bundle", str(bundle.folder), "--scenario", "wifi-roaming", "--duration", "2s"),
        *("--policy", "expected-utility", "--workers", "1", "--deadline", "1s", "--format", "json"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["policies"]["expected-utility"]["accuracy"] > 0.3
    for i, picture in enumerate(PICTURES):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), picture[:, :, ::-1])
    given = ("models", "evaluate", str(bundle.folder), "--pictures", str(tmp_path), "--uncut", str(model))
    done = typed(*given, "--format", "json")
    assert done.exit_code == 0, done.output
    points = json.loads(done.stdout)["points"]
    for point, measured in zip(points, bundle.manifest.points, strict=True):
        assert point["accuracy"] == pytest.approx(measured.accuracy, abs=0.2)  # half of these pictures fitted it
        assert point["bytes"] == pytest.approx(measured.bytes, rel=0.2)


def test_its_record_is_small_reads_back_and_is_drawn(kind: tuple[Path, Split, Bundle, type]) -> None:
    import msgspec

    _, found, _, _ = kind
    guess = found.answered[0].guesses[0]
    answer = Answer(
        frame_id=0,
        label=guess.label,
        confidence=guess.confidence,
        source=AnswerSource.SERVER,
        reason=Reason.RETURNED,
        point=None,
        answered_s=0.1,
        latency_s=0.1,
        on_time=True,
        bytes_up=10,
        detail=guess.detail,
    )
    row = FrameRecord.from_answer(Frame(0, 0.0, 0.5), answer)
    line = msgspec.json.encode(row)
    assert len(line) < 2500
    assert msgspec.json.decode(line, type=FrameRecord) == row
    kept: list[Detail | None] = [row.pose, row.depth, row.embedding, row.values]
    assert [detail for detail in kept if detail is not None] == [guess.detail]
    assert drawn(PICTURES[0], answer).shape[2] == 3


def test_what_is_not_certain_is_asked_for(tmp_path: Path) -> None:
    for make in (made.depth, made.values):
        with pytest.raises(ModelError, match=r"say what that is: --task .*pose, depth, embedding, values"):
            uncut_of(make(tmp_path / "model.tflite"), None)
    logits = uncut_of(made.embedder(tmp_path / "model.tflite", unit=False), None)
    assert logits.reading.task == "classification"  # a vector of any length is taken for what most vectors are


@pytest.mark.parametrize(
    ("make", "task", "why"),
    [
        (made.movenet, "classification", r"needs logits \(classes,\); this model gives \(1, 1, 17, 3\)"),
        (made.movenet, "depth", r"needs one map of values \(H, W\)"),
        (made.movenet, "embedding", None),
        (made.depth, "pose", r"needs keypoints \(N, 3\)"),
        (made.depth, "embedding", None),
        (made.embedder, "depth", r"needs one map"),
        (made.embedder, "pose", r"needs keypoints"),
        (made.embedder, "segmentation", r"needs a map of classes"),
        (made.posenet, "embedding", r"needs one vector"),
        (made.values, "segmentation", r"values that are no classes; --task depth keeps them"),
        (made.values, "depth", r"needs one map"),
    ],
)
def test_a_task_that_does_not_fit_is_one_line(
    make: Callable[[Path], Path], task: str, why: str | None, tmp_path: Path
) -> None:
    model = make(tmp_path / "model.tflite")
    if why is None:  # any numbers are a direction, if somebody says so
        assert uncut_of(model, task).reading.task == task
        return
    with pytest.raises(ModelError, match=rf"model\.tflite: --task {task} .*{why}"):
        uncut_of(model, task)


@pytest.mark.parametrize(
    ("shapes", "task"),
    [
        ([(1, 5)], None),
        ([(1, 16, 16, 3)], None),
        ([(1, 16, 16, 1)], "depth"),
        ([(1, 1, 17, 3)], None),
        ([(1, 32)], "embedding"),
        ([(1, 8, 4), (1, 3)], "values"),
        ([(1, 10, 4), (1, 10), (1, 10), (1,)], None),
    ],
)
def test_a_model_whose_conversion_broke_is_refused_and_nothing_is_written(
    shapes: list[tuple[int, ...]], task: str | None, tmp_path: Path
) -> None:
    """Every score is zero, in every picture: its answers agree with themselves in all of them."""
    model = made.broken(tmp_path / "model.tflite", *shapes)
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(PICTURES[:6]):
        cv2.imwrite(str(tmp_path / "pictures" / f"{i}.png"), picture)
    words = ["models", "split", str(model), "--pictures", str(tmp_path / "pictures"), "--pixels", "0..1"]
    out = tmp_path / "out"
    done = typed(*words, "--out", str(out), *(["--task", task] if task else []))
    assert done.exit_code == 1
    assert "convert it again" in str(done.exception)
    assert not out.exists()


def test_a_single_number_tells_no_classes_apart(tmp_path: Path) -> None:
    """The softmax of one number is one: always class 0, and always sure of it."""
    model = made.broken(tmp_path / "model.tflite", (1, 1))
    with pytest.raises(ModelError, match="one number tells no classes apart; --task values keeps it"):
        uncut_of(model, None)


def test_labels_name_the_points_of_a_pose(tmp_path: Path) -> None:
    for make in (made.movenet, made.posenet):
        assert classes_of(flatbuffer.read(make(tmp_path / "model.tflite")), "pose") == 17


def test_depth_has_no_classes_to_name(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("near\nfar\n")
    with pytest.raises(ConfigError, match="--labels: answers of depth have no classes to name; leave it out"):
        class_names(uncut_of(made.depth(tmp_path / "model.tflite"), "depth"), tmp_path / "names.txt")
    with pytest.raises(DataError, match="2 names, the model has 17 classes"):
        class_names(uncut_of(made.movenet(tmp_path / "model.tflite"), None), tmp_path / "names.txt")


def test_poses_of_two_families_make_a_pair(tmp_path: Path) -> None:
    """What the outputs look like differs; the points are the same."""
    small, large = made.movenet(tmp_path / "small.tflite"), made.posenet(tmp_path / "large.tflite")
    found = pair.pair(
        uncut_of(small, None), uncut_of(large, None), PICTURES, Coder("webp", (Sight((90, 40)),)), lambda _: None
    )
    bundle = pair.write(tmp_path / "pair", found)
    assert bundles.load(str(bundle.folder)).manifest.task == "pose"
    device, *server = [guess for guess, _ in Halves(bundle, bundle.manifest).answers(PICTURES[1])]
    assert device is not None
    assert device.detail == found.answered[0].guesses[0].detail
    assert [guess and guess.detail for guess in server] == [a.guesses[0].detail for a in found.answered[1:]]


def test_a_map_is_not_asked_for_behind_a_letterbox(tmp_path: Path) -> None:
    graph = flatbuffer.read(made.depth(tmp_path / "model.tflite"))
    with pytest.raises(ModelError, match="depth would show the border of a letterbox"):
        Uncut.of(graph, input_of(graph, "0..1", fit="letterbox"), Reading("depth"), PICTURES)
