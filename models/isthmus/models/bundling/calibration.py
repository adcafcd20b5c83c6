"""Confidences that are probabilities: temperature scaling and how far off it leaves them (Guo et al. 2017). numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
COLDEST, HOTTEST = 0.02, 50.0
"""The temperatures between which one is searched."""
HALVINGS = 50
"""After so many halvings the interval is about what a float64 can tell apart."""
PRIOR_SAMPLES = 20
"""A bin of few samples leans on the mean, as if it held so many more."""


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K)."""
    z = logits.astype(np.float64) / temperature
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True), np.float64)


def fitted_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The temperature that minimises the cross entropy of held-out (N, K) logits.

    The loss is convex in 1 / T; its slope there is the mean of (expected logit - the true class's), which is halved on.
    """
    z = logits.astype(np.float64)
    of_truth = z[np.arange(len(z)), labels]

    def slope(sharpness: float) -> float:
        return float(((softmax(z, 1 / sharpness) * z).sum(axis=1) - of_truth).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float((low * high) ** -0.5)


def expected_calibration_error(probability: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Weighted mean gap of confidence and accuracy over equal bins. Both (N,)."""
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    gap = 0.0
    for b in range(bins):
        inside = bin_of == b
        if inside.any():
            gap += inside.mean() * abs(float(probability[inside].mean()) - float(right[inside].mean()))
    return float(gap)


def accuracy_by_confidence(
    confidence: NDArray[np.floating], right: NDArray[np.bool_ | np.floating], edges: Sequence[float]
) -> tuple[float, ...]:
    """Share right (or mean score) in each of the len(edges) + 1 confidence bins, drawn to the mean where samples are few."""
    bin_of = np.searchsorted(edges, confidence, side="right")
    mean = float(right.mean())
    shares = []
    for b in range(len(edges) + 1):
        inside = right[bin_of == b]
        shares.append(round((float(inside.sum()) + PRIOR_SAMPLES * mean) / (len(inside) + PRIOR_SAMPLES), 4))
    return tuple(shares)


def standard_error(score: Floats) -> float:
    """By how much the mean of scores (N,) between 0 and 1 may be off, N being few: one standard deviation of it.

    A picture of score 0 and one of score 1 are added, since a handful that all agree prove little (Agresti and Coull 1998).
    """
    padded = np.concatenate([np.asarray(score, np.float64), [0.0, 1.0]])
    return float(padded.std() / np.sqrt(len(padded)))
