"""What credits cost: nothing where there are enough, much where a round trip takes as long as all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.device.deciding.crowding import PRICE_OF_CREDIT, crowding
from isthmus.proto.vocabulary import AnswerSource
from pair import Pair, catalogue

FAR = (3600.0, 8.0, 8.0, 600.0)
"""Seconds, Mbit/s up and down, and a round trip of nine frames at 15 a second."""


def test_the_last_credit_costs_its_price_where_every_frame_takes_one() -> None:
    given_, period_s = 8, 1 / 15
    assert crowding(given_, given_, period_s) * given_ * period_s == pytest.approx(PRICE_OF_CREDIT)


def test_nothing_in_flight_and_no_known_period_cost_nothing() -> None:
    assert crowding(0, 8, 0.1) == 0.0
    assert crowding(8, 8, None) == 0.0


@given(st.integers(0, 63), st.integers(1, 64), st.floats(1e-3, 10))
def test_it_grows_with_what_is_taken(taken: int, given_: int, period_s: float) -> None:
    assert crowding(taken, given_, period_s) < crowding(taken + 1, given_, period_s)


@pytest.mark.parametrize("credits_", [4, 8])
def test_frames_with_little_to_win_leave_the_credits_to_those_with_much(credits_: int) -> None:
    """Every third frame is unsure, and the server is worth 0.55 to it; to the others 0.03. There are credits for half of all."""
    pair = Pair(
        FAR,
        known=catalogue(0.92),
        confidence=lambda frame_id: 0.3 if frame_id % 3 == 0 else 0.8,
        deadline_s=0.9,
        stream_credits=credits_,
    )
    pair.connected().run(30)
    unsure = [answer for frame, answer in pair.answers if frame.id % 3 == 0]
    served = sum(answer.source is AnswerSource.SERVER for answer in unsure)
    assert served > 0.9 * len(unsure)  # of whom four in ten, and eight in ten, were served before credits had a price
