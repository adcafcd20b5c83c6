from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.edge_server.tail_times import MEMORY_S, TailTimes

PRIOR = {1: 0.004, 4: 0.010, 8: 0.018}


def test_the_prior_is_interpolated_and_extrapolated() -> None:
    times = TailTimes(PRIOR, max_batch=16)
    assert [times.p95_s(b) for b in (1, 2, 4, 6, 8, 16)] == pytest.approx([0.004, 0.006, 0.010, 0.014, 0.018, 0.036])


def test_one_hiccup_is_not_the_95th_percentile_but_two_are() -> None:
    times = TailTimes(PRIOR, max_batch=8)
    times.observe(1, 0.5, now=0.0)
    assert times.p95_s(1) == 0.004
    times.observe(1, 0.5, now=0.1)
    assert times.p95_s(1) == 0.5


def test_what_slows_one_size_slows_the_sizes_around_it() -> None:
    times = TailTimes(PRIOR, max_batch=8)
    for _ in range(30):
        times.observe(4, 0.020, now=0.0)
    assert [times.p95_s(b) for b in (1, 4, 8)] == pytest.approx([0.008, 0.020, 0.036])


def test_old_observations_are_forgotten() -> None:
    """Or a tail that was slow for a moment would never again be given a frame that shows it is fast."""
    times = TailTimes(PRIOR, max_batch=8)
    for _ in range(64):
        times.observe(1, 0.5, now=1.0)
    times.forget(now=1.0 + MEMORY_S / 2)
    assert times.p95_s(1) == 0.5
    times.forget(now=1.0 + MEMORY_S)
    assert times.p95_s(1) == 0.004


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(1e-5, 1.0), st.floats(0.0, 10.0)), max_size=60))
def test_a_larger_batch_never_takes_less(observations: list[tuple[int, float, float]]) -> None:
    times = TailTimes(PRIOR, max_batch=8)
    for batch, tail_s, now in sorted(observations, key=lambda seen: seen[2]):
        times.forget(now=now)
        times.observe(batch, tail_s, now=now)
    table = [times.p95_s(b) for b in range(1, 9)]
    assert table == sorted(table)
    assert table[0] > 0
