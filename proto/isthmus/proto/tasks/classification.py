"""One class of many. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.tasks.task import Arrays, Packed
from isthmus.proto.vocabulary import Guess

FEW = 64
"""Up to so many classes all logits cross; of more, the `TOP` greatest and the weight of the rest."""
TOP = 16
"""The greatest logits that cross then, each with its class: 100 bytes with the rest, against 4 a class."""
MOST_CLASSES = 65_536
"""Labels cross in 16 bits."""
ROUNDING = 0.01
"""By so much may the rest lie above what it can be: the outputs may have been 8-bit."""
LEAST = np.float32(1e-5)
"""What a probability of zero may have been before an 8-bit softmax rounded it."""


class Classification:
    """One class of K: `outputs` are logits (K,), or probabilities where the network ends in a softmax."""

    def __init__(self, *, classes: int | None = None, probabilities: bool = False) -> None:
        self._classes, self._probabilities = classes, probabilities

    def logits(self, outputs: Arrays) -> NDArray[np.float32]:
        """(K,) logits, up to a constant: softmax(log p) = p."""
        z = np.asarray(outputs[0], np.float32).ravel()
        return np.log(np.maximum(z, LEAST)) if self._probabilities else z

    def pack(self, outputs: Arrays) -> Packed:
        """Logits; of many classes only the greatest, and log Σ exp of the rest."""
        z = self.logits(outputs)
        if len(z) <= FEW:
            return tuple(z.tolist())
        order = np.argpartition(-z, TOP)
        top, rest = order[:TOP], z[order[TOP:]].astype(np.float64)
        most = float(rest.max())
        rest_sum = most + math.log(float(np.exp(rest - most).sum()))
        return struct.pack(f"<{TOP}H{TOP}ff", *top.tolist(), *z[top].tolist(), rest_sum)

    def guess(self, packed: Packed, *, temperature: float, accuracy: float) -> Guess:
        """The class of the greatest logit; softmax(logits / temperature) is its calibrated probability (Guo et al. 2017)."""
        labels, logits = self._greatest(packed) if isinstance(packed, bytes) else self._all(packed)
        if not logits or not all(map(math.isfinite, logits)):
            raise ValueError(f"logits: {len(logits)} values, not all finite; the model or its outputs are damaged")
        named = logits[: len(labels)]  # behind them, the rest as one
        if len(logits) > len(labels) and logits[-1] > min(named) + math.log(self._classes or MOST_CLASSES) + ROUNDING:
            raise ValueError(
                f"classes: a rest of {logits[-1]:g}, each of it at most {min(named):g}; its tail is damaged"
            )
        best, top = max(named), max(logits)
        total = sum(math.exp((x - top) / temperature) for x in logits)  # at least 1, and nothing can overflow
        return Guess(labels[named.index(best)], math.exp((best - top) / temperature) / total)

    def _all(self, packed: tuple[float, ...]) -> tuple[Sequence[int], Sequence[float]]:
        if self._classes is not None and len(packed) != self._classes:
            raise ValueError(
                f"logits: {len(packed)} values for {self._classes} classes; compare the two halves' bundles"
            )
        return range(len(packed)), packed

    def _greatest(self, packed: bytes) -> tuple[Sequence[int], Sequence[float]]:
        if len(packed) != struct.calcsize(f"<{TOP}H{TOP}ff") or (self._classes is not None and self._classes <= FEW):
            raise ValueError(f"classes: {len(packed)} bytes; compare the two halves' versions")
        values = struct.unpack(f"<{TOP}H{TOP}ff", packed)
        labels, logits = values[:TOP], values[TOP:]
        if len(set(labels)) < TOP or (self._classes is not None and max(labels) >= self._classes):
            raise ValueError(
                f"classes: {sorted(labels)}, expected {TOP} different ones of {self._classes or MOST_CLASSES}"
            )
        return labels, logits

    def agreement(self, one: Guess, other: Guess) -> float:
        """1 where both answers are the same class, else 0."""
        return float(one.label == other.label)
