"""Whose turn it is, in virtual time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.edge_server.repository.fair_share import OVERDUE_S, OVERDUE_TIMES, FairShare

A, B, C = b"a", b"b", b"c"


def turn(share: FairShare, waiting: list[bytes], took_s: dict[bytes, float]) -> bytes:
    chosen = share.first(waiting)
    share.begin(chosen, took_s[chosen], now=0.0)
    share.end(chosen, took_s[chosen])
    return chosen


def test_equal_batches_take_turns() -> None:
    share = FairShare(1)
    assert [turn(share, [A, B, C], dict.fromkeys((A, B, C), 0.01)) for _ in range(6)] == [A, B, C, A, B, C]


def test_a_long_batch_is_paid_for_with_turns() -> None:
    share = FairShare(1)
    turns = [turn(share, [A, B], {A: 0.05, B: 0.01}) for _ in range(60)]
    assert turns.count(B) == 50


def test_who_was_idle_has_saved_up_nothing() -> None:
    """Else a bundle that nobody used for an hour would have the workers for itself for as long."""
    share = FairShare(1)
    for _ in range(1000):
        turn(share, [A], {A: 0.01})
    turns = [turn(share, [A, B], {A: 0.01, B: 0.01}) for _ in range(10)]
    assert turns.count(A) == 5


@given(
    st.lists(st.tuples(st.floats(0.001, 0.1), st.sets(st.sampled_from((A, B, C)))), min_size=1, max_size=200),
)
def test_two_who_always_wait_differ_by_a_batch_at_most(rounds: list[tuple[float, set[bytes]]]) -> None:
    """Whatever a third one does, and however long batches take."""
    share, attained = FairShare(1), {A: 0.0, B: 0.0, C: 0.0}
    for took_s, extra in rounds:
        chosen = share.first(sorted({A, B} | extra))
        share.begin(chosen, took_s, now=0.0)
        share.end(chosen, took_s)
        attained[chosen] += took_s
        assert abs(attained[A] - attained[B]) <= 0.1 + 1e-9


@given(st.lists(st.sets(st.sampled_from((A, B))), max_size=100))
def test_whoever_waits_is_overtaken_by_each_other_at_most_twice(rounds: list[set[bytes]]) -> None:
    """With equal batches, whatever the others ask for and when."""
    share, since = FairShare(1), {A: 0, B: 0}
    for extra in rounds:
        chosen = turn(share, [*sorted(extra), C], dict.fromkeys((A, B, C), 0.01))
        since = {A: 0, B: 0} if chosen == C else {**since, chosen: since[chosen] + 1}
        assert max(since.values()) <= 2


def test_so_many_batches_run_at_a_time() -> None:
    share = FairShare(2)
    assert share.opens_at == -math.inf
    share.begin(A, 0.1, now=1.0)
    assert share.opens_at == -math.inf
    assert share.free_s(1.0) == 1.0
    share.begin(B, 0.2, now=1.0)
    assert share.free_s(1.0) == pytest.approx(1.1)
    assert share.opens_at == pytest.approx(1.0 + OVERDUE_TIMES * 0.1)
    share.end(B, 0.2)
    assert share.opens_at == -math.inf


def test_a_batch_that_hangs_gives_its_worker_back() -> None:
    share = FairShare(1)
    share.begin(A, 0.01, now=1.0)
    assert share.opens_at == pytest.approx(1.0 + OVERDUE_S)
    share.begin(B, 0.01, now=1.0 + OVERDUE_S)
    assert share.opens_at > 1.0 + OVERDUE_S
    share.end(B, 0.01)
    assert share.opens_at == pytest.approx(1.0 + OVERDUE_S)
    share.end(A, 5.0)
    assert share.first([A, B]) == B


def test_who_is_forgotten_begins_anew() -> None:
    share = FairShare(1)
    share.begin(A, 0.01, now=0.0)
    share.forget(A)
    assert share.opens_at == -math.inf
    share.end(A, 0.01)  # its last batch came after it
    assert share.first([B, A]) == B
