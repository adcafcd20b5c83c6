"""`models compare`: bundles beside plain pictures on somebody's own pictures, labelled in each way or not at all."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from graphs import classifier
from isthmus.cli.main import application
from isthmus.models import flatbuffer, scenes, seal
from isthmus.models.bundling import judging
from isthmus.models.data import truth
from isthmus.models.splitting import ladder, split
from isthmus.models.splitting.cuts import cuts
from isthmus.models.splitting.ladder import Coder, Sight
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.errors import ConfigError, DataError
from isthmus.proto.tasks.segmentation import Segmentation
from isthmus.proto.vocabulary import Guess

PICTURES = [np.ascontiguousarray(cv2.resize(image, (64, 48)).astype(np.uint8)) for image in scenes.samples(12, 7)[0]]


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of features and pictures, and a folder of a dozen pictures."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "pictures").mkdir()
    for number, pixels in enumerate(PICTURES):
        cv2.imwrite(str(folder / "pictures" / f"{number:02d}.png"), pixels[:, :, ::-1])
    graph = flatbuffer.read(classifier(folder / "model.tflite", size=32))
    uncut = Uncut.of(graph, input_of(graph, "0..1"), None, PICTURES)
    cut = next(cut for cut in cuts(graph) if not cut.obstacle)
    found = split.measured(uncut, cut, uncut)
    steps = len(found.coding.codec.steps)
    sent = ladder.measured(
        uncut,
        PICTURES,
        Coder("jpeg", (Sight((90,)),)),
        uncut.guesses(),
        silent,
        exits=found.answered[:1],
        first_step=steps,
    )
    split.write(folder / "bundle", split.with_pictures(found, sent), labels=["a", "b", "c", "d"])
    return folder


def compared(field: Path, *words: str) -> dict[str, Any]:
    said = CliRunner().invoke(
        application(["models"]),
        ["models", "compare", str(field / "bundle"), "--pictures", str(field / "pictures"), *words, "--format", "json"],
        catch_exceptions=False,
    )
    assert said.exit_code == 0, said.output
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_without_labels_right_is_what_the_whole_model_answers(field: Path, tmp_path: Path) -> None:
    found = compared(field, "--qualities", "95,20", "--out", str(tmp_path / "out"))
    assert (found["measure"], found["pictures"]) == ("agreement", len(PICTURES))
    bundle, webp, jpeg = found["contenders"]
    assert [c["name"] for c in found["contenders"]] == ["bundle", "WebP", "JPEG"]
    assert [w["name"] for w in webp["ways"]] == ["quality 95", "quality 20"]
    alone = next(w for w in bundle["ways"] if not w["size_bytes"])
    assert (alone["name"], alone["result"]) == ("device alone", 1.0)  # its fallback is the model itself
    sent = next(w for w in bundle["ways"] if w["name"] == "jpeg 90")
    assert 0 < jpeg["ways"][1]["size_bytes"] < sent["size_bytes"] < jpeg["ways"][0]["size_bytes"]
    assert sent["device_s"] < max(w["device_s"] for w in bundle["ways"])  # the head need not run for it
    assert [(s["from_Bps"], s["to_Bps"], s["contender"]) for s in found["best"]] == [(0.0, None, "bundle")]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"compare.json", "compare.svg", "compare.png"}
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found


def test_classes_by_name_or_number_are_counted(field: Path, tmp_path: Path) -> None:
    graph = flatbuffer.read(field / "model.tflite")
    labels = Uncut.of(graph, input_of(graph, "0..1"), None, PICTURES).guesses()
    rows = [(f"{n:02d}.png", "abcd"[g.label] if n % 2 else str(g.label)) for n, g in enumerate(labels)]
    rows[0] = (rows[0][0], "none of them")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "class"), *rows])
    found = compared(field, "--labels", str(tmp_path / "labels.csv"), "--qualities", "100")
    assert found["measure"] == "accuracy"
    alone = next(w for w in found["contenders"][0]["ways"] if not w["size_bytes"])
    assert alone["result"] == pytest.approx(1 - 1 / len(PICTURES))


BAD = {
    "no such picture": ("a.csv", "00.png,1\n99.png,1\n", r"a\.csv: line 2: no picture 99\.png in"),
    "three columns": ("a.csv", "00.png,1,2\n", r"a\.csv: line 1: 3 columns; write file,class"),
    "none of these": ("a.csv", "file,class\n", r"a\.csv: labels none of the pictures"),
    "no text": ("a.csv", "\udcff", r"a\.csv: cannot be read"),
    "a broken .json": ("a.json", "{", r"a\.json: not COCO-style JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_do_not_fit_are_refused_by_name(field: Path, tmp_path: Path, case: str) -> None:
    name, text, why = BAD[case]
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=why):
        truth.told(tmp_path / name, field / "pictures", 10)


def test_boxes_are_no_classes(field: Path, tmp_path: Path) -> None:
    table = {
        "images": [{"id": 0, "file_name": str(field / "pictures" / "00.png")}],
        "annotations": [],
        "categories": [],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="accuracy needs a class for every picture"):
        application(["models"])(
            ["models", "compare", str(field / "bundle"), "--pictures", str(field / "pictures"), "--labels",
             str(tmp_path / "boxes.json")], standalone_mode=False,
        )  # fmt: skip


def masked(mask: NDArray[np.uint8]) -> Guess:
    task = Segmentation()
    return task.guess(task.pack([mask]), temperature=1.0, accuracy=1.0)


def test_masks_of_a_folder_are_scored_by_class_and_what_is_ignored_does_not_count(tmp_path: Path) -> None:
    right = np.zeros((8, 8), np.uint8)
    right[:4], right[0, 0] = 1, truth.IGNORED
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "x.jpg"), np.zeros((16, 16, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "x.png"), right)
    (told,) = truth.told(tmp_path / "masks", tmp_path / "pictures", 5)
    answer = np.zeros((4, 4), np.uint8)
    answer[:1] = 1  # half of what is of class 1, at half the size
    score = judging.score("mIoU", [masked(answer)], [told.truth], [], [(16, 16)])
    assert score == pytest.approx((15 / 31 + 32 / 48) / 2)
    assert judging.score("mIoU", [None], [told.truth], [], [(16, 16)]) == 0.0
    cv2.imwrite(str(tmp_path / "masks" / "x.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"x\.png: not a mask of one 8-bit channel"):
        truth.told(tmp_path / "masks", tmp_path / "pictures", 5)


def test_bundles_of_other_answers_are_not_compared(field: Path, tmp_path: Path) -> None:
    shutil.copytree(field / "bundle", tmp_path / "other", ignore=shutil.ignore_patterns(seal.SEAL))
    path = tmp_path / "other" / seal.FILE
    path.write_text(path.read_text().replace('task = "classification-probabilities"', 'task = "segmentation"'))
    words = ["models", "compare", str(field / "bundle"), str(tmp_path / "other"), "--pictures", str(field / "pictures")]
    with pytest.raises(ConfigError, match="classification and segmentation: bundles of one kind"):
        application(["models"])(words, standalone_mode=False)
