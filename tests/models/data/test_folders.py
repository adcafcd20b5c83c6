"""Other people's pictures: what is read, what is refused, and by which name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from isthmus.models.data import folders
from isthmus.proto.errors import DataError

RED, BLUE = (0, 0, 255), (255, 0, 0)  # OpenCV writes BGR


def picture(path: Path, colour: tuple[int, int, int], shape: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*shape, 3), colour, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        picture(tmp_path / "blue" / f"{i}.png", BLUE)
        picture(tmp_path / "red" / "deeper" / f"{i}.png", RED)
    return tmp_path


def test_a_folder_of_class_folders(folder: Path) -> None:
    found = folders.load(folder, 16)
    assert found.classes == ("blue", "red")
    assert found.training.images.shape == (16, 16, 16, 3)
    assert found.validation.images.shape == (4, 16, 16, 3)
    assert found.training.images[found.training.labels == 1].reshape(-1, 3).max(0).tolist() == [255, 0, 0]
    assert found.mean == (0.5, 0.0, 0.5)
    assert all(s > 0 for s in found.std)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    picture(tmp_path / "only" / "1.png", RED)
    with pytest.raises(DataError, match=r"classes found: only; a network needs at least two"):
        folders.load(tmp_path, 16)


def test_a_class_needs_pictures_to_validate_with(folder: Path) -> None:
    picture(folder / "rare" / "1.png", RED)
    with pytest.raises(DataError, match="no validation pictures of rare"):
        folders.load(folder, 16)


def test_an_unreadable_picture_is_named(folder: Path) -> None:
    (folder / "red" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"broken\.png: missing or not a picture"):
        folders.load(folder, 16)


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (np.zeros((8, 8), np.uint8), "1 channel"),
        (np.zeros((8, 8, 4), np.uint8), "4 channel"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
    ],
)
def test_what_is_not_rgb_is_named(folder: Path, pixels: np.ndarray, why: str) -> None:
    assert cv2.imwrite(str(folder / "red" / "odd.png"), pixels)
    with pytest.raises(DataError, match=rf"odd\.png: .*{why}.*8-bit RGB"):
        folders.load(folder, 16)


def test_neither_folder_nor_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a folder"):
        folders.load(tmp_path / "none", 16)


def coco(folder: Path, **changes: object) -> Path:
    """Red on the left half of each picture, blue on the right; both boxed."""
    for i in range(6):
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[:, :20], pixels[:, 20:] = RED, BLUE
        assert cv2.imwrite(str(folder / f"{i}.png"), pixels)
    tables: dict[str, object] = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40} for i in range(6)],
        "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
        "annotations": [
            {"image_id": i, "category_id": c, "bbox": [x, 2, 12, 12]} for i in range(6) for c, x in ((3, 3), (7, 25))
        ],
    }
    path = folder / "boxes.json"
    path.write_text(json.dumps(tables | changes))
    return path


def test_the_boxes_of_a_coco_file(tmp_path: Path) -> None:
    found = folders.load(coco(tmp_path), 16)
    assert found.classes == ("blue", "red")
    assert len(found.training) == 10
    assert len(found.validation) == 2
    red = found.training.images[found.training.labels == 1]
    assert red.reshape(-1, 3).mean(0).argmax() == 0


def test_a_coco_file_may_say_itself_which_part_a_picture_is_of(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "split": "train" if i < 3 else "test"} for i in range(6)]
    found = folders.load(coco(tmp_path, images=images), 16)
    assert len(found.training) == len(found.validation) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [{"id": 5, "image_id": 0, "category_id": 9, "bbox": [0, 0, 4, 4]}]},
            "annotation 5: category_id 9",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 99, "category_id": 3, "bbox": [0, 0, 4, 4]}]},
            "annotation 5: image_id 99",
        ),
        ({"annotations": [{"id": 5}]}, "not COCO-style JSON"),
        ({"categories": "none"}, "not COCO-style JSON"),
    ],
)
def test_a_faulty_coco_file_is_refused_with_the_annotation(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        folders.load(coco(tmp_path, **changes), 16)


def test_a_box_outside_its_picture_is_refused(tmp_path: Path) -> None:
    rows = [{"image_id": i, "category_id": c, "bbox": [400, 2, 9, 9]} for i in range(6) for c in (3, 7)]
    with pytest.raises(DataError, match=r"\.png: box .* lies outside its 40 x 20 pixels"):
        folders.load(coco(tmp_path, annotations=rows), 16)
