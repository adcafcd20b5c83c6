"""Fits a bundle's predictors: logistic regressions of being right, on what the exits said. numpy only.

Counted on the calibrating samples of an outcome table alone. What is peculiar to a class is drawn to what all classes share
(a Gaussian prior), by as much as cross-validation says; and a predictor is kept only where, so judged, it tells more than
the bins of confidence do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Chance, Manifest, Outcomes, Predictor
from isthmus.models.bundling import calibration

LEAST_SAMPLES = 1000
"""Fewer calibrating samples than this say too little of single classes."""
MOST_CLASSES = 256
"""Beyond this many, only what all classes share is fitted: the table would outgrow the bundle's own."""
PRIORS = (0.3, 1.0, 3.0, 10.0)
"""Precisions of a class's own terms that are tried."""
FOLDS = 5
LOOSE = 1e-3
"""The precision of what all classes share: next to none."""
ROUNDS, ENOUGH = 30, 1e-8
DECIMALS = 3
LEAST_CONFIDENCE, MOST_CONFIDENCE = 0.01, 0.999
"""As the device takes them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Seen:
    """What the exits said at one width, of N samples, and who was right."""

    label: NDArray[np.int64]
    last: Floats
    """The logit of the last exit's confidence."""
    before: Floats
    """(N, 3): whether the exit before agrees, the logit of its confidence, and their product; zeros without one."""
    exit: Floats
    """1 where the last exit was right."""
    sent: Floats
    """(N, Q) the same for every way to send, step by step."""
    bin_of: NDArray[np.int64]
    """The last exit's bin of confidence."""

    def __getitem__(self, which: NDArray[np.bool_]) -> _Seen:
        return _Seen(
            self.label[which],
            self.last[which],
            self.before[which],
            self.exit[which],
            self.sent[which],
            self.bin_of[which],
        )


def fitted(manifest: Manifest, outcomes: Outcomes) -> tuple[Predictor, ...]:
    """The predictors of every width, or none.

    None where answers are no classes, where a stage has no exit, where few samples calibrate or none are marked, and
    where they would tell no more than the bins.
    """
    held_in = outcomes.calibrating
    if outcomes.score is not None or held_in is None or held_in.sum() < LEAST_SAMPLES:
        return ()
    if not manifest.task.startswith("classification") or not all(stage[0].exit for stage in manifest.stages):
        return ()
    widths = sorted(manifest.widths)
    seen = [_seen(manifest, outcomes, width)[held_in] for width in widths]
    prior, loss = min(((p, sum(_validated(s, p, manifest) for s in seen)) for p in PRIORS), key=lambda found: found[1])
    if loss >= sum(_by_bins(s, len(manifest.confidence_edges) + 1) for s in seen):
        return ()
    return tuple(_predictor(w, s, prior, manifest) for w, s in zip(widths, seen, strict=True))


def _seen(manifest: Manifest, outcomes: Outcomes, width: float) -> _Seen:
    here = [(i, p) for i, p in enumerate(manifest.points) if p.width == width]
    exits = [i for _, i in sorted((p.exit, i) for i, p in here if p.exit is not None)]
    sent = [i for _, _, i in sorted((p.step, p.layers, i) for i, p in here if p.step is not None)]
    right = (outcomes.label == outcomes.truth[:, None]).astype(np.float64)
    confidence = outcomes.confidence.astype(np.float64)
    before = np.zeros((len(right), 3))
    if len(exits) > 1:
        agrees = outcomes.label[:, exits[-2]] == outcomes.label[:, exits[-1]]
        first = _logit(confidence[:, exits[-2]])
        before = np.stack([agrees, first, agrees * first], axis=1)
    return _Seen(
        outcomes.label[:, exits[-1]].astype(np.int64),
        _logit(confidence[:, exits[-1]]),
        before,
        right[:, exits[-1]],
        right[:, sent],
        np.searchsorted(manifest.confidence_edges, confidence[:, exits[-1]], "right"),
    )


def _logit(confidence: Floats) -> Floats:
    p = np.clip(confidence, LEAST_CONFIDENCE, MOST_CONFIDENCE)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def _design(seen: _Seen, classes: int) -> Floats:
    """(N, 5 + 2 K): 1, l, the exit before, then for each class 1 and l where it was said."""
    own = np.zeros((len(seen.last), classes, 2))
    if classes:
        own[np.arange(len(own)), seen.label, 0] = 1
        own[np.arange(len(own)), seen.label, 1] = seen.last
    return np.hstack([np.ones((len(own), 1)), seen.last[:, None], seen.before, own.reshape(len(own), -1)])


def regressed(x: Floats, y: Floats, precision: Floats) -> Floats:
    """Weights (D,) of the logistic regression of shares y (N,) on x (N, D), each drawn to 0 by its precision (D,).

    Newton's method; each step is halved until the penalised likelihood rises.
    """
    weights = np.zeros(x.shape[1])

    def loss(w: Floats) -> float:
        z = x @ w
        return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (precision * w**2).sum())

    now = loss(weights)
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -500, 500)))
        slope = x.T @ (p - y) + precision * weights
        curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(precision + 1e-9)
        step, size = np.linalg.solve(curve, slope), 1.0
        while (after := loss(weights - size * step)) > now and size > 1e-6:
            size /= 2
        if now - after < ENOUGH * len(y):
            break
        weights, now = weights - size * step, after
    return weights


def _precision(prior: float, classes: int) -> Floats:
    return np.concatenate([np.full(5, LOOSE), np.full(2 * classes, prior)])


def _classes(manifest: Manifest) -> int:
    return len(manifest.labels) if len(manifest.labels) <= MOST_CLASSES else 0


def _fit(seen: _Seen, prior: float, classes: int) -> tuple[Floats, Floats, list[Floats]]:
    """The weights of exit and server, and intercept and slope of each way to send."""
    x, precision = _design(seen, classes), _precision(prior, classes)
    server = regressed(x, seen.sent.mean(axis=1), precision)
    tied = np.stack([np.ones(len(x)), x @ server], axis=1)
    ways = [regressed(tied, seen.sent[:, q], np.full(2, LOOSE)) for q in range(seen.sent.shape[1])]
    return regressed(x, seen.exit, precision), server, ways


def _validated(seen: _Seen, prior: float, manifest: Manifest) -> float:
    """The cross-validated log loss of exit and ways to send, a sample."""
    fold, classes, lost = np.arange(len(seen.last)) % FOLDS, _classes(manifest), 0.0
    for k in range(FOLDS):
        exit_, server, ways = _fit(seen[fold != k], prior, classes)
        out = seen[fold == k]
        x = _design(out, classes)
        z = x @ server
        lost += _loss(out.exit, x @ exit_)
        lost += sum(_loss(out.sent[:, q], w[0] + w[1] * z) for q, w in enumerate(ways)) / len(ways)
    return lost / len(seen.last)


def _loss(y: Floats, z: Floats) -> float:
    return float((np.logaddexp(0, z) - y * z).sum())


def _by_bins(seen: _Seen, bins: int) -> float:
    """The same of shares counted in bins of confidence."""
    fold, lost = np.arange(len(seen.last)) % FOLDS, 0.0
    edges = np.arange(1, bins) - 0.5
    for k in range(FOLDS):
        within, out = seen[fold != k], seen[fold == k]

        def loss(
            y: Floats, judged: Floats, b: NDArray[np.int64] = within.bin_of, at: NDArray[np.int64] = out.bin_of
        ) -> float:
            shares = np.array(calibration.accuracy_by_confidence(b.astype(float), y, edges.tolist()))
            p = np.clip(shares[at], 1e-6, 1 - 1e-6)
            return _loss(judged, np.log(p / (1 - p)))

        ways = [loss(within.sent[:, q], out.sent[:, q]) for q in range(seen.sent.shape[1])]
        lost += loss(within.exit, out.exit) + sum(ways) / len(ways)
    return lost / len(seen.last)


def _predictor(width: float, seen: _Seen, prior: float, manifest: Manifest) -> Predictor:
    exit_, server, ways = _fit(seen, prior, _classes(manifest))
    pairs = iter((round(float(a), DECIMALS), round(float(b), DECIMALS)) for a, b in ways)
    layers: dict[int, int] = {}
    for point in manifest.points:
        if point.width == width and point.step is not None:
            layers[point.step] = layers.get(point.step, 0) + 1
    rows = tuple(tuple(next(pairs) for _ in range(layers[step])) for step in sorted(layers))
    return Predictor(width, _chance(exit_), _chance(server), rows)


def _chance(weights: Floats) -> Chance:
    rounded: Sequence[float] = [round(float(w), DECIMALS) for w in weights]
    classes = tuple(zip(rounded[5::2], rounded[6::2], strict=True))
    return Chance(rounded[0], rounded[1], (rounded[2], rounded[3], rounded[4]), classes)
