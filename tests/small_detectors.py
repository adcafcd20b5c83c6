"""Small detectors of the kind that distilling cuts, made in the test: a few convolutions, and FastestDet's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphs import Builder

SIZE, CLASSES = 64, 2
ONE: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def small_detector(path: Path, *, width: int = 8, squashed: bool = True, seed: int = 0) -> Path:
    """Objectness, place and class of each cell of 16 pixels; without `squashed` all of them bare."""
    b = Builder(seed)
    image = b.tensor((1, SIZE, SIZE, 3))
    first = b.conv(image, 3, width, SIZE, stride=2)
    second = b.conv(swish(b, first, (SIZE // 2, width)), width, width, SIZE // 2, stride=2)
    third = b.conv(second, width, width, SIZE // 4, stride=2)
    cells = b.conv(third, width, width, SIZE // 8, stride=2)
    answers = [_last(b, cells, width, kept) for kept in (1, 4, CLASSES)]
    if squashed:
        for i, kind in ((0, "LOGISTIC"), (2, "SOFTMAX")):
            out = b.tensor((1, SIZE // 16, SIZE // 16, CLASSES if i else 1))
            options: dict[str, Any] = {"options": "SoftmaxOptions", "beta": 1.0} if i else {}
            answers[i] = b.add(kind, [answers[i]], [out], **options)
    out = b.tensor((1, SIZE // 16, SIZE // 16, 5 + CLASSES))
    return b.write(path, [image], [b.add("CONCATENATION", answers, [out], "ConcatenationOptions", axis=3)])


def swish(b: Builder, x: int, of: tuple[int, int]) -> int:
    """x * sigmoid(x) of a map of (side, channels)."""
    side, channels = of
    gate = b.add("LOGISTIC", [x], [b.tensor((1, side, side, channels))])
    return b.add("MUL", [x, gate], [b.tensor((1, side, side, channels))], "MulOptions")


def _last(b: Builder, cells: int, width: int, kept: int) -> int:
    bias = b.constant(np.zeros(kept, np.float32))
    inputs = [cells, b.weights(kept, 1, 1, width), bias]
    return b.add("CONV_2D", inputs, [b.tensor((1, SIZE // 16, SIZE // 16, kept))], "Conv2DOptions", **ONE)
