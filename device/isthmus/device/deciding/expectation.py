"""How likely each answer is to be right, given what the exits have said. Pure; a few multiplications a frame.

Where the bundle has a predictor, its last exit is judged by the class that it said, its confidence, and whether the exit
before agrees: which class was said tells more than how sure the exit was. Elsewhere validation's counts by confidence serve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from isthmus.device.catalogue import Catalogue, Known
from isthmus.models.bundle import Chance, Predictor
from isthmus.proto.vocabulary import Guess

LEAST_CONFIDENCE, MOST_CONFIDENCE = 0.01, 0.999
"""Confidences beyond are taken as these: a logit without end would outweigh everything."""


class Chances(Struct, frozen=True):
    """Probabilities of being right."""

    exit: float
    """That of the exit that has spoken."""
    sent: tuple[tuple[float, ...], ...]
    """[step][layers - 1]: that of the server."""


def logit(confidence: float) -> float:
    """The logarithm of a confidence's odds, within bounds."""
    p = min(max(confidence, LEAST_CONFIDENCE), MOST_CONFIDENCE)
    return math.log(p / (1 - p))


def of_z(z: float) -> float:
    """The probability whose logit is `z`."""
    return 1 / (1 + math.exp(-z)) if z > -500 else 0.0


class Expectation:
    """The chances at every width, after every stage."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._last = catalogue, catalogue.stages - 1
        self._by_bin = [
            [
                [_counted(catalogue, w, stage, b) for b in range(len(catalogue.confidence_edges) + 1)]
                for stage in range(catalogue.stages)
            ]
            for w in range(len(catalogue.widths))
        ]
        """[width][stage][confidence bin]"""

    def chances(self, width: int, stage: int, guess: Guess | None, before: Guess | None = None) -> Chances:
        """At the width of this index, the exit of `stage` having said `guess` and the one before it `before`.

        `guess` is None where the head has no exit: the least confident bin counts then.
        """
        predictors = self._catalogue.predictors
        if not predictors or guess is None or stage < self._last:
            return self._by_bin[width][stage][self._catalogue.bin(0.0 if guess is None else guess.confidence)]
        return predicted(predictors[width], guess, before)


def predicted(predictor: Predictor, guess: Guess, before: Guess | None) -> Chances:
    """What a predictor says."""
    last = logit(guess.confidence)
    first, agrees = (0.0, False) if before is None else (logit(before.confidence), before.label == guess.label)
    server = _z(predictor.server, guess.label, last, first, agrees)
    return Chances(
        of_z(_z(predictor.exit, guess.label, last, first, agrees)),
        tuple(tuple(of_z(a + b * server) for a, b in row) for row in predictor.points),
    )


def _z(chance: Chance, label: int, last: float, first: float, agrees: bool) -> float:
    z = chance.intercept + chance.slope * last + chance.before[1] * first
    if agrees:
        z += chance.before[0] + chance.before[2] * first
    if label < len(chance.classes):
        z += chance.classes[label][0] + chance.classes[label][1] * last
    return z


def _counted(catalogue: Catalogue, width: int, stage: int, given: int) -> Chances:
    def share(known: Known) -> float:
        return known.given[stage][given]

    def shares(row: Sequence[Known]) -> tuple[float, ...]:
        return tuple(map(share, row))

    return Chances(share(catalogue.exits[width][stage]), tuple(map(shares, catalogue.offloads[width])))
