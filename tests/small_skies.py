"""Clips of a thing before a background, as small as a detector can be trained on."""

from __future__ import annotations

import numpy as np

from isthmus.models.data.clips import BoxedFrames


def sky(clips: int = 6, frames: int = 4, seed: int = 0) -> BoxedFrames:
    """Clips of a bright or a dark square before a background of each clip's own."""
    rng = np.random.default_rng(seed)
    images, boxes, of_clip = [], [], []
    for clip in range(clips):
        ground = rng.integers(60, 200, (16, 24, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        for _ in range(frames):
            image = ground.copy()
            left, top = rng.integers(4, 76), rng.integers(4, 44)
            image[top : top + 12, left : left + 16] = 255 * (clip % 2)
            images.append(image)
            boxes.append(np.array([[clip % 2, left, top, left + 16, top + 12]], np.float32))
            of_clip.append(clip)
    names = tuple(f"clip{i}" for i in range(clips))
    numbers = np.tile(np.arange(frames), clips)
    return BoxedFrames(np.stack(images), tuple(boxes), np.array(of_clip), numbers, names, ("dark", "bright"))
