"""Bytes and microseconds of the feature codec, as one JSON object.

    python benchmarks/codec.py [--bundle cifar10] [--repeats 2000]

Half of the frames teach the tables, the other half are coded. `h0_bytes` is the per-channel zero-order entropy of the
quantised symbols under static statistics of the first half: what an ideal entropy coder without context, and without
layers, would need. So `ratio` is also what coding in two layers costs, and more.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models import bundle as bundles
from isthmus.models.bundling.shipped import Shipped
from isthmus.models.data import corpora
from isthmus.proto.codec import LIMIT, Codec, fit

Features = NDArray[np.float32]
STEPS = (0.5, 0.7, 1.0, 1.4)
SHAPES = {
    "8x8x12": (400, 8, 8, 12),
    "10x10x10": (400, 10, 10, 10),
    "14x14x16": (100, 14, 14, 16),
    "14x14x64": (40, 14, 14, 64),
}


TARGET_SHAPE = "10x10x10"
TARGETS = {"ratio": 1.05, "encode_us": 30.0, "decode_us": 20.0}
"""At most so much at 1,000 elements, worst step."""


def correlated(shape: tuple[int, int, int, int], seed: int) -> Features:
    """Heavy-tailed unit-variance features (N, H, W, C): neighbours correlate, and so do their magnitudes."""
    rng = np.random.default_rng(seed)
    value = _smooth(rng.standard_normal(shape), 0.6)
    scale = np.exp(0.5 * _smooth(rng.standard_normal(shape), 0.9) + 0.25 * rng.standard_normal((shape[0], 1, 1, 1)))
    x = value * scale * np.exp(0.3 * rng.standard_normal(shape[3]))
    return (x / x.std()).astype(np.float32)


def _smooth(x: NDArray[np.float64], rho: float) -> NDArray[np.float64]:
    """First-order autoregression along rows and columns, variance kept."""
    fresh = math.sqrt(1 - rho * rho)
    for i in range(1, x.shape[1]):
        x[:, i] = rho * x[:, i - 1] + fresh * x[:, i]
    for j in range(1, x.shape[2]):
        x[:, :, j] = rho * x[:, :, j - 1] + fresh * x[:, :, j]
    return x


def h0_bytes(known: Features, unseen: Features, zero_point: Features, step: float) -> float:
    """Mean bytes of a frame of `unseen` under the per-channel statistics of `known`."""

    def symbols(x: Features) -> NDArray[np.intp]:
        return (np.clip(np.rint((x - zero_point) / np.float32(step)), -LIMIT, LIMIT) + LIMIT).astype(np.intp)

    bits = 0.0
    for a, b in zip(np.moveaxis(symbols(known), -1, 0), np.moveaxis(symbols(unseen), -1, 0), strict=True):
        share = np.bincount(a.ravel(), minlength=2 * LIMIT + 1) + 0.1
        bits -= float(np.log2(share / share.sum())[b].sum())
    return bits / 8 / len(unseen)


def microseconds(call: Callable[[], object], repeats: int) -> float:
    """Median of `repeats` single calls."""
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return round(statistics.median(spent) * 1e6, 1)


def measure(features: Features, repeats: int) -> dict[str, object]:
    known, unseen = features[::2], features[1::2]
    zero_point = known.mean(axis=(0, 1, 2))
    steps = tuple(step * float((known - zero_point).std()) for step in STEPS)
    codec = Codec(fit(known, tuple(zero_point.tolist()), steps))
    x = unseen[0]
    rows = [_row(codec, known, unseen, zero_point, step, repeats) for step in range(len(steps))]
    return {
        "shape": list(x.shape),
        "raw_bytes": x.nbytes,
        "predict_us": microseconds(lambda: codec.predict(x), repeats),
        "steps": rows,
    }


def _row(
    codec: Codec, known: Features, unseen: Features, zero_point: Features, step: int, repeats: int
) -> dict[str, object]:
    sizes = np.array([[len(p) for p in codec.encode(x, step)] for x in unseen])
    predicted = np.array([codec.predict(x)[step] for x in unseen])
    error = np.abs(predicted.sum(axis=1) / sizes.sum(axis=1) - 1)
    bound = h0_bytes(known, unseen, zero_point, codec.config.steps[step])
    payloads = codec.encode(unseen[0], step)
    return {
        "step": round(codec.config.steps[step], 4),
        "layer_bytes": sizes.mean(axis=0).round(1).tolist(),
        "h0_bytes": round(bound, 1),
        "ratio": round(float(sizes.sum(axis=1).mean()) / bound, 3),
        "encode_us": microseconds(lambda: codec.encode(unseen[0], step), repeats),
        "decode_us": microseconds(lambda: codec.decode(payloads), repeats),
        "decode_base_us": microseconds(lambda: codec.decode(payloads[:1]), repeats),
        "predict_error_median": round(float(np.median(error)), 4),
        "predict_error_p95": round(float(np.quantile(error, 0.95)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes and microseconds of the feature codec, as one JSON object.")
    parser.add_argument(
        "--bundle", help="a bundle of the zoo: the features of 800 validation pictures are measured as well"
    )
    parser.add_argument("--repeats", type=int, default=2000, help="calls behind each median")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic features")
    options = parser.parse_args()
    report: dict[str, object] = {
        name: measure(correlated(shape, options.seed), options.repeats) for name, shape in SHAPES.items()
    }
    if options.bundle:
        bundle = bundles.load(options.bundle)
        pictures = corpora.validation_of(bundle.manifest, None, most=800).pictures
        report[options.bundle] = measure(Shipped(bundle).head(pictures.images, 1.0)[0], options.repeats)
    print(json.dumps({**report, "at_1000_elements": verdict(report[TARGET_SHAPE])}, indent=2))


def verdict(measured: Any) -> dict[str, object]:
    """The worst step against its targets."""
    worst = {name: max(row[name] for row in measured["steps"]) for name in TARGETS}
    return {name: {"worst": worst[name], "target": most, "met": worst[name] <= most} for name, most in TARGETS.items()}


if __name__ == "__main__":
    main()
