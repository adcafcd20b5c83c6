"""Who is best at which uplink: counted on paper, and properties that any comparison has."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.emulation.reports import contender_plots, figure_style
from isthmus.emulation.reports.contenders import MARGIN, Contender, Way, led, stretches

DEADLINE_S, RTT_S = 0.2, 0.02


def way(size: float, result: float, device_s: float = 0.03, server_s: float = 0.05) -> Way:
    return Way(f"{size:g}", size, result, device_s, server_s)


def test_a_way_is_in_time_from_the_uplink_that_carries_its_bytes_in_what_is_left() -> None:
    assert way(1000, 0.9).least_Bps(DEADLINE_S, RTT_S) == pytest.approx(1000 / 0.1)
    assert way(0, 0.5, device_s=0.2).least_Bps(DEADLINE_S, RTT_S) == 0.0
    assert way(0, 0.5, device_s=0.21).least_Bps(DEADLINE_S, RTT_S) == math.inf
    assert way(1, 0.9, device_s=0.15).least_Bps(DEADLINE_S, RTT_S) == math.inf


PAIR = Contender("pair", (way(0, 0.6), way(2000, 0.7), way(9000, 0.9)))
SPLIT = Contender("split", (way(500, 0.65), way(3000, 0.8)))


def test_the_best_at_every_uplink_is_worked_out_on_paper() -> None:
    found = stretches([PAIR, SPLIT], DEADLINE_S, RTT_S)
    told = [(s.from_Bps, s.contender, s.way.result) for s in found]
    assert [(round(f), c, r) for f, c, r in told] == [
        (0, "pair", 0.6),
        (5_000, "split", 0.65),
        (20_000, "pair", 0.7),
        (30_000, "split", 0.8),
        (90_000, "pair", 0.9),
    ]
    assert found[-1].to_Bps == math.inf
    assert [s.contender for s in led(found)] == ["pair", "split", "pair", "split", "pair"]


def test_whoever_leads_is_not_overtaken_by_chance() -> None:
    near = Contender("near", (way(2000, 0.65 + MARGIN / 2), way(4000, 0.65 + 2 * MARGIN)))
    found = stretches([SPLIT, near], DEADLINE_S, RTT_S)
    assert [s.contender for s in found][:2] == ["split", "split"] or found[1].from_Bps == pytest.approx(30_000)


WAYS = st.builds(
    way, st.sampled_from([0.0, 50.0, 700.0, 8000.0]), st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.1)
)
CONTENDERS = st.lists(st.lists(WAYS, min_size=1, max_size=4), min_size=1, max_size=3)


@given(CONTENDERS)
def test_stretches_follow_each_other_and_nobody_is_much_better_inside_one(table: list[list[Way]]) -> None:
    contenders = [Contender(str(i), tuple(ways)) for i, ways in enumerate(table)]
    found = stretches(contenders, DEADLINE_S, RTT_S)
    for one, following in itertools.pairwise(found):
        assert one.to_Bps == following.from_Bps
    for each in found:
        assert each.from_Bps < each.to_Bps
        in_time = [w for c in contenders for w in c.ways if w.least_Bps(DEADLINE_S, RTT_S) <= each.from_Bps]
        assert each.way in in_time
        assert each.way.result > max(w.result for w in in_time) - MARGIN - 1e-12
    reachable = [w for c in contenders for w in c.ways if w.least_Bps(DEADLINE_S, RTT_S) < math.inf]
    assert bool(found) == bool(reachable)
    assert not found or found[-1].to_Bps == math.inf


def test_its_picture_follows_light_and_dark() -> None:
    webp = Contender("WebP", (way(1500, 0.5), way(4000, 0.75)))
    shown = contender_plots.Shown(
        (PAIR, SPLIT, webp), tuple(stretches([PAIR, SPLIT, webp], DEADLINE_S, RTT_S)), "AP50", "pi4, 200 ms"
    )
    plot = contender_plots.plot(shown, "AP50 against bytes")
    alone = figure_style.standalone(plot)
    assert alone.startswith("<svg ")
    assert "prefers-color-scheme: dark" in alone
    assert 'xmlns="http://www.w3.org/2000/svg"' in alone
    for words in ("pair", "split", "WebP", "kbit/s", "device", "AP50"):
        assert words in alone
    assert plot.files["png"][:4] == b"\x89PNG"


@pytest.mark.parametrize(("rate_Bps", "words"), [(0.0, "0 kbit/s"), (1250.0, "10 kbit/s"), (1.5e6, "12 Mbit/s")])
def test_uplinks_are_told_as_people_write_them(rate_Bps: float, words: str) -> None:
    assert contender_plots.rate_in_words(rate_Bps) == words
