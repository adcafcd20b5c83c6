"""Two small detectors made in the test, and a bundle of both: they see what is bright, and whether it is red or blue."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs import Builder
from isthmus.models import flatbuffer
from isthmus.models.splitting import pair
from isthmus.models.splitting.ladder import Coder, Sight
from isthmus.models.splitting.outputs import told
from isthmus.models.splitting.uncut import Uncut, input_of

CELLS = 4
"""Of a picture's side; each is looked at by itself."""
LABELS = ("red", "blue")


DEVICE_SIDE, SERVER_SIDE = 0.62, 0.5
"""A box's side as the device's detector gives it, and as the server's: by this an answer tells who gave it."""


def detector(path: Path, *, size: int, extent: float = -9) -> Path:
    """What FastestDet gives: objectness, place and class of each cell, told by the cell's mean colour; `extent` of its box."""
    b = Builder()
    image = b.tensor((1, size, size, 3))
    side = size // CELLS
    how: dict[str, Any] = {"strideH": side, "strideW": side, "filterHeight": side, "filterWidth": side}
    cells = b.add("AVERAGE_POOL_2D", [image], [b.tensor((1, CELLS, CELLS, 3))], "Pool2DOptions", **how)
    # rows: objectness of red or blue light, place in the cell's middle, small, red more than blue, blue more than red
    weights = np.array(
        [[20, -20, 20], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [20, 0, -20], [-20, 0, 20]], np.float32
    )
    bias = np.array([-10, -9, -9, extent, extent, 0, 0], np.float32)
    inputs = [cells, b.constant(weights.reshape(7, 1, 1, 3)), b.constant(bias)]
    strides: dict[str, Any] = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    raw = b.add("CONV_2D", inputs, [b.tensor((1, CELLS, CELLS, 7))], "Conv2DOptions", **strides)
    return b.write(path, [image], [b.add("LOGISTIC", [raw], [b.tensor((1, CELLS, CELLS, 7))])])


Pixels = NDArray[np.uint8]
Lit = tuple[int, int, int]
"""(class, row, column) of a cell that is lit."""


def scene(seed: int) -> tuple[Pixels, set[Lit]]:
    """A picture, and what is in it."""
    rng = np.random.default_rng(seed)
    seen = {(int(rng.integers(2)), *divmod(int(cell), CELLS)) for cell in rng.choice(CELLS**2, 3, replace=False)}
    return lit(seen), seen


def lit(seen: Iterable[Lit], *, size: int = 64) -> Pixels:
    """A dark picture (size, size, 3) in which these cells are lit."""
    side, pixels = size // CELLS, np.full((size, size, 3), 20, np.uint8)
    for label, row, column in seen:
        colour = (20, 20, 235) if label else (235, 20, 20)
        pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = colour
    return pixels


def bundle(folder: Path) -> Path:
    """A bundle of a small detector on the device and one that takes more pixels on the server."""
    pictures = [scene(seed)[0] for seed in range(16)]

    def shown(path: Path) -> Uncut:
        graph = flatbuffer.read(path)
        return Uncut.of(graph, input_of(graph, "0..1"), told(None, "fastestdet"), pictures)

    folder.mkdir(parents=True, exist_ok=True)
    small = shown(detector(folder / "small.tflite", size=16, extent=0))
    large = shown(detector(folder / "large.tflite", size=64))
    made = pair.pair(small, large, pictures, Coder("jpeg", (Sight((90, 30)),)), lambda _: None)
    pair.write(folder / "eyes", made, labels=LABELS)
    return folder / "eyes"
