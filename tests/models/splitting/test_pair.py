"""A pair: the device's answers are the small model's, the server's are the larger one's to the picture that crossed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tomli_w

from graphs import Builder, classifier
from isthmus.cli.main import application
from isthmus.cli.models.halves import Halves, unsure
from isthmus.cli.models.sights import sights
from isthmus.device.catalogue import Catalogue
from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.models import flatbuffer, scenes, seal, work
from isthmus.models.bundle import Bundle, load
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake
from isthmus.models.profiles import load as profile
from isthmus.models.splitting import pair
from isthmus.models.splitting.ladder import Coder, Sight
from isthmus.models.splitting.outputs import told
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.codec import PICTURE
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import BundleError, ConfigError, ModelError
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.picture_codec import Pixels

PICTURES = [np.ascontiguousarray(cv2.resize(image, (80, 60)).astype(np.uint8)) for image in scenes.samples(24, 5)[0]]
QUALITIES = (90, 40, 5)
CODER = Coder("webp", (Sight(QUALITIES),))


def silent(_: str) -> None:
    pass


def shown(path: Path, pictures: list[Pixels] = PICTURES) -> Uncut:
    graph = flatbuffer.read(path)
    return Uncut.of(graph, input_of(graph, "0..1"), None, pictures)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("pair")
    small, large = classifier(folder / "small.tflite", size=16), classifier(folder / "large.tflite", size=48, seed=1)
    found = pair.pair(shown(small), shown(large), PICTURES, CODER, silent)
    pair.write(folder / "bundle", found, labels=["a", "b", "c", "d"])
    return load(str(folder / "bundle"))


def test_the_device_answers_with_the_small_model_and_sends_the_picture(made: Bundle) -> None:
    device, picture = Executor(made), PICTURES[0]
    device.hold(0, picture)
    local = device.job(0, 0, 1.0)().guess
    result = device.job(0, 1, 1.0)()
    assert local is not None
    assert result.guess == local
    assert result.layer_bytes is not None
    assert [len(sizes) for sizes in result.layer_bytes] == [1] * len(QUALITIES)
    payload = device.encode(0, 1, 0)
    assert payload[:2] == bytes((PICTURE << 4, 1))
    assert len(payload) == pytest.approx(result.layer_bytes[1][0], rel=0.5)


def test_a_picture_is_coded_away_from_the_loop_and_once(made: Bundle) -> None:
    device = Executor(made)
    device.hold(0, PICTURES[0])
    for stage in range(2):
        device.job(0, stage, 1.0)()
    job = device.coding_job(0, 2)
    assert job is not None
    job()
    assert device.coding_job(0, 2) is None
    device.forget(0)
    job()  # a frame that is answered while its picture is coded takes nobody with it


def test_the_server_answers_as_the_large_model_does_to_what_crossed(made: Bundle) -> None:
    device, codec = Executor(made), FrameCodec(made.codec)
    tail, picture = Tail(made, 1), made.manifest.picture
    assert picture is not None
    large = Signature(opened(made.folder / "large.tflite"), "large")
    frames = []
    for number, pixels in enumerate(PICTURES[:3]):
        device.hold(number, pixels)
        for stage in range(2):
            device.job(number, stage, 1.0)()
        frames.append(codec.decode([device.encode(number, 0, 0)]))
    for packed, seen in zip(tail.run(frames), frames, strict=True):
        answer = large(image=Intake(picture.input)(seen))["output0"][0]
        assert packed is not None
        guess = made.manifest.answers.guess(packed, temperature=1.0, accuracy=1.0)
        assert guess.label == answer.argmax()
        assert guess.confidence == pytest.approx(float(answer.max()), abs=1e-4)


def test_every_operating_point_is_in_the_catalogue_and_costs_time(made: Bundle) -> None:
    known = Catalogue.from_manifest(made.manifest)
    assert [len(layers) for layers in known.offloads[0]] == [1, 1, 1]
    sizes = [row[0].mean_bytes for row in known.offloads[0]]
    assert sizes == sorted(sizes, reverse=True)
    small, coding = work.stage_times(profile("pi4"), made)
    assert min(*small, *coding) > 0


def test_finer_pictures_agree_better_with_the_large_model(made: Bundle) -> None:
    device, *sent = made.manifest.points
    assert device.exit == 0
    assert sent[0].accuracy == 1.0
    assert sent[0].accuracy >= sent[-1].accuracy
    assert made.outcomes().layer_bytes.shape == (12, 1, 3, 1)
    assert "| device alone | 0 |" in (made.folder / "MODEL_CARD.md").read_text()


def test_models_that_answer_otherwise_are_no_pair(tmp_path: Path) -> None:
    four, five = classifier(tmp_path / "four.tflite"), classifier(tmp_path / "five.tflite", classes=5)
    with pytest.raises(
        ModelError, match=r"four\.tflite: gives classification-probabilities \(4,\), five\.tflite gives"
    ):
        pair.pair(shown(four), shown(five), PICTURES, CODER, silent)


def test_the_verb_makes_a_pair_of_two_files(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(PICTURES):
        cv2.imwrite(str(folder / f"{number:02d}.png"), pixels)
    small, large = (
        classifier(tmp_path / "small.tflite", size=16),
        classifier(tmp_path / "large.tflite", size=48, seed=1),
    )
    words = ["models", "pair", str(small), str(large), "--pictures", str(folder), "--out", str(tmp_path / "made")]
    told = ["--small-pixels", "0..1", "--large-pixels", "0..1", "--qualities", "80,10", "--format", "jpeg"]
    application(["models"])([*words, *told], standalone_mode=False)
    picture = load(str(tmp_path / "made")).manifest.picture
    assert picture is not None
    assert (picture.format, picture.qualities) == ("jpeg", (80, 10))


def seeing(path: Path, shape: tuple[int, int], place: tuple[float, ...]) -> Path:
    """A detector that sees the same thing at the same place of whatever it is given, in shares of that."""
    b = Builder()
    image = b.tensor((1, *shape, 3))
    pooled = b.mean(image, 3)

    def always(*values: float) -> int:
        weights = b.constant(np.zeros((len(values), 3), np.float32))
        inputs = [pooled, weights, b.constant(np.array(values, np.float32))]
        return b.add("FULLY_CONNECTED", inputs, [b.tensor((1, len(values)))], "FullyConnectedOptions")

    target = b.constant(np.array([1, 1, 4], np.int32))
    places = b.add("RESHAPE", [always(*place), target], [b.tensor((1, 1, 4))], "ReshapeOptions", newShape=[1, 1, 4])
    return b.write(path, [image], [places, always(0), always(0.9), always(1)])


def test_boxes_of_letterboxed_pictures_are_of_the_whole_one(tmp_path: Path) -> None:
    """Tall pictures, and two detectors of other shapes that see the same quarter of them: they agree, live and measured."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((80, 40, 3), 50 * number, np.uint8))
    small = seeing(tmp_path / "small.tflite", (16, 16), (0.25, 0.25, 0.75, 0.375))
    large = seeing(tmp_path / "large.tflite", (32, 48), (0.25, 1 / 3, 0.75, 5 / 12))
    words = ["models", "pair", str(small), str(large), "--pictures", str(folder), "--out", str(tmp_path / "made")]
    more = ["--small-pixels", "0..1", "--large-pixels", "0..1", "--qualities", "80", "--fit", "letterbox"]
    application(["models"])([*words, *more], standalone_mode=False)
    found = load(str(tmp_path / "made"))
    assert [point.accuracy for point in found.manifest.points] == [1.0, 1.0]
    marked = {"bbox": [0, 20, 10, 40], "area": 400, "iscrowd": 0, "category_id": 1}
    truth = {
        "images": [{"id": i, "file_name": f"pictures/{i}.png", "width": 40, "height": 80} for i in range(4)],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [{"id": i, "image_id": i, **marked} for i in range(4)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(ConfigError, match=r"made: none of its classes \(without names\) is in .*truth\.json \(cup\)"):
        application(["models"])(
            ["models", "evaluate", str(tmp_path / "made"), "--pictures", str(tmp_path / "truth.json")],
            standalone_mode=False,
        )
    for guess, _ in Halves(found, unsure(found.manifest)).answers(np.zeros((80, 40, 3), np.uint8)):
        assert guess is not None
        assert isinstance(guess.detail, tuple)
        (box,) = guess.detail
        assert (box.top, box.left, box.bottom, box.right) == pytest.approx((0.25, 0, 0.75, 0.25), abs=1e-6)


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no model behind the picture": (lambda t: t["picture"].update(tail=[]), r"picture\.tail: names no file"),
    "a model elsewhere": (lambda t: t["picture"]["tail"][0].update(file="../x"), r"files: '\.\./x' is no name"),
    "no quality": (lambda t: t["picture"].update(qualities=[], size_fit=[]), r"picture\.qualities: must be there"),
    "a quality that is none": (lambda t: t["picture"]["qualities"].__setitem__(0, 101), r"picture\.qualities: "),
    "more than a byte of them": (
        lambda t: t["picture"].update(qualities=[5] * 257, size_fit=[[1.0, 1.0, 1.0]] * 257),
        r"picture\.qualities: with the features' steps more than 256",
    ),
    "a fit too few": (lambda t: t["picture"]["size_fit"].pop(), r"picture\.size_fit: "),
    "a picture of no size": (lambda t: t["picture"]["input"].update(size=0), "input: "),
    "a step that is none": (
        lambda t: t["points"][-1].update(step=3),
        r"points\[3\]: step 3 and 1 layers, there are 3 and 1",
    ),
    "a layer that is none": (lambda t: t["points"][-1].update(layers=2), r"points\[3\]: step 2 and 2 layers"),
    "tables of no step": (lambda t: t["bottleneck"].update(tables=[["7" * 256]]), "bottleneck: has tables"),
    "a stage that computes nothing but answers": (
        lambda t: t["stages"][1][0].update(exit=["output0"]),
        r"stages\[1\]: needs a signature",
    ),
    "nothing that crosses": (lambda t: t.pop("picture"), ""),
}


@pytest.mark.parametrize("case", FAULTS)
def test_keys_that_do_not_fit_each_other_are_refused_by_name(made: Bundle, tmp_path: Path, case: str) -> None:
    change, why = FAULTS[case]
    shutil.copytree(made.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(seal.SEAL))
    table = tomllib.loads((tmp_path / "copy" / seal.FILE).read_text())
    change(table)
    (tmp_path / "copy" / seal.FILE).write_text(tomli_w.dumps(table))
    with pytest.raises(BundleError, match=rf"bundle\.toml: {why}"):
        load(str(tmp_path / "copy"))


def test_a_pair_says_what_crosses(made: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    application(["models"])(["models", "info", str(made.folder)], standalone_mode=False)
    assert "picture 48 x 48 as webp; tail large.tflite" in capsys.readouterr().out
    application(["models"])(["models", "verify", str(made.folder)], standalone_mode=False)


def test_a_pair_is_not_written_over_what_it_is_made_of(tmp_path: Path) -> None:
    small = classifier(tmp_path / "small.tflite")
    words = ["models", "pair", str(small), str(small), "--pictures", str(tmp_path), "--out", str(tmp_path)]
    with pytest.raises(BundleError, match="is read from there; name another folder with --out"):
        application(["models"])(words, standalone_mode=False)


def test_a_large_detector_gives_no_more_boxes_than_the_device_reads(tmp_path: Path) -> None:
    path = seeing(tmp_path / "sees.tflite", (16, 16), (0.25, 0.25, 0.75, 0.75))
    graph = flatbuffer.read(path)
    few, many = (Uncut.of(graph, input_of(graph, "0..1"), told(None, f"places,most={n}"), PICTURES) for n in (5, 9))
    with pytest.raises(ModelError, match=r"gives up to 9 boxes, sees\.tflite up to 5; say most=9"):
        pair.pair(few, many, PICTURES, CODER, silent)


def test_a_part_of_the_picture_is_a_step_and_its_boxes_are_of_the_whole_one(tmp_path: Path) -> None:
    """The device sees the upper left quarter; of that part the large one sees the right half: live as measured."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((80, 40, 3), 50 * number, np.uint8))
    small = seeing(tmp_path / "small.tflite", (16, 16), (0.0, 0.0, 0.5, 0.5))
    large = seeing(tmp_path / "large.tflite", (32, 32), (0.0, 0.5, 1.0, 1.0))
    words = ["models", "pair", str(small), str(large), "--pictures", str(folder), "--out", str(tmp_path / "made")]
    more = ["--small-pixels", "0..1", "--large-pixels", "0..1", "--qualities", "80", "--smaller", "24:50"]
    application(["models"])([*words, *more, "--region", "16:60,30"], standalone_mode=False)
    found = load(str(tmp_path / "made"))
    picture = found.manifest.picture
    assert picture is not None
    assert [picture.named(step) for step in range(4)] == [
        "webp 80", "webp 50 of 24 pixels", "region as webp 60 of 16 pixels", "region as webp 30 of 16 pixels",
    ]  # fmt: skip
    assert Catalogue.from_manifest(found.manifest).offloads[0][3][0].point.step == 3
    device, *sent = found.manifest.points
    assert [point.accuracy for point in (device, *sent)] == [0.0, 1.0, 1.0, 0.0, 0.0]  # the truth is the right half
    assert sent[0].bytes > sent[2].bytes
    answers = [guess for guess, _ in Halves(found, found.manifest).answers(np.zeros((80, 40, 3), np.uint8))]
    for guess, place in zip(answers[1:], [(0, 0.5, 1, 1)] * 2 + [(0, 0.325, 0.65, 0.65)] * 2, strict=True):
        assert guess is not None
        assert isinstance(guess.detail, tuple)
        (box,) = guess.detail
        assert (box.top, box.left, box.bottom, box.right) == pytest.approx(place, abs=0.02)


@pytest.mark.parametrize("text", ["", "80", "80:", "4:50", "x:50", "80:50,60", "80:0"])
def test_sights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--(region|qualities): "):
        sights("90", None, None, [text])
