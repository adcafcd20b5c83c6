"""The drive past signs: one frame per seed and index, a video in itself, and truth that fits the picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.models import glyphs
from isthmus.models.scenes import LABELS, SIZE, Drive, Scene, samples


@pytest.fixture(scope="module")
def minute() -> list[Scene]:
    """Sixty seconds of one drive, at five frames a second."""
    drive = Drive(3, fps=5.0)
    return [drive.frame(i) for i in range(300)]


@pytest.fixture(scope="module")
def training() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return samples(400, seed=11)


def same(a: Scene, b: Scene) -> bool:
    return np.array_equal(a.image, b.image) and (a.label, a.box) == (b.label, b.box) and np.array_equal(a.mask, b.mask)


def difference(a: Scene, b: Scene) -> float:
    return float(np.abs(a.image.astype(np.int16) - b.image).mean())


def test_there_are_24_signs_and_nothing() -> None:
    assert len(LABELS) == len(set(LABELS)) == 25
    assert LABELS[0] == "nothing"


def test_no_two_faces_are_alike() -> None:
    faces = [glyphs.face(*glyphs.SIGNS[name]).astype(np.int16) for name in LABELS[1:]]
    assert all(face.shape == (glyphs.SIZE, glyphs.SIZE, 4) for face in faces)
    assert min(np.abs(a - b).mean() for a, b in itertools.combinations(faces, 2)) > 2


@pytest.mark.parametrize("name", LABELS[1:])
def test_faces_are_premultiplied(name: str) -> None:
    face = glyphs.face(*glyphs.SIGNS[name])
    assert (face[..., :3] <= face[..., 3:]).all()
    assert face[0, 0, 3] == 0 or face[1, 1, 3] == 255


def test_a_scene_has_the_shape_it_states(minute: list[Scene]) -> None:
    for scene in minute:
        assert scene.image.shape == (SIZE, SIZE, 3)
        assert scene.image.dtype == np.uint8
        assert scene.mask.shape == (SIZE, SIZE)
        assert scene.mask.dtype == np.bool_
        assert 0 <= scene.label < len(LABELS)


def test_mask_and_box_agree_with_the_label(minute: list[Scene]) -> None:
    for scene in minute:
        if scene.box is None:
            assert scene.label == 0
            assert not scene.mask.any()
            continue
        x, y, w, h = scene.box
        rows, columns = np.nonzero(scene.mask)
        assert scene.label > 0
        assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_random_access_is_iteration() -> None:
    frames = list(itertools.islice(Drive(5), 90))
    drive = Drive(5)
    for i in (89, 3, 40, 0, 74):
        assert same(drive.frame(i), frames[i])


def test_the_seed_decides_everything() -> None:
    assert same(Drive(8).frame(30), Drive(8).frame(30))
    assert not same(Drive(8).frame(30), Drive(9).frame(30))


def test_the_frame_rate_only_picks_moments() -> None:
    assert same(Drive(8, fps=10.0).frame(40), Drive(8, fps=20.0).frame(80))


def test_a_far_frame_needs_no_history() -> None:
    assert Drive(1).frame(10_000_000).image.any()


def test_a_sign_is_visible_most_of_the_time(minute: list[Scene]) -> None:
    assert 0.6 < np.mean([scene.label > 0 for scene in minute]) < 0.82


def test_signs_come_one_at_a_time_with_nothing_between(minute: list[Scene]) -> None:
    runs = [label for label, _ in itertools.groupby(scene.label for scene in minute)]
    assert all(0 in pair for pair in itertools.pairwise(runs))
    assert 10 <= sum(label > 0 for label in runs) <= 14


def test_a_sign_grows_while_it_is_whole() -> None:
    drive = Drive(4)
    first = [drive.frame(i) for i in range(75)]
    widths = [s.box[2] for s in first if s.box and s.box[0] > 0 and s.box[0] + s.box[2] < SIZE]
    assert widths[-1] > 1.3 * widths[0]
    assert np.diff(widths).min() >= -2


def test_neighbouring_frames_look_alike() -> None:
    drive = Drive(6)
    frames = [drive.frame(i) for i in range(150)]
    steps = [difference(a, b) for a, b in itertools.pairwise(frames)]
    strangers = [difference(a, Drive(100 + i).frame(i)) for i, a in enumerate(frames[::10])]
    assert np.median(steps) < 0.4 * np.median(strangers)
    assert max(steps) < 4 * np.median(steps)


def test_samples_are_what_a_drive_shows(training: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    images, labels = training
    assert images.shape == (400, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (400,)
    assert labels.dtype == np.int64


def test_every_class_occurs_about_equally_often(training: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    counts = np.bincount(training[1], minlength=len(LABELS))
    assert 0.18 < counts[0] / counts.sum() < 0.35
    assert counts.min() >= 3
    assert counts[1:].max() < 3 * counts[1:].mean()


def test_samples_repeat_by_seed_and_begin_alike() -> None:
    images, labels = samples(6, seed=2)
    again, same_labels = samples(3, seed=2)
    other, _ = samples(3, seed=3)
    assert not np.array_equal(again, other)
    # The moments of a shorter set are the first of a longer one.
    assert np.array_equal(again, images[:3])
    assert np.array_equal(same_labels, labels[:3])
