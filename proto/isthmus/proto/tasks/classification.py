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
LEAST = np.float32(1e-5)
"""What a probability of zero may have been before an 8-bit softmax rounded it."""


class Classification:
    """One class of K: `outputs` are logits (K,), or probabilities where the network ends in a softmax."""

    def __init__(self, *, probabilities: bool = False) -> None:
        self._probabilities = probabilities

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
        labels: Sequence[int]
        if isinstance(packed, bytes):
            if len(packed) != struct.calcsize(f"<{TOP}H{TOP}ff"):
                raise ValueError(f"classes: {len(packed)} bytes; compare the two halves' versions")
            values = struct.unpack(f"<{TOP}H{TOP}ff", packed)
            labels, logits = values[:TOP], values[TOP:]
        else:
            labels, logits = range(len(packed)), packed
        if not logits or not all(map(math.isfinite, logits)):
            raise ValueError(f"logits: {len(logits)} values, not all finite; the model or its outputs are damaged")
        told = logits[: len(labels)]  # behind them, the rest as one
        best = max(told)
        total = sum(math.exp((x - best) / temperature) for x in logits)
        return Guess(labels[told.index(best)], 1.0 / total)

    def agreement(self, one: Guess, other: Guess) -> float:
        """Whether it is the same class."""
        return float(one.label == other.label)
