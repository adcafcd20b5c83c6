"""Confidences that are probabilities, and the two halves that a set is parted in to say so."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.models.bundling import calibration
from isthmus.models.data import corpora


def drawn(n: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels that were drawn by them: their confidence is true as it is."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (n, classes))
    chance = calibration.softmax(logits).cumsum(axis=1)
    return logits, (rng.random((n, 1)) > chance).sum(axis=1)


@pytest.mark.parametrize("sharpened", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_what_sharpened_the_logits(sharpened: float) -> None:
    logits, labels = drawn()
    temperature = calibration.fitted_temperature(logits * sharpened, labels)
    assert temperature == pytest.approx(sharpened, rel=0.1)
    probability = calibration.softmax(logits * sharpened, temperature)
    right = probability.argmax(axis=1) == labels
    assert calibration.expected_calibration_error(probability.max(axis=1), right) < 0.03


def test_overconfidence_is_seen() -> None:
    sure, half_right = np.full(1000, 0.99), np.arange(1000) % 2 == 0
    assert calibration.expected_calibration_error(sure, half_right) == pytest.approx(0.49)


def test_logits_that_are_always_right_have_a_temperature_all_the_same() -> None:
    assert calibration.fitted_temperature(np.eye(3) * 5, np.arange(3)) == pytest.approx(calibration.COLDEST, rel=0.01)


def test_a_bin_of_few_samples_leans_on_the_mean() -> None:
    confidence = np.array([0.1] * 1000 + [0.95])
    right = np.array([True, False] * 500 + [False])
    low, high = calibration.accuracy_by_confidence(confidence, right, (0.5,))
    assert low == pytest.approx(0.5, abs=0.01)
    assert 0.4 < high < 0.5


def test_both_halves_of_a_set_sorted_by_class_hold_every_class() -> None:
    """CIFAR-10 here has class = index mod 10: every other picture would be every other class."""
    labels, calibrating = np.arange(1000) % 10, corpora.halves(1000)
    assert calibrating.sum() == 500
    for part in (calibrating, ~calibrating):
        assert np.bincount(labels[part], minlength=10).min() > 30
