"""What crosses, as the codec sees it: the head's features as one array, and that array as what the tail takes.

One tensor stays as it is; where the tail only asks which channel is greatest, what decides that is all that stays of it.
Several are divided by their gains, so that one quantiser suits them all, and laid one after
the other, channel after channel, so that neighbours stay neighbours: (1, N, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bottleneck, Contest, Crossing

Floats = NDArray[np.float32]


def joined(outputs: Mapping[str, NDArray[Any]], bottleneck: Bottleneck) -> Floats:
    """A head's outputs, each with a batch of one, as the features (H, W, C) that are coded."""
    tensors = bottleneck.tensors
    if not tensors:
        features: Floats = outputs["features"].reshape(bottleneck.height, bottleneck.width, bottleneck.channels)
        return features if bottleneck.contest is None else contested(features, bottleneck.contest)
    planar = [_planar(outputs[t.name][0]) / np.float32(t.gain) for t in tensors]
    return np.concatenate([values.ravel() for values in planar], dtype=np.float32)[None, :, None]


def contested(features: Floats, contest: Contest) -> Floats:
    """max(x - the greatest channel's x, -reach) + top, at each place of (H, W, C)."""
    behind = features - features.max(axis=-1, keepdims=True)
    won: Floats = np.maximum(behind, np.float32(-contest.reach)) + np.float32(contest.top)
    return won


def parted(features: Floats, tensors: Sequence[Crossing]) -> tuple[Floats, ...]:
    """Decoded features (B, H, W, C) as what the tail takes, each (B, ...)."""
    if not tensors:
        return (features,)
    flat = features.reshape(len(features), -1)
    parts, start = [], 0
    for t in tensors:
        size = math.prod(t.shape)
        values = flat[:, start : start + size] * np.float32(t.gain)
        channels_first = values.reshape(len(flat), t.shape[-1], *t.shape[:-1])
        parts.append(np.ascontiguousarray(np.moveaxis(channels_first, 1, -1)))
        start += size
    return tuple(parts)


def _planar(values: NDArray[Any]) -> NDArray[Any]:
    """The order in which axes are joined: the last one first."""
    return np.moveaxis(values, -1, 0)
