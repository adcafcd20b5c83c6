"""What exits have said, as probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from isthmus.device.deciding.expectation import Expectation, logit
from isthmus.device.link_estimator import LinkEstimator
from isthmus.device.scheduler import STOP, ExpectedUtility, Offload, Situation
from isthmus.device.stage_times import StageTimes
from isthmus.models.bundle import Chance, Predictor
from isthmus.proto.vocabulary import Guess, StageResult
from pair import catalogue

EVEN = Chance(0.0, 1.0)
TIED = ((0.0, 1.0), (0.5, 1.0))


def predicting(exit_: Chance, server: Chance = EVEN) -> Expectation:
    predictors = tuple(Predictor(w, exit_, server, (TIED, TIED)) for w in catalogue().widths)
    return Expectation(replace(catalogue(), predictors=predictors))


def test_without_a_predictor_the_bins_serve() -> None:
    chances = Expectation(catalogue(exit_accuracy=0.7, tail_accuracy=0.95)).chances(1, 1, Guess(0, 0.6))
    assert chances.exit == 0.7
    assert chances.sent == ((0.90, 0.95), (0.88, 0.93)) or chances.sent[0] == pytest.approx((0.90, 0.95))


def test_a_predictor_says_what_its_formula_says() -> None:
    chance = Chance(0.1, 0.5, (0.2, 0.3, -0.1), ((0.0, 0.0), (1.0, -0.25)))
    last, first = logit(0.8), logit(0.3)
    base = 0.1 + 0.5 * last + 1.0 - 0.25 * last + 0.3 * first
    agreeing = base + 0.2 - 0.1 * first
    known = predicting(chance, chance)
    assert logit(known.chances(0, 1, Guess(1, 0.8), Guess(0, 0.3)).exit) == pytest.approx(base)
    assert logit(known.chances(0, 1, Guess(1, 0.8), Guess(1, 0.3)).exit) == pytest.approx(agreeing)
    sent = known.chances(0, 1, Guess(1, 0.8), Guess(1, 0.3)).sent
    assert [logit(p) for p in sent[0]] == pytest.approx([agreeing, agreeing + 0.5])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 2.0, -1.0])
def test_no_confidence_whatever_gives_anything_but_a_probability(confidence: float) -> None:
    chances = predicting(Chance(900.0, 90.0), Chance(-900.0, 90.0)).chances(0, 1, Guess(400, confidence))
    assert all(0 <= p <= 1 and math.isfinite(p) for p in (chances.exit, *(p for row in chances.sent for p in row)))


def test_a_class_that_the_exit_always_gets_right_is_not_sent_however_unsure() -> None:
    """The server is right half the time wherever the exit is half sure; of class 1 the exit is always right."""
    exit_ = Chance(-2.0, 1.0, (0.0, 0.0, 0.0), ((0.0, 0.0), (9.0, 0.0)))
    server = Chance(2.0, 1.0)
    predictors = tuple(Predictor(w, exit_, server, (TIED, TIED)) for w in catalogue().widths)
    policy = ExpectedUtility(replace(catalogue(), predictors=predictors))
    times = StageTimes(((0.004, 0.01), (0.003, 0.008)))

    def decided(label: int) -> object:
        result = StageResult(0, 1, 1.0, Guess(label, 0.5), 0.008, ((150, 180), (80, 160)))
        return policy.after_exit(result, Situation(0.15, LinkEstimator().outlook(5.0), times, 1 / 15))

    assert isinstance(decided(0), Offload)
    assert decided(1) is STOP
