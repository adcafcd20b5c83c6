"""The call that a link is measured by: bounded, whatever is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.proto import wire
from isthmus.proto.operations import probe


@given(st.integers(0, 2**32 - 1), st.integers(4, probe.MOST_BYTES))
def test_a_reply_has_the_size_that_was_asked_for_up_to_the_most(down: int, up: int) -> None:
    asked = probe.request(up_bytes=up, down_bytes=down)
    assert len(asked) == up
    assert len(probe.reply(asked)) == min(down, probe.MOST_BYTES)


@given(st.binary(max_size=20))
def test_whatever_is_sent_gets_a_bounded_reply(asked: bytes) -> None:
    assert len(probe.reply(asked)) <= probe.MOST_BYTES < wire.RESULT_ROOM_BYTES


def test_goodput_is_what_the_round_trip_does_not_explain() -> None:
    assert probe.goodput_Bps(60_000, 0.62, 0.02) == pytest.approx(100_000)
    assert probe.goodput_Bps(60_000, 0.021, 0.02) is None
    assert probe.goodput_Bps(60_000, 0.0, 0.0) is None
