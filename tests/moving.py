"""Clips of features that change a little from frame to frame, and a codec that was fitted to such, deltas included."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.models.bundling.writer import write
from isthmus.models.scenes import Drive
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


def bundle_with_deltas(target: Path) -> Bundle:
    """`signs` with deltas whose code was learnt from made features."""
    whole = bundles.load("signs")
    bottleneck = whole.manifest.bottleneck
    shape = bottleneck.height, bottleneck.width, bottleneck.channels
    codec = fit_deltas(whole.codec, [clip(12, shape=shape)], ((0.8, 0.8),) * len(bottleneck.steps), lags=(1,))
    manifest = msgspec.structs.replace(whole.manifest, schema=bundles.SCHEMA, bottleneck=bundles.Bottleneck.of(codec))

    def fill(folder: Path) -> None:
        for name in whole.manifest.files:
            shutil.copy(whole.folder / name, folder / name)

    return write(target, manifest, fill)


def calm_pictures(folder: Path, count: int) -> None:
    """A scene that hardly changes, as so many pictures: what comes of a camera on a wall."""
    folder.mkdir()
    scene, rng = Drive(3).frame(0).image, np.random.default_rng(0)
    files = [folder / f"{i:05d}.png" for i in range(min(count, 20))]
    for i, file in enumerate(files):
        noisy = scene.astype(np.int16) + rng.integers(-2, 3, scene.shape)
        noisy[4:8, 4 + i : 8 + i] = 255
        cv2.imwrite(str(file), np.clip(noisy, 0, 255).astype(np.uint8)[:, :, ::-1])
    for i in range(20, count):
        os.link(files[i % 20], folder / f"{i:05d}.png")
