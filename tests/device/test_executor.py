"""The executor: stages by signature on the shipped bundles, and pictures that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.device.executor import Executor, measure_stages
from isthmus.models import bundle
from isthmus.models.scenes import Drive
from isthmus.proto.errors import DataError


@pytest.fixture(scope="module")
def signs() -> bundle.Bundle:
    return bundle.load("signs")


@pytest.fixture(scope="module")
def executor(signs: bundle.Bundle) -> Executor:
    return Executor(signs)


def test_the_last_stage_predicts_what_encoding_then_takes(signs: bundle.Bundle, executor: Executor) -> None:
    ratios = []
    for index in range(20):
        executor.hold(index, Drive(3).frame(10 * index).image)
        assert executor.job(index, 0, 1.0)().layer_bytes is None
        predicted = executor.job(index, 1, 1.0)().layer_bytes
        assert predicted is not None
        assert len(predicted) == len(signs.manifest.bottleneck.steps)
        ratios.append(len(executor.encode(index, 0, 0)) / predicted[0][0])
        executor.forget(index)
    assert 0.8 < np.median(ratios) < 1.25


def test_every_width_answers_with_a_calibrated_guess(signs: bundle.Bundle, executor: Executor) -> None:
    for width in signs.manifest.widths:
        executor.hold(0, Drive(3).frame(0).image)
        guess = executor.job(0, 0, width)().guess
        assert guess is not None
        assert 0 <= guess.label < len(signs.manifest.labels)
        assert 1 / len(signs.manifest.labels) <= guess.confidence <= 1
        executor.forget(0)


def test_a_picture_of_another_size_is_resized(executor: Executor) -> None:
    scene = Drive(3).frame(40).image
    executor.hold(0, scene)
    executor.hold(1, scene.repeat(2, axis=0).repeat(2, axis=1))
    one, other = executor.job(0, 0, 1.0)().guess, executor.job(1, 0, 1.0)().guess
    assert one is not None
    assert other is not None
    assert one.label == other.label


def test_bytes_are_looked_up_as_the_floats_that_they_stand_for(executor: Executor) -> None:
    """A picture of bytes and the same one of floats give the same answer, bit for bit; a view mirrored in memory too."""
    scene = Drive(3).frame(40).image
    for pixels in (scene, scene[:, ::-1, ::-1]):
        executor.hold(0, pixels)
        executor.hold(1, pixels.astype(np.float32))
        assert executor.job(0, 0, 1.0)().guess == executor.job(1, 0, 1.0)().guess


def test_frames_do_not_disturb_each_other(executor: Executor) -> None:
    """The interpreter's tensors are seen in place: what one frame keeps must survive the next frame's run."""
    drive = Drive(3)
    executor.hold(0, drive.frame(0).image)
    executor.job(0, 0, 1.0)()
    executor.job(0, 1, 1.0)()
    alone = executor.encode(0, 0, 0)
    executor.hold(0, drive.frame(0).image)
    executor.hold(1, drive.frame(90).image)
    for frame, stage in ((0, 0), (1, 0), (0, 1), (1, 1)):
        executor.job(frame, stage, 1.0)()
    assert executor.encode(0, 0, 0) == alone


def test_a_frame_forgotten_while_its_stage_waits_is_no_error(executor: Executor) -> None:
    executor.hold(5, Drive(3).frame(0).image)
    job = executor.job(5, 0, 0.25)
    executor.forget(5)
    assert job().frame_id == 5


def test_nan_pixels_are_refused_and_counted(executor: Executor) -> None:
    pixels = np.zeros((128, 128, 3), np.float32)
    pixels[3, 4, 1] = np.nan
    with pytest.raises(DataError, match="frame 7: 1 values are NaN or infinite"):
        executor.hold(7, pixels)


def test_a_grey_picture_is_refused_with_its_shape(executor: Executor) -> None:
    with pytest.raises(DataError, match=r"frame 8: shape \(128, 128\), expected \(height, width, 3\)"):
        executor.hold(8, np.zeros((128, 128), np.uint8))


def test_a_wider_head_takes_longer(signs: bundle.Bundle, executor: Executor) -> None:
    seconds = measure_stages(executor, signs, repeats=15)
    assert seconds[0, 1.0] > seconds[0, 0.25]
