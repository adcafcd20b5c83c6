"""Clips of features that change a little from frame to frame, and a codec that was fitted to such, deltas included."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.codec import CodecConfig, fit
from isthmus.proto.temporal.sequences import fit_deltas

Features = NDArray[np.float32]
SHAPE = (8, 8, 12)
STEPS = (0.5, 1.0)
KEEP = ((0.8, 0.8), (0.6, 0.6))


def clip(frames: int, *, seed: int = 0, moving: float = 0.05, shape: tuple[int, int, int] = SHAPE) -> list[Features]:
    """Heavy-tailed features that wander: a share `moving` of them by about a third of a step each frame, back to the mean."""
    rng = np.random.default_rng(seed)
    x = rng.laplace(0, 0.7, shape)
    out = []
    for _ in range(frames):
        moved = rng.random(shape) < moving
        x = np.where(moved, 0.95 * x + rng.laplace(0, 0.2, shape), x)
        out.append((x + rng.normal(0, 0.01, shape)).astype(np.float32))
    return out


@cache
def temporal() -> CodecConfig:
    """A fitted configuration with deltas."""
    clips = [clip(20, seed=seed) for seed in range(4)]
    config = fit(np.stack([x for frames in clips for x in frames]), (0.0,) * SHAPE[2], STEPS)
    return fit_deltas(config, clips, KEEP, lags=(1, 3))
