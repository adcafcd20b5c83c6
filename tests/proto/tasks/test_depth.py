"""Depth: a map keeps its values to a share of its span, whatever their unit, and two agree whatever their scale."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from isthmus.proto.tasks.depth import HEADER, DepthEstimation, levels, values, values_of
from isthmus.proto.tasks.segmentation import MASK_ROOM_BYTES
from isthmus.proto.vocabulary import Depth, Guess

RNG = np.random.default_rng(0)
Floats = NDArray[np.float32]


def slope(height: int = 60, width: int = 80) -> Floats:
    """A floor that comes nearer, with a box on it."""
    a = np.repeat(np.linspace(1, 9, height, dtype=np.float32)[:, None], width, axis=1)
    a[20:40, 30:50] = 3.0
    return a


def told(outputs: Floats) -> Guess:
    task = DepthEstimation()
    return task.guess(task.pack([outputs]), temperature=1.0, accuracy=0.8)


@settings(deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(2, 12), st.integers(2, 12)),
        elements=st.floats(-1e6, 1e6, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
@example(np.array([[1.1754944e-38, 0], [0, 0]], np.float32))
@example(np.array([[3.4e38, -3.4e38], [0, 1]], np.float32))
def test_a_map_keeps_its_values(a: Floats) -> None:
    guess = told(a)
    span = float(a.max()) - float(a.min())
    np.testing.assert_allclose(values_of(guess), a, atol=0.51 * span / 255 + 1e-3 + 1e-6 * float(np.abs(a).max()))
    assert DepthEstimation().agreement(guess, guess) == 1.0


def test_a_map_of_one_channel_is_one_too_and_small_on_the_wire() -> None:
    packed = DepthEstimation().pack([slope()[..., None]])
    assert isinstance(packed, bytes)
    assert len(packed) < 400
    assert (told(slope()).label, told(slope()).confidence) == (0, 0.8)


def test_the_greatest_and_the_least_value_are_kept_exactly() -> None:
    detail = told(slope()).detail
    assert isinstance(detail, Depth)
    assert (detail.low, detail.high) == (1.0, 9.0)
    assert (levels(detail).min(), levels(detail).max()) == (0, 255)
    assert values(detail).dtype == np.float32


def test_a_map_of_noise_still_fits() -> None:
    packed = DepthEstimation().pack([RNG.normal(size=(512, 512)).astype(np.float32)])
    assert len(packed) < MASK_ROOM_BYTES + HEADER.size
    assert DepthEstimation().guess(packed, temperature=1.0, accuracy=1.0).detail is not None


def test_agreement_is_the_error_in_shares_of_what_there_is_to_know() -> None:
    task, truth = DepthEstimation(), slope()
    noisy = truth + RNG.normal(0, 0.1, truth.shape).astype(np.float32)
    agreement = task.agreement(told(noisy), told(truth))
    assert agreement == pytest.approx(1 - 0.08 / float(np.abs(truth - np.median(truth)).mean()), abs=0.01)
    for scale, shift in ((1000, 0), (0.001, -7), (1, 1e4)):  # the unit does not matter
        scaled = task.agreement(told(noisy * scale + shift), told(truth * scale + shift))
        assert scaled == pytest.approx(agreement, abs=0.01), (scale, shift)
    assert task.agreement(told(truth[::-1]), told(truth)) == 0.0
    assert task.agreement(told(np.full_like(truth, truth.mean())), told(truth)) < 0.05


def test_flat_maps_agree_when_they_are_the_same() -> None:
    task, flat = DepthEstimation(), np.full((4, 4), 5.0, np.float32)
    assert task.agreement(told(flat), told(flat)) == 1.0
    assert task.agreement(told(flat * 2), told(flat)) == 0.0
    assert task.agreement(told(flat * 0), told(flat * 0)) == 1.0
    with pytest.raises(ValueError, match=r"depth: \(4, 4\) against \(60, 80\)"):
        task.agreement(told(flat), told(slope()))


@pytest.mark.parametrize(
    "outputs",
    [[np.zeros((4, 4, 3))], [np.zeros(16)], [np.zeros((1, 4))], [np.full((4, 4), np.inf)], [slope(), slope()]],
)
def test_what_is_no_map_is_refused_before_it_crosses(outputs: list[Floats]) -> None:
    with pytest.raises(ValueError, match=r"expected|not finite"):
        DepthEstimation().pack(outputs)


@pytest.mark.parametrize(
    "packed",
    [
        (),
        (1.0,) * 4,
        b"short",
        HEADER.pack(4, 4, 0.0, 1.0) + b"not deflated",
        HEADER.pack(4, 4, 0.0, 1.0) + zlib.compress(bytes(15)),
        HEADER.pack(4, 4, 1.0, 0.0) + zlib.compress(bytes(16)),
        HEADER.pack(4, 4, 0.0, float("inf")) + zlib.compress(bytes(16)),
        HEADER.pack(65535, 65535, 0.0, 1.0) + zlib.compress(bytes(16)),
        struct.pack("<HHff", 0, 0, 0.0, 1.0) + zlib.compress(b""),
    ],
)
def test_what_is_no_map_is_refused(packed: tuple[float, ...] | bytes) -> None:
    with pytest.raises(ValueError, match=r"^depth: "):
        DepthEstimation().guess(packed, temperature=1.0, accuracy=0.5)
