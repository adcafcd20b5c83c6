"""Splits: the quantiser fitted, agreement measured, the bundle that both halves then take; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from msgspec.structs import replace as replace_
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from graphs import Builder, branches, classifier
from isthmus.cli.main import application
from isthmus.device.catalogue import Catalogue
from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.emulation.replay import Content
from isthmus.models import bundle as bundles
from isthmus.models import flatbuffer, profiles
from isthmus.models.crossing import contested, joined
from isthmus.models.pictures import samples
from isthmus.models.splitting import quantiser_fit, split
from isthmus.models.splitting.answered import COLDEST
from isthmus.models.splitting.cuts import cut_after, cuts, only_compares
from isthmus.models.splitting.quantiser_fit import coded
from isthmus.models.splitting.split import Conditions, Split
from isthmus.models.splitting.uncut import Activations, Uncut, input_of
from isthmus.proto.codec import Codec
from isthmus.proto.errors import DataError, ModelError
from isthmus.proto.tasks import TASKS
from isthmus.proto.tasks.segmentation import pixels
from isthmus.proto.vocabulary import Mask
from real_data import data, model


def painted(seed: int) -> NDArray[np.uint8]:
    """Noise of one colour: another class for another colour."""
    rng = np.random.default_rng(seed)
    return (0.7 * rng.integers(0, 256, (1, 1, 3)) + 0.3 * rng.integers(0, 256, (20, 24, 3))).astype(np.uint8)


PICTURES = [painted(i) for i in range(40)]


def uncut_of(path: Path, pictures: list[NDArray[np.uint8]] = PICTURES, pixels: str | None = "0..1") -> Uncut:
    graph = flatbuffer.read(path)
    return Uncut.of(graph, input_of(graph, pixels), None, pictures)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    return uncut_of(classifier(tmp_path_factory.mktemp("small") / "model.tflite", seed=3))


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    return uncut_of(classifier(tmp_path_factory.mktemp("fallback") / "tiny.tflite", size=8, seed=3))


def segmenter(path: Path) -> Path:
    """Scores of three classes on an 8 x 8 grid, resized to 16 x 16; the greatest wins."""
    b = Builder(3)
    image = b.tensor((1, 16, 16, 3))
    scores = b.conv(b.conv(image, 3, 6, 16, stride=2), 6, 3, 8)
    size = b.constant(np.array([16, 16], np.int32))
    wide = b.add(
        "RESIZE_BILINEAR", [scores, size], [b.tensor((1, 16, 16, 3))], "ResizeBilinearOptions", alignCorners=True
    )
    best = b.tensor((1, 16, 16), np.int64)
    b.add("ARG_MAX", [wide, b.constant(np.array(3, np.int32))], [best], "ArgMaxOptions", outputType=4)
    return b.write(path, [image], [best])


def test_the_finest_point_agrees_and_the_coarsest_is_smaller(small: Uncut) -> None:
    found = split.measured(small, cut_after(small.graph, 0))
    points = {(a.point.step, a.point.layers): a.point for a in found.answered}
    layers = found.coding.codec.layers
    assert points[0, layers].accuracy >= 0.95
    assert points[3, 1].bytes < points[0, layers].bytes / 3
    assert all(points[0, n].bytes < points[0, n + 1].bytes for n in range(1, layers))
    assert len(found.truth) == 20
    assert found.layer_bytes.shape == (20, 1, len(found.coding.codec.steps), layers)


def test_the_pictures_are_of_several_classes(small: Uncut) -> None:
    """Or agreement would be cheap."""
    labels = [guess.label for guess in small.guesses()]
    assert max(labels.count(k) for k in set(labels)) <= 30


def test_several_tensors_share_one_quantiser(small: Uncut) -> None:
    cut = cut_after(small.graph, 1)
    assert len(cut.crossing) == 2
    found = split.measured(small, cut)
    assert found.coding.bottleneck.width == 1024
    assert max(a.point.accuracy for a in found.answered) >= 0.9


@pytest.mark.parametrize("count", [10, 12])
def test_more_than_ten_tensors_cross_in_their_own_order(count: int, tmp_path: Path) -> None:
    """Sorted as text, features10 comes before features2: agreement falls to chance, and the server refuses the bundle."""
    whole = uncut_of(branches(tmp_path / "model.tflite", count))
    cut = cut_after(whole.graph, count - 1)
    assert len(cut.crossing) == count
    found = split.measured(whole, cut)
    assert max(a.point.accuracy for a in found.answered) >= 0.95
    bundle = split.write(tmp_path / "cut", found)
    for index in range(5):
        told, measured = run(bundle, found, index)
        assert told == measured


def test_fewer_pictures_than_are_listed_by_are_enough(tmp_path: Path) -> None:
    few = uncut_of(classifier(tmp_path / "model.tflite"), PICTURES[:5])
    assert any(place.coded_bytes for place in split.listed(few))


def test_the_best_is_the_smallest_that_is_good_enough(small: Uncut) -> None:
    found = split.measured(small, cut_after(small.graph, 0))
    best = found.best(0.9)
    assert best is not None
    assert all(a.point.bytes >= best.bytes for a in found.answered if a.point.accuracy >= 0.9)
    assert found.best(0.9, max_bytes=3) is None


def test_an_agreement_of_few_pictures_is_known_to_within_its_error(small: Uncut) -> None:
    """Of 20 pictures one that differs is 95 %, which 97 % of many pictures would often give."""
    told = split.measured(small, cut_after(small.graph, 0)).answered[0]
    few = replace(told, score=np.array([1.0] * 19 + [0.0], np.float32))
    many = replace(told, score=np.array([1.0] * 1900 + [0.0] * 100, np.float32))
    few, many = (replace(a, point=replace_(a.point, accuracy=0.95)) for a in (few, many))
    assert few.error == pytest.approx(0.06, abs=0.01)
    assert many.error < 0.006
    assert few.agrees(0.97)
    assert not many.agrees(0.97)
    assert replace(few, score=np.ones(20, np.float32)).error > 0.03  # that none differed proves little


def conditions(**change: object) -> Conditions:
    fast = Conditions(profiles.load("pi4"), profiles.load("edge-server"), 1e6, 0.02, 1.0, agreement=0.9)
    return replace(fast, **change)  # type: ignore[arg-type]


def test_the_best_cut_depends_on_the_link(small: Uncut) -> None:
    """On a narrow uplink what is sent decides; on a wide one, who computes."""
    places = split.listed(small)
    assert all((place.coded_bytes is None) == bool(place.cut.obstacle) for place in places)
    narrow = split.best(small, places, conditions(rate_Bps=1000.0), lambda _: None)
    wide = split.best(small, places, conditions(rate_Bps=1e9), lambda _: None)
    assert narrow.cut.raw_bytes < wide.cut.raw_bytes


def test_where_no_cut_is_good_enough_the_best_that_was_found_is_kept(small: Uncut) -> None:
    places, heard = split.listed(small), list[str]()
    found = split.best(small, places, conditions(agreement=1.2), heard.append)
    tried = [line for line in heard if line.startswith("cut ")]
    assert 1 < len(tried) <= split.TRIES
    assert all(" of " in line and "±" in line for line in tried)
    best = max(a.point.accuracy for a in found.answered)
    assert heard[-1] == (
        f"no cut agrees in 120.0% within 1000 ms; the best that was found is kept, after {found.cut.after}: {best:.1%}"
    )


def test_where_no_cut_is_in_time_there_is_no_split(small: Uncut) -> None:
    places = split.listed(small)
    with pytest.raises(ModelError, match=r"no cut agrees in 90\.0% within 1 ms: none is quick enough; allow more time"):
        split.best(small, places, conditions(deadline_s=0.001), lambda _: None)


def test_long_work_counts_what_is_done(small: Uncut) -> None:
    heard: list[tuple[str, int, int]] = []
    places = split.listed(small, lambda *tick: heard.append(tick))
    assert heard == [("cuts coded", n, len(places)) for n in range(len(places))]
    heard.clear()
    found = split.measured(small, cut_after(small.graph, 0), tick=lambda *tick: heard.append(tick))
    steps = len(found.coding.codec.steps)
    assert heard == [("steps measured of the cut after 0", n, steps) for n in range(steps)]


def run(bundle: bundles.Bundle, found: Split, index: int) -> tuple[int, int]:
    """What agent and server answer to one measured picture at the finest point, and what the split had measured."""
    device, server = Executor(bundle), Tail(bundle, 1)
    device.hold(0, PICTURES[found.uncut.measuring[index]])
    for stage in range(len(bundle.manifest.stages)):
        result = device.job(0, stage, 1.0)()
    assert result.layer_bytes is not None
    layers = bundle.codec.layers
    payloads = [device.encode(0, 0, layer) for layer in range(layers)]
    (packed,) = server.run([Codec(bundle.codec).decode(payloads)])
    assert packed is not None
    told = bundle.manifest.answers.guess(packed, temperature=1.0, accuracy=1.0)
    column = next(a for a in found.answered if (a.point.step, a.point.layers) == (0, layers))
    return told.label, column.guesses[index].label


@pytest.mark.parametrize("after", [0, 1, 3])
def test_the_bundle_answers_what_was_measured(small: Uncut, after: int, tmp_path: Path) -> None:
    found = split.measured(small, cut_after(small.graph, after))
    bundle = split.write(tmp_path / "cut", found, labels=("a", "b", "c", "d"))
    m = bundle.manifest
    assert (m.reference, m.task, m.labels) == ("uncut", "classification-probabilities", ("a", "b", "c", "d"))
    assert m.stages[0][0].exit == ()
    for index in range(5):
        told, measured = run(bundle, found, index)
        assert told == measured
    known = Catalogue.from_manifest(m)
    assert known.exits[0][0].accuracy == 0
    assert "cut after operator" in (bundle.folder / "MODEL_CARD.md").read_text()


def test_a_fallback_answers_on_the_device(small: Uncut, fallback: Uncut, tmp_path: Path) -> None:
    found = split.measured(small, cut_after(small.graph, 0), fallback)
    bundle = split.write(tmp_path / "cut", found)
    m = bundle.manifest
    assert [stage[0].signature for stage in m.stages] == ["fallback", "head"]
    assert m.points[0].exit == 0
    device = Executor(bundle)
    device.hold(0, PICTURES[1])
    first = device.job(0, 0, 1.0)().guess
    last = device.job(0, 1, 1.0)()
    assert first is not None
    assert last.guess == first
    assert first.label == found.answered[0].guesses[0].label
    assert last.layer_bytes is not None
    known = Catalogue.from_manifest(m)
    assert [k.point.exit for k in known.exits[0]] == [0, 0]
    assert run(bundle, found, 2)[0] == run(bundle, found, 2)[1]


def test_a_fallback_of_other_classes_is_refused(small: Uncut, tmp_path: Path) -> None:
    graph = flatbuffer.read(classifier(tmp_path / "other.tflite", classes=7))
    with pytest.raises(
        ModelError, match=r"other\.tflite: gives classification-probabilities \(7,\), .* gives .*\(4,\)"
    ):
        split.fallback_of(small, graph, input_of(graph, "0..1"), None, PICTURES)


def test_the_emulator_takes_a_split_bundle(small: Uncut, fallback: Uncut, tmp_path: Path) -> None:
    for name, second in (("mute", None), ("spoken", fallback)):
        bundle = split.write(tmp_path / name, split.measured(small, cut_after(small.graph, 0), second))
        content = Content.of(bundle)
        assert content.outcomes.truth.shape == (20,)


def test_masks_agree_with_the_uncut_ones(tmp_path: Path) -> None:
    whole = uncut_of(segmenter(tmp_path / "model.tflite"))
    assert whole.reading.task == "segmentation"
    cut = cut_after(whole.graph, 1)
    assert only_compares(whole.graph, cut)
    assert not only_compares(whole.graph, cut_after(whole.graph, 0))
    found = split.measured(whole, cut)
    assert max(a.point.accuracy for a in found.answered) > 0.9
    bundle = split.write(tmp_path / "cut", found)
    scores = bundle.outcomes().score
    assert scores is not None
    assert scores.shape == (20, len(bundle.manifest.points))
    detail = found.truth[0].detail
    assert isinstance(detail, Mask)
    assert pixels(detail).shape == (16, 16)
    emulated = ["emulate", "--bundle", str(bundle.folder), "--scenario", "wifi-roaming", "--duration", "3s"]
    result = typed(
        [*emulated, "--policy", "expected-utility", "--workers", "1", "--deadline", "1s", "--format", "json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["policies"]["expected-utility"]["accuracy"] > 0.5


def test_a_contest_keeps_the_winner(tmp_path: Path) -> None:
    """What all channels share, and hopeless ones, do not cross; the mask of what is left is nearly the same."""
    whole = uncut_of(segmenter(tmp_path / "model.tflite"))
    found = split.measured(whole, cut_after(whole.graph, 1))
    contest = found.coding.contest
    assert contest is not None
    x = np.random.default_rng(0).normal(0, 3, (8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(contested(x, contest).argmax(-1), x.argmax(-1))
    np.testing.assert_allclose(contested(x, contest).max(-1), contest.top, atol=1e-6)
    assert contested(x, contest).min() >= contest.top - contest.reach - 1e-6


def test_steps_are_whole_levels_of_a_quantised_tensor() -> None:
    assert quantiser_fit._on_levels([0.4, 1.6, 2.3, 9.1], 1.0) == [1.0, 2.0, 9.1]
    assert quantiser_fit._on_levels([0.4, 1.6], 0.0) == [0.4, 1.6]


def test_a_quantised_input_tells_its_pixels_and_a_float_one_must_be_told(small: Uncut) -> None:
    with pytest.raises(ModelError, match=r"takes float32; say what its pixels are: --pixels 0\.\.255, 0\.\.1, -1\.\.1"):
        input_of(small.graph)
    graph = flatbuffer.read(model("cifar10_resnet8_int8"))
    picture = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    from isthmus.models.litert import Port
    from isthmus.models.pictures import Intake

    tensor = graph.tensors[graph.inputs[0]]
    port = Port(tensor.shape, np.dtype(tensor.dtype), tensor.scale, tensor.zero_point)
    stored = port.stored(Intake(input_of(graph))(picture))
    np.testing.assert_array_equal(stored[0], (picture.astype(np.int16) - 128).astype(np.int8))


def test_pictures_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures in it"):
        samples(tmp_path, 10)
    with pytest.raises(DataError, match=r"nowhere: neither a folder of pictures nor a zip"):
        samples(tmp_path / "nowhere", 10)
    (tmp_path / "bad.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"bad\.png: not a picture"):
        samples(tmp_path, 10)


def test_too_few_pictures_are_counted(small: Uncut) -> None:
    with pytest.raises(DataError, match="3 sample pictures, expected 4 at least"):
        Uncut.of(small.graph, small.input, small.reading, PICTURES[:3])


def test_nothing_is_half_written(small: Uncut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = split.measured(small, cut_after(small.graph, 0))
    split.write(tmp_path / "cut", found)
    before = {p.name: p.read_bytes() for p in (tmp_path / "cut").iterdir()}
    monkeypatch.setattr(split, "outcomes_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        split.write(tmp_path / "cut", found)
    assert {p.name: p.read_bytes() for p in (tmp_path / "cut").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["cut"]


def test_resnet8_on_cifar_at_one_bit_a_value() -> None:
    """A subsample of `benchmarks/split.py cifar`."""
    data("cifar10")
    from isthmus.models.data.labelled import cifar10

    test = cifar10("test")
    whole = uncut_of(model("cifar10_resnet8_int8"), list(test.images[:200]), None)
    for after, values in ((7, 8192), (11, 4096)):
        found = split.measured(whole, cut_after(whole.graph, after))
        at_most = [a.point.accuracy for a in found.answered if 8 * a.point.bytes <= values]
        assert max(at_most) >= 0.85  # of 100 pictures; 0.94 of 1,000


def typed(words: list[str]) -> Result:
    return CliRunner().invoke(application(words), words)


def cli(*arguments: str) -> tuple[int, str]:
    result = typed(["models", "split", *arguments])
    return result.exit_code, result.stdout if result.exception is None else str(result.exception)


def test_the_verb_lists_and_cuts(tmp_path: Path) -> None:
    path = str(classifier(tmp_path / "model.tflite"))
    code, said = cli(path, "--format", "json")
    assert code == 0
    assert [row["after"] for row in json.loads(said)["cuts"]] == [0, 1, 2, 3, 4]
    shown = tmp_path / "pictures"
    shown.mkdir()
    for i, picture in enumerate(PICTURES):
        cv2.imwrite(str(shown / f"{i}.png"), picture)
    given = [path, "--pictures", str(shown), "--pixels", "0..1"]
    code, said = cli(*given, "--format", "json")
    assert code == 0
    assert all(row["coded_bytes"] > 0 for row in json.loads(said)["cuts"])
    code, said = cli(*given, "--at", "0", "--out", str(tmp_path / "cut"), "--format", "json")
    assert code == 0, said
    codec = bundles.load(str(tmp_path / "cut")).codec
    assert len(json.loads(said)["points"]) == len(codec.steps) * codec.layers
    assert bundles.load(str(tmp_path / "cut")).manifest.name == "cut"
    code, said = cli(*given, "--at", "99")
    assert (code, "no cut after operator 99" in said) == (1, True)
    assert "--pictures: needed" in cli(path, "--out", str(tmp_path / "x"))[1]


def test_every_cut_of_the_small_model_can_be_coded(small: Uncut) -> None:
    seen = Activations(small, cuts(small.graph), most=8, values=10_000)
    for cut in cuts(small.graph):
        features = seen.at(cut)
        coding = coded(small.graph, cut, features)
        codec = Codec(coding.codec)
        x = joined(features[0], coding.bottleneck)
        assert np.abs(codec.decode(codec.encode(x, 0)) - x).mean() <= 0.5 * coding.codec.steps[0]


def test_every_task_has_an_entry() -> None:
    answered = {"classification", "classification-probabilities", "segmentation", "detection"}
    assert answered | {"pose", "depth", "embedding", "values"} == set(TASKS)


def test_confidences_are_about_as_high_as_agreement(small: Uncut, fallback: Uncut) -> None:
    """An 8-bit softmax does not add up to one: it is still one."""
    rounded = replace(fallback, outputs=tuple((np.round(p * 16) / 16).astype(np.float32) for p in fallback.outputs))
    found = split.measured(small, cut_after(small.graph, 0), rounded)
    told = found.answered[0]
    assert told.point.temperature > COLDEST
    assert abs(np.mean([g.confidence for g in told.guesses]) - told.point.accuracy) < 0.25
