"""What an operating point answered to the measured pictures, against the uncut model; as outcome table and as a card's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Outcomes, Point
from isthmus.models.bundling import calibration
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Guess

WIDTH = 1.0
"""The one width of a cut model."""
COLDEST = 0.25
"""A cut model that never disagreed on these pictures may on others: no temperature says more than this."""


@dataclass(frozen=True)
class Answered:
    """One operating point over the measured pictures."""

    point: Point
    guesses: tuple[Guess, ...]
    score: NDArray[np.float32]
    """(N,) agreement with the uncut model, 0 to 1."""

    @property
    def error(self) -> float:
        """By how much the agreement may be off, since it is of so few pictures."""
        return calibration.standard_error(self.score)

    def agrees(self, least: float) -> bool:
        """Whether it agrees so well, as far as its pictures can tell."""
        return self.point.accuracy + self.error >= least


def answered(
    uncut: Uncut, point: Point, outputs: Sequence[NDArray[np.float32]], packed: Sequence[Packed], truth: Sequence[Guess]
) -> Answered:
    """What was answered at `point` to every picture, against the truth: calibrated on some pictures, reported for the others."""
    task = uncut.task
    score = np.array([task.agreement(a, b) for a, b in zip(uncut.read(packed), truth, strict=True)], np.float32)
    accuracy = round(float(score[uncut.measuring].mean()), 5)
    temperature = 1.0
    if isinstance(task, Classification):
        logits = np.stack([task.logits([outputs[i]]) for i in uncut.fitting])
        labels = np.array([truth[i].label for i in uncut.fitting])
        temperature = max(COLDEST, round(calibration.fitted_temperature(logits, labels), 5))
    guesses = tuple(task.guess(packed[i], temperature=temperature, accuracy=accuracy) for i in uncut.measuring)
    point = msgspec.structs.replace(point, accuracy=accuracy, temperature=temperature)
    return Answered(point, guesses, score[uncut.measuring])


def from_fallback(fallback: Uncut, truth: Sequence[Guess]) -> Answered:
    """What a small model answers on the device, by its own confidence."""
    point = Point(width=WIDTH, exit=0)
    return by_confidence(found := answered(fallback, point, fallback.outputs, fallback.packed, truth), [found])


def by_confidence(answers: Answered, exits: Sequence[Answered]) -> Answered:
    """The answers with their agreement by each exit's confidence."""
    rows = tuple(
        calibration.accuracy_by_confidence(
            np.array([guess.confidence for guess in e.guesses]), answers.score, CONFIDENCE_EDGES
        )
        for e in exits
    )
    return replace(answers, point=msgspec.structs.replace(answers.point, accuracy_given=rows))


def outcomes_of(
    answered: Sequence[Answered], truth: Sequence[Guess], layer_bytes: NDArray[np.uint32], task: str
) -> Outcomes:
    """The outcome table of measured operating points, with the agreement of each answer where answers are no classes."""
    classes = task.startswith("classification")
    return Outcomes(
        truth=np.array([guess.label for guess in truth], np.uint16),
        label=np.array([[guess.label for guess in a.guesses] for a in answered], np.uint16).T,
        confidence=np.array([[guess.confidence for guess in a.guesses] for a in answered], np.float16).T,
        layer_bytes=layer_bytes,
        score=None if classes else np.array([a.score for a in answered], np.float16).T,
    )
