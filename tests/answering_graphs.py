"""Small graphs for each kind of answer beside classes: poses, depth, embeddings, plain values, and one that is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphs import Builder

SIZE = 16


def _begun(seed: int) -> tuple[Builder, int, int]:
    """A builder, the picture, and (1, 8, 8, 8) features of it behind two convolutions."""
    b = Builder(seed)
    image = b.tensor((1, SIZE, SIZE, 3))
    return b, image, b.conv(b.conv(image, 3, 8, SIZE, stride=2), 8, 8, SIZE // 2)


def movenet(path: Path, seed: int = 1) -> Path:
    """(1, 1, 17, 3): tops, lefts and scores between 0 and 1."""
    b, image, features = _begun(seed)
    raw = b.dense(b.mean(features, 8), 8, 51)
    shares = b.add("LOGISTIC", [raw], [b.tensor((1, 51))])
    shape = b.constant(np.array([1, 1, 17, 3], np.int32))
    return b.write(path, [image], [b.add("RESHAPE", [shares, shape], [b.tensor((1, 1, 17, 3))], "ReshapeOptions")])


def posenet(path: Path, seed: int = 2) -> Path:
    """Heat maps (1, 8, 8, 17) and offsets (1, 8, 8, 34)."""
    b, image, features = _begun(seed)
    return b.write(path, [image], [b.conv(features, 8, 17, SIZE // 2), b.conv(features, 8, 34, SIZE // 2)])


def depth(path: Path, seed: int = 3) -> Path:
    """A map (1, 16, 16, 1) of values of no particular unit."""
    b, image, features = _begun(seed)
    small = b.conv(features, 8, 1, SIZE // 2)
    size = b.constant(np.array([SIZE, SIZE], np.int32))
    wide = b.add("RESIZE_BILINEAR", [small, size], [b.tensor((1, SIZE, SIZE, 1))], "ResizeBilinearOptions")
    return b.write(path, [image], [wide])


def embedder(path: Path, *, unit: bool = True, seed: int = 4) -> Path:
    """A vector (1, 32), of length one unless told otherwise."""
    b, image, features = _begun(seed)
    vector = b.dense(b.mean(features, 8), 8, 32)
    if unit:
        vector = b.add("L2_NORMALIZATION", [vector], [b.tensor((1, 32))], "L2NormOptions")
    return b.write(path, [image], [vector])


def values(path: Path, seed: int = 5) -> Path:
    """A matrix (1, 8, 8) and a number (1, 1) that mean nothing to anybody."""
    b, image, features = _begun(seed)
    shape = b.constant(np.array([1, 8, 64], np.int32))
    matrix = b.add("RESHAPE", [features, shape], [b.tensor((1, 8, 64))], "ReshapeOptions")
    return b.write(path, [image], [matrix, b.dense(b.mean(features, 8), 8, 1)])


def broken(path: Path, *outputs: tuple[int, ...]) -> Path:
    """Outputs of these shapes, all zero whatever the picture shows: an 8-bit conversion that failed."""
    b, image, features = _begun(6)
    nothing = b.add(
        "MUL", [features, b.constant(np.zeros((1, 1, 1, 8), np.float32))], [b.tensor((1, 8, 8, 8))], "MulOptions"
    )
    pooled = b.mean(nothing, 8)
    made = []
    for shape in outputs:
        count = int(np.prod(shape))
        flat = b.add("FULLY_CONNECTED", [pooled, b.weights(count, 8)], [b.tensor((1, count))], "FullyConnectedOptions")
        made.append(
            b.add("RESHAPE", [flat, b.constant(np.array(shape, np.int32))], [b.tensor(shape)], "ReshapeOptions")
        )
    return b.write(path, [image], made)
