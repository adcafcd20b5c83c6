"""The shipped policies, one decision at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.device.catalogue import Catalogue
from isthmus.device.link_estimator import MESSAGE_BYTES, LinkEstimator, Outlook
from isthmus.device.scheduler import (
    GO_ON,
    INDIFFERENCE,
    PRICE_AT_LEISURE,
    PRICE_OF_LINK,
    STOP,
    AlwaysOffload,
    Decision,
    ExpectedUtility,
    LocalOnly,
    Offload,
    Situation,
)
from isthmus.device.stage_times import StageTimes
from isthmus.proto.vocabulary import Guess, StageResult
from pair import catalogue
from situations import after_stage, link, situation

TIMES = StageTimes(((0.004, 0.01), (0.003, 0.008)))
KNOWN = catalogue()
SMALL, LARGE = ((150, 180), (80, 160)), ((15_000, 13_000), (8_000, 9_000))


def shown(rate_Bps: float, size_bytes: int = 300) -> LinkEstimator:
    """A link that has shown this rate, and a round trip of 20 ms; idle before 5 s."""
    link = LinkEstimator()
    for n in range(20):
        link.on_sent(n, 0, size_bytes, now=n / 5)
        link.on_ack(n, 0, now=n / 5 + 0.02 + (size_bytes + 30) / rate_Bps)
        link.on_beat_sent(n, now=n / 5 + 0.15)
        link.on_beat(n, now=n / 5 + 0.17)
    return link


def decided(
    link: LinkEstimator,
    confidence: float,
    *,
    sizes: tuple[tuple[int, ...], ...] = SMALL,
    known: Catalogue = KNOWN,
    now: float = 5.0,
) -> Decision:
    result = StageResult(0, 1, 1.0, Guess(0, confidence), 0.008, sizes)
    return ExpectedUtility(known).after_exit(result, Situation(0.15, link.outlook(now), TIMES, 1 / 15))


def test_an_exit_counts_as_it_was_right_and_not_as_it_says() -> None:
    assert isinstance(decided(shown(100_000), 0.88), Offload)  # in the tables 7 of 10 such are right
    assert decided(shown(100_000), 0.999) is STOP
    sure_and_wrong = tuple(tuple(replace(exit_, given=((0.4, 0.5, 0.6),) * 2) for exit_ in row) for row in KNOWN.exits)
    assert isinstance(decided(shown(100_000), 0.999, known=replace(KNOWN, exits=sure_and_wrong)), Offload)


def test_large_features_go_where_the_link_has_nothing_else_to_do() -> None:
    assert isinstance(decided(shown(1e6, 20_000), 0.6, sizes=LARGE), Offload)


def test_each_layer_is_paid_with_its_framing() -> None:
    """One step whose two layers take 60 bytes, 120 with framing: what fits is believed to fit, and no more is."""
    points = tuple((ways[0],) for ways in KNOWN.offloads)
    known, sizes, confidence = replace(KNOWN, offloads=points), ((30, 30),), 0.6
    asked: list[float] = []

    class Noted(ExpectedUtility):
        def price(self, size_bytes: float, situation: Situation, outlook: Outlook) -> float:
            asked.append(size_bytes + MESSAGE_BYTES)
            return super().price(size_bytes, situation, outlook)

    result = StageResult(0, 1, 1.0, Guess(0, confidence), 0.008, sizes)
    Noted(known).after_exit(result, Situation(0.15, shown(100_000).outlook(5.0), TIMES, 1 / 15))
    assert asked == [60, 120]


def test_the_price_of_an_idle_link_is_convex_in_its_use() -> None:
    policy, outlook = ExpectedUtility(KNOWN), link(3_000)
    here = situation(outlook, period_s=0.1)  # 300 bytes a period
    half, most, over = (policy.price(size - MESSAGE_BYTES, here, outlook) for size in (150, 270, 600))
    assert half == pytest.approx(PRICE_OF_LINK)  # 0.5 / (1 - 0.5)
    assert most == pytest.approx(9 * PRICE_OF_LINK)  # 0.9 / (1 - 0.9)
    assert over == pytest.approx(40 * PRICE_OF_LINK)  # 2 / (1 - 0.95): no further than that
    at_leisure = situation(outlook, 0.1)
    assert policy.price(300 - MESSAGE_BYTES, at_leisure, outlook) == pytest.approx(PRICE_AT_LEISURE)


def test_a_queue_that_is_gone_before_the_next_frame_costs_nothing_and_a_longer_one_does() -> None:
    busy = shown(9_000)
    busy.on_sent(100, 0, 100, now=5.0)
    assert isinstance(decided(busy, 0.6), Offload)
    for n in range(8):
        busy.on_sent(101 + n, 0, 100, now=5.0)
    assert decided(busy, 0.6) is STOP


@settings(max_examples=60)
@given(st.floats(500, 1e6), st.floats(0.02, 2.0), st.integers(0, 6))
def test_the_width_is_that_of_the_best_way_whatever_is_left_out(rate_Bps: float, budget_s: float, flying: int) -> None:
    link = shown(rate_Bps)
    for n in range(flying):
        link.on_sent(100 + n, 0, 300, now=5.0)
    outlook, policy = link.outlook(5.0), ExpectedUtility(KNOWN)
    situation = Situation(budget_s, outlook, TIMES, 1 / 15)
    best, chosen = -1.0, 0
    for w, ways in enumerate(KNOWN.offloads):
        head_s = sum(TIMES.cautious_s(stage, w) for stage in range(2))
        alone = KNOWN.exits[w][1].accuracy
        worth = alone
        for known in (known for step in ways for known in step):
            carried = known.mean_bytes + MESSAGE_BYTES * (known.point.layers - 1)
            p = outlook.p_back(carried, budget_s - head_s)
            price = policy.price(carried, situation, outlook)
            worth = max(worth, p * known.accuracy + (1 - p) * alone - price)
        if head_s <= min(budget_s, 1 / 15) and worth > best + INDIFFERENCE * (w > 0):
            best, chosen = worth, w
    assert policy.width(situation) == chosen


WORSE_NARROW = replace(
    KNOWN, exits=(tuple(replace(k, accuracy=k.accuracy - 0.1) for k in KNOWN.exits[0]), KNOWN.exits[1])
)


def fills(period_s: float, waited_s: float, times: StageTimes = TIMES) -> Situation:
    """A device alone, 150 ms for each frame, one of which has waited so long."""
    return Situation(0.15 - waited_s, None, times, period_s, waited_s=waited_s)


def test_a_head_that_takes_longer_than_the_period_is_run_while_nothing_waits_for_it() -> None:
    wide_s, narrow_s = (TIMES.ahead_s(0, w) for w in (1, 0))
    assert narrow_s < 0.016 < wide_s
    assert ExpectedUtility(WORSE_NARROW).width(fills(0.016, 0.0)) == 1
    assert ExpectedUtility(WORSE_NARROW).width(fills(0.016, 0.01)) == 0
    assert ExpectedUtility(WORSE_NARROW).width(fills(0.9 * narrow_s, 0.0)) == 0, (
        "what not even the narrow one makes up for"
    )


@settings(deadline=None)
@given(period_s=st.floats(0.0135, 0.03), wobble=st.lists(st.floats(0.95, 1.05), min_size=20, max_size=20))
def test_wide_heads_now_and_then_keep_up_with_the_frames(period_s: float, wobble: list[float]) -> None:
    policy, ends_s, waits, widths = ExpectedUtility(WORSE_NARROW), 0.0, [0.0], [0]
    for n in range(400):
        waits.append(max(0.0, ends_s - n * period_s))
        widths.append(policy.width(fills(period_s, waits[-1])) or 0)
        head_s = TIMES.expected_s(0, widths[-1]) + TIMES.expected_s(1, widths[-1])
        ends_s = n * period_s + waits[-1] + head_s * wobble[n % 20]
    assert max(waits) <= period_s
    assert sum(widths) >= 200 * min(1.0, (period_s - 0.0075) / 0.0115) - 2, "half of what the device has time for"


def test_always_offload_sends_everything_at_full_width_whatever_it_is_told() -> None:
    policy, hopeless = AlwaysOffload(KNOWN), situation(link(1.0, queue_s=60.0), 0.001)
    assert policy.width(hopeless) == 1
    assert policy.after_exit(after_stage(0, 0.999), hopeless) == GO_ON
    assert policy.after_exit(after_stage(1, 0.999), hopeless) == Offload(0, 2)
    assert policy.after_exit(after_stage(1), situation(None)) is STOP
    assert policy.after_exit(after_stage(1, sizes=None), hopeless) is STOP


def test_local_only_answers_from_the_last_exit_at_the_widest_width_in_time() -> None:
    """88 ms at full width, a tenth of them for safety."""
    policy = LocalOnly(KNOWN)
    assert [policy.width(situation(link(), budget_s)) for budget_s in (0.089, 0.087, 0.001)] == [1, 0, 0]
    assert policy.after_exit(after_stage(0, 0.999), situation(link())) is GO_ON
    assert policy.after_exit(after_stage(1, 0.3), situation(link(1e9))) is STOP
