"""Energy as a term of the rule, on paper: `pair.catalogue()`'s points, a head of 20 ms narrow and 80 ms wide, a made-up radio."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from isthmus.device.config import AgentConfig
from isthmus.device.deciding.energy import EnergyCost
from isthmus.device.link_estimator import MESSAGE_BYTES, Outlook
from isthmus.device.run import open_device
from isthmus.device.scheduler import GO_ON, STOP, Decision, ExpectedUtility, Offload, Situation
from isthmus.device.tracking.choice import TrackedUtility
from isthmus.models import profiles
from isthmus.models.bundle import Ageing
from isthmus.models.profiles import Radio
from isthmus.proto.errors import ConfigError
from pair import catalogue
from situations import SIZES, STAGES_S, after_stage, link, situation

RADIO = Radio(message_J=0.01, up_J_per_B=1e-4, tail_W=0.1, tail_s=0.2, source="made-up", confidence="estimate")
COMPUTING_W = 3.0
WIDE_IS_BETTER = replace(
    catalogue(),
    exits=(tuple(replace(k, accuracy=k.accuracy - 0.1) for k in catalogue().exits[0]), catalogue().exits[1]),
)
weights = st.floats(0, 100)


def weighed(weight_per_J: float, outlook: Outlook | None = None, *, period_s: float = 0.2) -> Situation:
    energy = EnergyCost(weight_per_J, COMPUTING_W, RADIO)
    return structs.replace(situation(outlook, period_s=period_s), energy=energy)


def radio_J(decision: Decision) -> float:
    """The energy of sending what was decided."""
    if not isinstance(decision, Offload):
        return 0.0
    size_bytes = sum(SIZES[decision.step][: decision.layers]) + MESSAGE_BYTES * (decision.layers - 1)
    return RADIO.energy_J(decision.layers, size_bytes, 0.0, 0.2)


@pytest.mark.parametrize("radio", ["wifi", "lte"])
def test_joules_are_counted_as_the_profile_counts_them(radio: str) -> None:
    pi = profiles.load("pi4")
    cost = EnergyCost.of(pi, radio, 2.0)
    assert cost is not None
    spent = pi.energy(active_s=0.03, idle_s=0.07, messages=2, bytes_up=400, radio=radio)
    assert cost.computing(0.03) == pytest.approx(2 * spent.compute_J)
    assert cost.sending(2, 400, 0.1) == pytest.approx(2 * spent.radio_J)


def test_the_head_costs_what_its_stages_take_now() -> None:
    here = weighed(1.0)
    assert here.energy is not None
    assert here.energy.head(here.times, 1, 0, 1) == pytest.approx(COMPUTING_W * 0.080)
    for _ in range(50):
        here.times.observe(0, 1, 2 * STAGES_S[0][1])
    assert here.energy.head(here.times, 1, 1, 1) == pytest.approx(COMPUTING_W * 2 * 0.040, rel=1e-3)


def test_where_energy_weighs_nothing_there_is_no_such_cost() -> None:
    assert EnergyCost.of(profiles.load("edge-server"), "unknown", 0.0) is None


def test_a_heavy_weight_ends_sending_and_a_weight_between_trades() -> None:
    """The gain is 25 points at two layers (0.076 J), 20 at one (0.045 J), and 18 at one that is coarser (0.038 J)."""
    policy, result = ExpectedUtility(catalogue()), after_stage(1)
    free, some, more, heavy = (policy.after_exit(result, weighed(weight, link())) for weight in (0.0, 2.0, 4.0, 20.0))
    assert isinstance(free, Offload)
    assert (free.step, free.layers) == (0, 2)
    assert isinstance(some, Offload)
    assert isinstance(more, Offload)
    assert radio_J(free) > radio_J(some) > radio_J(more) > 0
    assert heavy == STOP


def test_sure_exits_stop_first_as_joules_get_dearer() -> None:
    """At 0.6 the exit is right 70 % of the time, at 0.3 only 40 %: what is sent then gains more for as many joules."""
    policy, dear = ExpectedUtility(catalogue()), weighed(9.0, link())
    assert policy.after_exit(after_stage(1, 0.6), dear) == STOP
    assert isinstance(policy.after_exit(after_stage(1, 0.3), dear), Offload)


def test_a_heavy_weight_narrows_the_head() -> None:
    """Wide gains 10 points, and takes 60 ms of 3 W more: 0.18 J."""
    policy = ExpectedUtility(WIDE_IS_BETTER)
    assert policy.width(weighed(0.0)) == 1
    assert policy.width(weighed(0.4)) == 1
    assert policy.width(weighed(0.7)) == 0


def test_a_heavy_weight_stops_at_the_first_exit() -> None:
    """What the second stage is for is the link: 40 ms of 3 W, and then the radio."""
    policy, result = ExpectedUtility(catalogue()), after_stage(0)
    assert policy.after_exit(result, weighed(0.0, link())) == GO_ON
    assert policy.after_exit(result, weighed(0.5, link())) == GO_ON
    assert policy.after_exit(result, weighed(3.0, link())) == STOP


@given(weights, weights, st.floats(0.01, 0.999), st.floats(1e3, 1e6))
def test_dearer_joules_never_make_it_send_more_of_them(one: float, other: float, sure: float, rate_Bps: float) -> None:
    policy, result = ExpectedUtility(catalogue()), after_stage(1, sure)
    cheap, dear = (policy.after_exit(result, weighed(weight, link(rate_Bps))) for weight in sorted((one, other)))
    assert radio_J(dear) <= radio_J(cheap)


@given(weights, weights)
def test_dearer_joules_never_widen_the_head_of_a_device_alone(one: float, other: float) -> None:
    policy = ExpectedUtility(WIDE_IS_BETTER)
    cheap, dear = (policy.width(weighed(weight)) or 0 for weight in sorted((one, other)))
    assert dear <= cheap


@given(st.floats(0.01, 0.999), st.floats(1e3, 1e6), st.sampled_from([0, 1]))
def test_joules_that_cost_nothing_change_nothing(sure: float, rate_Bps: float, stage: int) -> None:
    for policy in (ExpectedUtility(catalogue()), ExpectedUtility(WIDE_IS_BETTER)):
        weightless, without = (
            structs.replace(weighed(0.0, link(rate_Bps)), energy=energy)
            for energy in (EnergyCost(0.0, COMPUTING_W, RADIO), None)
        )
        assert policy.width(weightless) == policy.width(without)
        result = after_stage(stage, sure)
        assert policy.after_exit(result, weightless) == policy.after_exit(result, without)


def test_where_things_are_tracked_the_same_joules_are_shared_by_the_frames_that_they_serve() -> None:
    ageing = Ageing((0.0, 1.0), ((0.6, 0.6), (0.7, 0.7)), ((0.95, 0.95),) * 2)
    policy = TrackedUtility(replace(WIDE_IS_BETTER, ageing=ageing))
    alone = [structs.replace(weighed(weight), whole_s=0.15) for weight in (0.0, 12.0)]
    assert [policy.width(here) for here in alone] == [1, 0]
    tracked = [structs.replace(weighed(weight, link()), whole_s=0.15) for weight in (0.0, 12.0)]
    assert [type(policy.after_exit(after_stage(1), here)) for here in tracked] == [Offload, type(STOP)]
    policy._interval = 4  # what a detection costs is a fourth for each of four frames
    assert isinstance(policy.after_exit(after_stage(1), tracked[1]), Offload)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"profile": "edge-server"}, r"profile edge-server: no \[power\]; add idle_W and active_W"),
        ({"as_device": "edge-server"}, r"profile edge-server: no \[power\]"),
        ({"profile": "pi9"}, "profile: no 'pi9'"),
        ({"profile": "pi4", "radio": "smoke"}, "radio: 'smoke' is not one of wifi, lte, 3g"),
    ],
)
def test_an_agent_that_cannot_count_joules_says_so_before_anything_else(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_device(AgentConfig(bundle="none", energy_weight=1.0, **changes))  # type: ignore[arg-type]
