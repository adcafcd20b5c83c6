"""The clairvoyant against whoever tries everything: on small instances, no schedule whatever does better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.emulation import capacity
from isthmus.emulation.clairvoyant.bound import GRACE_S, Foreseen, RightWay, play, solve
from isthmus.emulation.clairvoyant.jobs import Job, Way, most_on_time
from isthmus.proto.vocabulary import OperatingPoint

POINT = OperatingPoint(1.0)
Back = Callable[[Foreseen, RightWay, float], float]


def link_of(rates_Bps: Sequence[float]) -> capacity.RateCapacity:
    """One rate for each tenth of a second, over and over."""
    return capacity.RateCapacity([i / 10 for i in range(len(rates_Bps))], rates_Bps, len(rates_Bps) / 10)


def uplink(link: capacity.RateCapacity) -> Back:
    """A FIFO link as a function; it remembers what was sent."""
    position = 0.0

    def back_s(frame: Foreseen, way: RightWay, sent_s: float) -> float:
        nonlocal position
        position = max(position, link.carried(sent_s)) + way.size_bytes
        return link.when(position) + frame.tail_s + frame.delays_s

    return back_s


def best_by_trying_everything(frames: Sequence[Foreseen], link: capacity.RateCapacity) -> int:
    """Every choice of ways, in every order of one head; what is sent leaves in the order in which it is ready."""
    best = 0
    for choice in product(*((None, *frame.ways) for frame in frames)):
        taken = [i for i, way in enumerate(choice) if way is not None]
        for order in permutations(taken):
            free_s, right, back_s = 0.0, 0, uplink(link)
            for i in order:
                way = choice[i]
                assert way is not None
                free_s = max(free_s, frames[i].captured_s) + way.head_s
                answered_s = back_s(frames[i], way, free_s) if way.size_bytes else free_s
                right += answered_s <= frames[i].due_s + GRACE_S
            best = max(best, right)
    return best


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[Foreseen], capacity.RateCapacity]:
    """Up to four frames, up to three ways to be right about each; times on a grid, so that ties happen."""
    rates = draw(st.lists(st.sampled_from([0.0, 100.0, 300.0, 1000.0]), min_size=1, max_size=6).filter(any))
    period_s = draw(st.sampled_from([0.05, 0.1]))
    budget_s = draw(st.sampled_from([0.15, 0.25, 0.4]))
    tail_s = draw(st.sampled_from([0.0, 0.03]))
    way = st.builds(
        RightWay, st.just(POINT), st.sampled_from([0.02, 0.06, 0.13]), st.sampled_from([0.0, 10.0, 20.0, 45.0])
    )
    n = draw(st.integers(1, 4))
    captured = [i * period_s for i in range(n)]
    ways = st.lists(way, max_size=3).map(tuple)
    return [Foreseen(t, t + budget_s, draw(ways), tail_s, 0.01) for t in captured], link_of(rates)


@settings(max_examples=200, deadline=None)
@given(instances())
def test_no_schedule_whatever_beats_the_bound_and_one_that_reaches_it_proves_it_exact(
    instance: tuple[list[Foreseen], capacity.RateCapacity],
) -> None:
    frames, link = instance
    bound = solve(frames, link.carried)
    best = best_by_trying_everything(frames, link)
    assert bound.count >= best
    assert bound.count == sum(way is not None for way in bound.plan)
    played = play(frames, bound.plan, uplink(link))
    assert sum(p is not None for p in played) <= best


@settings(max_examples=200, deadline=None)
@given(instances())
def test_the_bound_is_exact_where_every_head_is_done_before_the_next_frame(
    instance: tuple[list[Foreseen], capacity.RateCapacity],
) -> None:
    frames, link = instance
    quick = [replace(f, ways=tuple(w for w in f.ways if w.head_s < 0.05)) for f in frames]
    bound = solve(quick, link.carried)
    played = play(quick, bound.plan, uplink(link))
    assert bound.count == best_by_trying_everything(quick, link) == sum(p is not None for p in played)


def test_one_large_frame_gives_way_to_two_small_ones() -> None:
    large = Foreseen(0.0, 0.3, (RightWay(POINT, 0.01, 28.0),))
    small = [Foreseen(t, t + 0.3, (RightWay(POINT, 0.01, 16.0),)) for t in (0.05, 0.1)]
    bound = solve([large, *small], link_of([100.0]).carried)
    assert [way is not None for way in bound.plan] == [False, True, True]


def test_a_frame_that_an_exit_gets_right_costs_the_link_nothing() -> None:
    both = Foreseen(0.0, 0.3, (RightWay(POINT, 0.01, 25.0), RightWay(POINT, 0.02)))
    other = Foreseen(0.05, 0.35, (RightWay(POINT, 0.01, 25.0),))
    bound = solve([both, other], link_of([100.0]).carried)
    assert bound.count == 2
    assert bound.plan[0] == both.ways[1]


def test_a_slow_head_bounds_what_a_fast_link_does_not() -> None:
    frames = [Foreseen(i / 10, i / 10 + 0.25, (RightWay(POINT, 0.2),)) for i in range(20)]
    bound = solve(frames, link_of([1e9]).carried)
    assert bound.count == math.ceil(20 / 2)


def test_a_machine_refuses_jobs_whose_order_does_not_settle_itself() -> None:
    early, late = Job((Way(0.0, 1.0),), 5.0), Job((Way(2.0, 1.0),), 6.0)
    assert most_on_time([early, late]) == [0, 0]
    with pytest.raises(ValueError, match="job 0: can start after job 1"):
        most_on_time([Job(late.ways, 5.0), Job(early.ways, 6.0)])
    with pytest.raises(ValueError, match="job 0: must be done after job 1"):
        most_on_time([Job(early.ways, 6.0), Job(late.ways, 5.0)])


def test_a_long_run_takes_little() -> None:
    """Nine thousand frames that all need the link; half of them fit."""
    frames = [Foreseen(i / 15, i / 15 + 0.25, (RightWay(POINT, 0.01, 100.0),)) for i in range(9000)]
    bound = solve(frames, link_of([750.0]).carried)
    assert 4400 < bound.count < 4600


def test_a_narrow_downlink_bounds_what_a_fast_uplink_does_not() -> None:
    """An acknowledgement and an answer are 60 bytes a frame; 300 bytes a second carry five frames of ten."""
    frames = [Foreseen(i / 10, i / 10 + 0.25, (RightWay(POINT, 0.01, 40.0),)) for i in range(20)]
    fast, narrow = link_of([1e9]).carried, link_of([300.0]).carried
    assert solve(frames, fast).count == 20
    assert solve(frames, fast, narrow).count == math.floor(300 * (1.9 + 0.25 - 0.01) / 60)
