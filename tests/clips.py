"""Made clips: a bundle that finds boxes by the graph of another, and a table of what it found, for worlds that replay them."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np

from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.sequences.table import Sequences
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Ageing, Bundle
from isthmus.models.bundling import writer

FRAMES, CLIPS, AGE = 60, 3, 32
QUALITIES = 5
AGEING = Ageing(
    (0.0, 1 / 30, 4 / 30, 0.5, 1.0),
    ((0.55, 0.55, 0.54, 0.5, 0.45),) * 2 + ((0.7, 0.7, 0.69, 0.62, 0.55),) * 2,
    ((0.85, 0.85, 0.84, 0.75, 0.65),) * 4,
)
"""Of four widths, as `signs` has them."""


def made(folder: Path, *, ageing: Ageing | None = AGEING) -> Bundle:
    """`signs` with another task: its graphs take the time that they take, what they find is in the table."""
    signs = bundles.load("signs")
    manifest = msgspec.structs.replace(signs.manifest, name="made", task="detection", ageing=ageing)
    bundle = writer.changed(signs, manifest, folder / "made")
    sequences.save(bundle, table(bundle))
    return bundle


def table(bundle: Bundle, *, seed: int = 1) -> Sequences:
    """One thing a clip, which moves on steadily; exits find it less often than the server, and call it by other names."""
    rng, manifest = random.Random(seed), bundle.manifest
    points, n = manifest.points, FRAMES * CLIPS
    truth, boxes, things = [], [], []
    for sample in range(n):
        clip, number = divmod(sample, FRAMES)
        place = _place(clip, number)
        truth.append((sample, clip, place))
        for p, point in enumerate([*points, *(None,) * QUALITIES]):
            sure = 0.85 if point is None or point.exit is None else 0.35 + 0.4 * point.width
            if rng.random() < 0.95:
                label = clip if rng.random() < sure else (clip + 1) % 3
                boxes.append((sample, p, label, rng.uniform(0.3, 0.9), place))
        track = [_place(clip, number + age) if number + age < FRAMES else (np.nan,) * 4 for age in range(AGE + 1)]
        things.append((sample, track))
    widths, steps = len(manifest.widths), len(manifest.bottleneck.steps)
    layers = max(point.layers for point in points)
    return Sequences(
        names=np.array([f"clip{c}" for c in range(CLIPS)]),
        fps=np.full(CLIPS, 30.0, np.float32),
        clip=np.repeat(np.arange(CLIPS), FRAMES).astype(np.uint16),
        number=np.tile(np.arange(FRAMES), CLIPS).astype(np.uint32),
        truth_frame=np.array([t[0] for t in truth], np.uint32),
        truth_label=np.array([t[1] for t in truth], np.uint16),
        truth_place=np.array([t[2] for t in truth], np.float16),
        box_frame=np.array([b[0] for b in boxes], np.uint32),
        box_point=np.array([b[1] for b in boxes], np.uint16),
        box_label=np.array([b[2] for b in boxes], np.uint16),
        box_score=np.array([b[3] for b in boxes], np.float16),
        box_place=np.array([b[4] for b in boxes], np.float16),
        layer_bytes=np.full((n, widths, steps, layers), 200, np.uint32),
        lags=np.zeros(0, np.uint16),
        delta_bytes=np.zeros((n, widths, 0, steps, layers), np.uint32),
        picture_bytes=np.tile(np.array([3000, 1300, 1000, 760, 560], np.uint32), (n, 1)),
        thing_frame=np.array([t[0] for t in things], np.uint32),
        thing_place=np.array([t[1] for t in things], np.float16),
    )


def _place(clip: int, number: int) -> tuple[float, float, float, float]:
    y, x = 0.2 + 0.2 * clip, 0.1 + 0.01 * number
    return y, x, y + 0.1, x + 0.1
