"""What an operating point answered to the measured pictures, against the uncut model; as outcome table and as a card's table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Outcomes, Point
from isthmus.models.bundling import calibration
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks.box_score import Judged, scored
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Box, Guess

Rows = Iterable[Sequence[str]]
GRID = 1000
"""Pixels high and wide that boxes in shares are counted on; their overlaps are the same on any."""
BOX_SCORES = (
    "Agreement is the mean over pictures of F1: boxes of one class that overlap by half are the same, as the outcome table "
    "counts each frame too. AP is COCO's average precision of the boxes as they are sent, against the uncut model's as truth."
)

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


def card_table(answers: Sequence[Answered], truth: Sequence[Guess], columns: Sequence[str], cells: Rows) -> list[str]:
    """The operating points as a table of a model card: `columns` and each point's `cells`, then bytes, agreement and its error.

    Of boxes also average precision against the uncut model's, and below the table how each is counted.
    """
    precision = _precision(answers, truth)
    more = ["AP50 %", "AP50-95 %"] if precision else []
    titles = [*columns, "bytes", "agreement %", "±", *more]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for number, (a, first) in enumerate(zip(answers, cells, strict=True)):
        shares = [f"{100 * a.point.accuracy:.2f}", f"{100 * a.error:.1f}"]
        scores = [f"{100 * score:.1f}" for score in precision[number]] if precision else []
        lines.append(f"| {' | '.join([*first, f'{a.point.bytes:.0f}', *shares, *scores])} |")
    if any(isinstance(guess.detail, tuple) for guess in truth):
        lines += ["", BOX_SCORES if precision else f"{BOX_SCORES.split('. ')[0]}."]
    return lines


def _precision(answers: Sequence[Answered], truth: Sequence[Guess]) -> list[tuple[float, float]]:
    """AP50 and AP50-95 of each point's boxes against the uncut model's; none where answers are no boxes, or nobody can count."""
    if not any(isinstance(guess.detail, tuple) and guess.detail for guess in truth):
        return []
    try:
        found = [scored(_judged(a.guesses, truth), _names((*a.guesses, *truth))) for a in answers]
    except ConfigError:  # the evaluator is an extra
        return []
    return [(score.ap50, score.ap50_95) for score in found]


def _judged(guesses: Sequence[Guess], truth: Sequence[Guess]) -> list[Judged]:
    """Both answers' boxes by picture, as of pictures of `GRID` by `GRID` pixels: only shares are known here."""
    return [
        Judged(GRID, GRID, tuple((str(b.label), _place(b)) for b in _boxes(right)), _boxes(told))
        for told, right in zip(guesses, truth, strict=True)
    ]


def _place(box: Box) -> tuple[float, float, float, float]:
    return GRID * box.top, GRID * box.left, GRID * box.bottom, GRID * box.right


def _boxes(guess: Guess) -> tuple[Box, ...]:
    return guess.detail if isinstance(guess.detail, tuple) else ()


def _names(guesses: Sequence[Guess]) -> list[str]:
    """Every class by its number."""
    return [str(label) for label in range(1 + max((b.label for g in guesses for b in _boxes(g)), default=0))]
