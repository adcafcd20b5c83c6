"""What the uplink is believed to do, from what it did."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.device.link_estimator import LinkConfig, LinkEstimator


def fed(link: LinkEstimator, *, delay_s: float, begin_s: float, end_s: float) -> LinkEstimator:
    """Layers of 300 bytes five times a second, each acknowledged after `delay_s`."""
    n = round(begin_s * 5)
    while (now := n / 5) < end_s:
        link.on_sent(n, 0, 300, now)
        link.on_ack(n, 0, now + delay_s)
        n += 1
    return link


def beaten(link: LinkEstimator, *, delay_s: float, begin_s: float, end_s: float) -> LinkEstimator:
    """Heartbeats every half second and nothing else."""
    n = round(begin_s * 2)
    while (now := n / 2) < end_s:
        link.on_beat_sent(n, now)
        link.on_beat(n, now + delay_s)
        n += 1
    return link


def test_heartbeats_say_nothing_of_how_long_layers_take() -> None:
    """Every other layer takes three times as long; heartbeats never do."""
    link = LinkEstimator()
    for n in range(50):
        link.on_sent(n, 0, 3000, now=n / 5)
        link.on_ack(n, 0, now=n / 5 + (0.04 if n % 2 else 0.12))
    alone = link.outlook(10.0).p_back(3000, 0.05)
    for n in range(50):
        link.on_beat_sent(n, 10 + n / 100)
        link.on_beat(n, 10.04 + n / 100)
    assert link.outlook(10.7).p_back(3000, 0.05) < alone + 0.2


def test_a_link_that_was_given_up_is_tried_again_while_heartbeats_go_on() -> None:
    link = fed(LinkEstimator(), delay_s=0.3, begin_s=0, end_s=10)
    assert link.outlook(10.1).p_back(300, 0.15) < 0.2
    beaten(link, delay_s=0.02, begin_s=10.5, end_s=40)
    assert link.outlook(40.0).p_back(300, 0.15) > 0.5


@pytest.mark.parametrize("new_stream", [False, True])
def test_a_link_that_was_too_slow_is_hoped_to_have_recovered_though_only_heartbeats_say_so(new_stream: bool) -> None:
    """400 bytes at 3 kB/s, far more than there is time for at 30 frames a second; then heartbeats, on the same stream or not."""
    link = LinkEstimator()
    for n in range(12):
        beaten(link, delay_s=0.02, begin_s=n / 2, end_s=n / 2 + 0.1)
        link.on_sent(n, 0, 400, n / 2 + 0.1)
        link.on_ack(n, 0, n / 2 + 0.12 + 430 / 3000)
    assert link.outlook(6.0).service_s(400) > 0.1
    if new_stream:
        link.reset(6.0)
    beaten(link, delay_s=0.02, begin_s=6.0, end_s=30.0)
    assert link.outlook(9.0).service_s(400) > 0.05
    assert link.outlook(30.0).service_s(400) < 0.005


def test_a_layer_every_few_seconds_is_not_long_ago() -> None:
    """As over LoRa, whose frames come every five seconds."""
    link = LinkEstimator()
    for n in range(20):
        link.on_sent(n, 0, 60, 5.0 * n)
        link.on_ack(n, 0, 5.0 * n + 2.0)
    learnt_s = link.outlook(97.0).service_s(60)
    assert link.outlook(102.0).service_s(60) > 0.9 * learnt_s


def test_the_last_layers_luck_is_no_news() -> None:
    """Rates drawn anew for each layer: in truth 4000 bytes are always as likely to be back within 130 ms."""
    link, rng = LinkEstimator(), np.random.default_rng(3)
    promised = []
    for n in range(600):
        link.on_beat_sent(n, n / 2 - 0.1)
        link.on_beat(n, n / 2 - 0.09)
        promised.append(link.outlook(n / 2).p_back(4000, 0.13))
        link.on_sent(n, 0, 3000, n / 2)
        link.on_ack(n, 0, n / 2 + 0.01 + 0.1 * np.exp(0.25 * rng.standard_normal()))
    assert np.mean(promised[100:]) == pytest.approx(0.33, abs=0.07)
    assert np.std(promised[100:]) < 0.14


def test_the_round_trip_follows_a_link_whose_delay_grew() -> None:
    link = fed(LinkEstimator(), delay_s=0.05, begin_s=0, end_s=10)
    beaten(link, delay_s=0.5, begin_s=10.5, end_s=15)
    assert link.round_trip_s == 0.5


def test_a_delay_that_swings_does_not_pass_for_a_narrow_link() -> None:
    """100 bytes twice a second over 4 kB/s, and a round trip that changes between 0.5 and 1 s, as on NB-IoT."""
    link = LinkEstimator()
    for n in range(60):
        now = 0.5 * n
        link.on_sent(n, 0, 100, now)
        link.on_ack(n, 0, now + 130 / 4000 + (0.5 if n // 4 % 2 else 1.0))
    assert link.goodput_Bps > 1000


def test_a_link_that_is_narrow_is_soon_believed_to_be() -> None:
    """The first layers over 4 kB/s, after hopes of 1 MB/s; heartbeats show the round trip."""
    link = LinkEstimator()
    for n in range(8):
        link.on_beat_sent(n, n - 0.1)
        link.on_beat(n, n - 0.07)
        link.on_sent(n, 0, 2000, n)
        link.on_ack(n, 0, n + 2030 / 4000 + 0.03)
    assert 3000 < link.goodput_Bps < 6000


def test_the_usual_way_is_the_round_trip_and_what_it_swings_by() -> None:
    link = LinkEstimator()
    assert link.usual_way_s() == pytest.approx(2.0 * LinkConfig().round_trip_s), "nothing is known yet"
    for number in range(200):
        now, swing = number * 0.1, 1.5 if number % 5 == 0 else 1.0
        link.on_sent(number, 0, 200, now)
        link.on_ack(number, 0, now + 0.02 * swing)
    assert 0.024 < link.usual_way_s() < 0.036
