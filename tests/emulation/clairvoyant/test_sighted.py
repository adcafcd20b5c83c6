"""The trace-clairvoyant in the world: what it plans can be played, and nobody who does not know the trace plans better."""

from __future__ import annotations

import pytest

from isthmus.emulation import policies
from isthmus.emulation.clairvoyant import runs
from isthmus.emulation.run_summary import summary
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual import scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.proto.record import Run
from isthmus.proto.vocabulary import AnswerSource

NARROW: dict[str, object] = {"bundle": "signs", "trace": "lte-drive", "scale": 0.02, "deadline_s": 0.1}


def accuracy(played: list[Run]) -> float:
    together = [record for run in played for record in run.records]
    return summary(together).accuracy or 0.0


def of(policy: str, **keys: object) -> list[Run]:
    return simulate(scenario.of({**NARROW, "policy": policy, **keys}))


@pytest.mark.parametrize(
    "keys",
    [
        {"duration_s": 40.0},
        {"trace": "nb-iot", "scale": 1.0, "deadline_s": 1.5, "fps": 3.0, "duration_s": 120.0},
        {"sessions": 4, "share": "cell", "fps": 10.0, "duration_s": 10.0},
        {"profile": "pi-zero-2w", "threads": "one", "fps": 100.0, "duration_s": 5.0},
        {"bundle": "cifar10", "duration_s": 40.0, "events": [{"what": "server-load", "at_s": 10.0, "factor": 20.0}]},
    ],
)
def test_it_is_ahead_of_who_lives_in_the_world_and_behind_who_knows_the_answers(keys: dict[str, object]) -> None:
    """Right answers are drawn, so whoever plans by their chances may be behind by what chance makes of some hundred frames."""
    fair = accuracy(of(policies.TRACE_CLAIRVOYANT, **keys))
    for rival in ("expected-utility", "local-only", "always-offload", "static-split"):
        assert accuracy(of(rival, **keys)) <= fair + 0.012, rival
    assert fair <= accuracy(of(policies.CLAIRVOYANT, **keys))


def test_its_answers_are_the_network_s_own_and_its_record_says_how_far_the_plan_went() -> None:
    (run,) = of(policies.TRACE_CLAIRVOYANT, duration_s=20.0)
    setting = OpenedScenario.of(scenario.of({**NARROW, "duration_s": 20.0}))
    feed, replay = setting.feed(0), setting.replay
    assert run.header.policy == policies.TRACE_CLAIRVOYANT
    assert run.header.notes[-1].startswith("trace-clairvoyant: ")
    assert {record.source for record in run.records} == {AnswerSource.EXIT, AnswerSource.SERVER}
    for record in run.records:
        assert record.captured_s <= record.answered_s <= record.deadline_s
        assert (record.bytes_up > 0) == (record.source is AnswerSource.SERVER)
        assert record.truth == replay.truth[feed.sample(record.frame_id)]


def test_a_slowdown_that_lasts_is_foreseen_and_one_that_passes_is_not() -> None:
    events = [{"what": "load", "at_s": 5.0, "for_s": 10.0, "factor": 3.0}]
    setting = OpenedScenario.of(scenario.of({**NARROW, "events": events}))
    assert [setting.least_slowdown("device", t, t + 1) for t in (0.0, 4.5, 6.0, 14.5)] == [1.0, 1.0, 3.0, 1.0]
    assert setting.least_slowdown("server", 6.0, 7.0) == 1.0
    ways = runs.right_ways(policies.contents(setting.bundle))
    quick, slow = (runs.foresee(setting, 0, ways)[round(15 * t)] for t in (1.0, 10.0))
    assert min(way.head_s for way in slow.ways) > 2 * min(way.head_s for way in quick.ways)
