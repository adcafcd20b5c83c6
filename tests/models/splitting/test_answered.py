"""What operating points answered, as a model card tells it: agreement with its error, and average precision of boxes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from isthmus.models.bundle import Point
from isthmus.models.splitting.answered import Answered, card_table
from isthmus.proto.vocabulary import Box, Guess

CUP, CAT = (Box(label, 0.9, 0.1, 0.1, 0.5, 0.5) for label in (0, 1))
ROUGHLY = Box(1, 0.8, 0.1, 0.1, 0.5, 0.62)
"""The cat, overlapping by three quarters: the same at a half, not at 0.8 and more."""


def found(*boxes: Box) -> Guess:
    return Guess(boxes[0].label if boxes else 0, 0.9, boxes)


def answered(*guesses: Guess, score: list[float]) -> Answered:
    return Answered(Point(1.0, step=0, layers=1, bytes=100.0, accuracy=float(np.mean(score))), guesses, np.array(score))


TRUTH = [found(CUP), found(CAT), found()]
POINTS = [
    answered(*TRUTH, score=[1, 1, 1]),
    answered(found(CUP), found(ROUGHLY), found(), score=[1, 1, 1]),
    answered(found(CUP), found(), found(), score=[1, 0, 1]),
]


def test_the_card_of_a_detector_tells_average_precision() -> None:
    head, _, exact, rough, blind, _, how = card_table(POINTS, TRUTH, ("sent",), [("a",), ("b",), ("c",)])
    assert head == "| sent | bytes | agreement % | ± | AP50 % | AP50-95 % |"
    assert exact == "| a | 100 | 100.00 | 17.9 | 100.0 | 100.0 |"
    assert rough.startswith("| b | 100 | 100.00 | 17.9 | 100.0 | ")
    assert 70 < float(rough.split("|")[-2]) < 90
    assert blind.startswith("| c | 100 | 66.67 |")
    assert blind.split("|")[-3].strip() == "50.0"  # one class of two is never found
    assert "F1" in how
    assert "average precision" in how


def test_without_the_evaluator_a_card_lacks_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    head, *_, how = card_table(POINTS, TRUTH, ("sent",), [("a",), ("b",), ("c",)])
    assert head == "| sent | bytes | agreement % | ± |"
    assert "F1" in how
    assert "AP" not in how


def test_classes_have_no_average_precision() -> None:
    told = answered(Guess(1, 0.9), Guess(0, 0.8), score=[1, 1])
    assert card_table([told], told.guesses, ("step", "layers"), [("0.5", "1")]) == [
        "| step | layers | bytes | agreement % | ± |",
        "|---|---|---|---|---|",
        "| 0.5 | 1 | 100 | 100.00 | 21.7 |",
    ]
