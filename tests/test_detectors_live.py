"""Detectors that people have, from the file to boxes on a real picture: split, served, and asked by an agent over a link."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from isthmus.models import bundle
from isthmus.models.data.boxes import boxed
from isthmus.models.pictures import read_picture
from isthmus.proto.tasks.detection import overlap
from isthmus.proto.vocabulary import Box
from real_data import data
from test_field_live import address, answers, finished, running

PICTURES = 6
FRUIT = {"apple": 47, "banana": 46, "orange": 49}
"""Their numbers among COCO's eighty classes."""
PORTRAITS = {
    "image_0396": (0.28, 0.41, 0.82, 0.77),
    "image_0160": (0.32, 0.36, 0.70, 0.61),
    "image_0366": (0.29, 0.31, 0.85, 0.68),
    "image_0430": (0.31, 0.31, 0.81, 0.65),
    "image_0205": (0.33, 0.34, 0.80, 0.65),
    "image_0300": (0.31, 0.33, 0.82, 0.67),
}
"""Top, left, bottom and right of what was looked at and is the face in each."""


def fruits(folder: Path) -> dict[str, list[Box]]:
    """Pictures of fruit in a folder, and what is in each; one fruit a picture, so that nobody argues about bunches."""
    alone = [p for p in boxed(data("fruit/annotations.json")) if len(p.boxes) == 1]
    chosen = alone[:: len(alone) // PICTURES][:PICTURES]
    found = {}
    for picture in chosen:
        shutil.copy(picture.file, folder)
        ((name, (top, left, bottom, right)),) = picture.boxes
        height, width = read_picture(picture.file).shape[:2]
        found[picture.file.name] = [Box(FRUIT[name], 1.0, top / height, left / width, bottom / height, right / width)]
    return found


def faces(folder: Path) -> dict[str, list[Box]]:
    """Portraits in a folder."""
    with zipfile.ZipFile(data("caltech101/images.zip")) as archive:
        for name in PORTRAITS:
            (folder / f"{name}.webp").write_bytes(archive.read(f"test/Faces/{name}.webp"))
    return {f"{name}.webp": [Box(0, 1.0, *place)] for name, place in PORTRAITS.items()}


FIRST = "0-first-"

CASES = {
    "fastestdet_352_f32": (fruits, 212, ["--task", "detection", "--pixels", "0..255"]),
    "yolox_nano_416_f32": (fruits, 42, ["--task", "detection", "--pixels", "0..255"]),
    "face_detection_full_range": (faces, 351, ["--pixels", "-1..1", "--fit", "letterbox"]),
}
"""By detector: its pictures, where it is cut, and what must be said of it."""


@pytest.mark.parametrize("name", CASES)
def test_a_detector_finds_what_is_there_through_server_and_agent(name: str, tmp_path: Path) -> None:
    model = data(f"detectors/{name}.tflite")
    shown, after, said = CASES[name]
    (tmp_path / "pictures").mkdir()
    truth, made = shown(tmp_path / "pictures"), tmp_path / "made"
    given = [str(model), "--pictures", str(tmp_path / "pictures"), "--at", str(after), *said, "--out", str(made)]
    done = finished("models", "split", *given)
    assert done.returncode == 0, done.stderr
    assert bundle.load(str(made)).manifest.task == "detection"
    assert "AP50 %" in (made / "MODEL_CARD.md").read_text()
    rows = live(made, tmp_path / "pictures")
    assert set(rows) == set(truth)
    found = [is_found(rows[picture], box) for picture, boxes in truth.items() for box in boxes]
    assert sum(found) >= 0.75 * len(found), rows


def live(made: Path, pictures: Path) -> dict[str, dict[str, Any]]:
    """By picture: what the agent answered with the server's help."""
    for number in range(3):  # shown while the agent connects
        shutil.copy(
            next(path for path in pictures.iterdir() if not path.name.startswith(FIRST)),
            pictures / f"{FIRST}{number}.webp",
        )
    with running("serve", "--bundle", str(made), "--insecure", "--listen", "127.0.0.1:0") as server:
        fixed = ["agent", "--bundle", str(made), "--insecure", "--source", str(pictures), "--server", address(server)]
        with running(
            *fixed, "--frames", str(2 * PICTURES), "--deadline", "8s", "--fps", "2", "--policy", "always-offload"
        ) as agent:
            rows = [row for row in answers(agent) if row["source"] == "server"]
    return {row["picture"]: row for row in rows if not row["picture"].startswith(FIRST)}


def is_found(row: dict[str, Any], truth: Box) -> bool:
    """Whether one of an answer's boxes is of this class and overlaps it by half."""
    boxes = [Box(**box) for box in row.get("boxes", [])]
    return any(box.label == truth.label and overlap(box, truth) >= 0.5 for box in boxes)


def test_the_names_of_another_data_set_are_refused(tmp_path: Path) -> None:
    """Eighty classes and seventy-nine names: every name behind the lacking one would be off by one."""
    model = data("detectors/fastestdet_352_f32.tflite")
    (tmp_path / "pictures").mkdir()
    fruits(tmp_path / "pictures")
    (tmp_path / "names.txt").write_text("".join(f"class {k}\n" for k in range(40)))
    said = ["--task", "detection", "--pixels", "0..255", "--labels", str(tmp_path / "names.txt")]
    given = [str(model), "--pictures", str(tmp_path / "pictures"), "--at", "212", *said]
    done = finished("models", "split", *given, "--out", str(tmp_path / "made"))
    assert done.returncode != 0
    assert "40 names, the model found class" in done.stderr
    assert not (tmp_path / "made").exists()
