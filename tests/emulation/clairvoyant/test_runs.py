"""The clairvoyant in the world: nobody who has to live in it does better, on real networks and with every policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isthmus.emulation import policies, traces
from isthmus.emulation.clairvoyant import runs
from isthmus.emulation.run_summary import summary
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual import scenario
from isthmus.emulation.virtual.setting import OpenedScenario, played
from isthmus.emulation.virtual.world import World
from isthmus.models import bundle
from isthmus.proto.machine import run_virtual
from isthmus.proto.vocabulary import AnswerSource
from real_data import TRACES, needs_traces

EVERYBODY = policies.available(bundle.load("signs"))


DURATION_S = 3.0
REPLAYS: dict[str, OpenedScenario] = {}


def opened(policy: str, **keys: object) -> OpenedScenario:
    """A setting on `signs` of a few seconds; what does not change between settings is opened once."""
    known = scenario.of({"bundle": "signs", "duration_s": DURATION_S, "policy": policy, **keys})
    if policy not in REPLAYS:
        REPLAYS[policy] = OpenedScenario.of(scenario.of({"bundle": "signs", "policy": policy}))
    return replace(
        REPLAYS[policy], scenario=known, trace=played(traces.find(known.trace), known), duration_s=DURATION_S
    )


def right(setting: OpenedScenario) -> int:
    """How many frames a policy answers right and in time."""
    world = World(setting)
    run_virtual(world, until_s=world.ends_s)
    return sum(bool(record.right) for records in world.records for record in records)


def foreseen(setting: OpenedScenario) -> int:
    return sum(bool(record.right) for run in runs.runs(setting) for record in run.records)


def shared_traces() -> list[Path]:
    return sorted(path for path in TRACES.glob("*.csv") if path.name != "manifest.csv")


@needs_traces
def test_nobody_beats_the_clairvoyant_on_any_shared_trace() -> None:
    """A few seconds of each, narrowed so that features are about what the link carries."""
    for n, path in enumerate(shared_traces()):
        recorded = path.read_text().split("\n", 2)[1].split(",")
        here: dict[str, object] = {
            "trace": str(path),
            "swap": not recorded[1],
            "scale": (1.0, 0.01, 0.001)[n % 3],
            "start_s": 20.0 * (n % 5),
            "fps": (10.0, 20.0)[n % 2],
        }
        setting = opened(EVERYBODY[0], **here)
        bound = foreseen(setting)
        for policy in EVERYBODY:
            rival = replace(REPLAYS.get(policy) or opened(policy), scenario=setting.scenario, trace=setting.trace)
            assert right(replace(rival, duration_s=DURATION_S)) <= bound, f"{policy} on {path.name}, {here}"


@pytest.mark.parametrize("name", ["lte-driving", "hot-device", "lost-server", "nb-iot"])
def test_nobody_beats_the_clairvoyant_where_things_go_wrong(name: str) -> None:
    known = scenario.load(name, {"duration_s": 5.0})
    bound = foreseen(OpenedScenario.of(known))
    for policy in EVERYBODY:
        assert right(OpenedScenario.of(scenario.load(name, {"duration_s": 5.0, "policy": policy}))) <= bound, policy


def test_a_slow_head_bounds_what_all_policies_reach() -> None:
    """Two hundred frames a second on a Pi Zero: it has no time for all of them at any useful width."""
    slow: dict[str, object] = {"profile": "pi-zero-2w", "fps": 200.0, "deadline_s": 0.1, "duration_s": 2.0}
    bound = foreseen(OpenedScenario.of(scenario.of({"bundle": "signs", **slow})))
    for policy in EVERYBODY:
        assert right(OpenedScenario.of(scenario.of({"bundle": "signs", "policy": policy, **slow}))) <= bound, policy


def test_devices_that_share_a_cell_are_bounded_together() -> None:
    cell: dict[str, object] = {"share": "cell", "sessions": 6, "fps": 10.0, "scale": 0.002}
    together = foreseen(opened("expected-utility", **cell))
    assert right(opened("expected-utility", **cell)) <= together
    assert together < foreseen(opened("expected-utility", **{**cell, "share": "own"}))


def test_its_records_say_what_it_is() -> None:
    (run,) = simulate(scenario.of({"bundle": "signs", "duration_s": 4.0, "policy": policies.CLAIRVOYANT}))
    assert run.header.policy == policies.CLAIRVOYANT
    assert run.header.notes[-1].startswith("clairvoyant: ")
    figures = summary(run.records)
    assert figures.frames == 60
    assert figures.accuracy is not None
    assert figures.accuracy > 0.9
    for record in run.records:
        assert record.right == (record.confidence == 1.0 and record.label == record.truth)
        assert record.captured_s <= record.answered_s <= record.deadline_s


def test_its_energy_is_its_plans_by_the_same_account() -> None:
    table: dict[str, object] = {
        "bundle": "signs",
        "trace": "nb-iot",
        "duration_s": 20.0,
        "policy": policies.CLAIRVOYANT,
    }
    (run,), (uncounted,) = simulate(scenario.of(table)), simulate(scenario.of(table | {"radio": "unknown"}))
    setting = opened("expected-utility", trace="nb-iot")
    for record in run.records:
        spent = record.energy_J
        assert spent is not None
        if record.source is AnswerSource.SERVER:
            radio_J = setting.profile.energy(
                active_s=0, idle_s=0, messages=record.layers, bytes_up=record.bytes_up, radio="wifi"
            ).above_idle_J
            assert spent > radio_J > 0
        assert (spent > 0) == (record.right is True)
    assert {record.energy_J for record in uncounted.records} == {None}


def test_a_fast_link_and_a_fast_head_make_the_bound_exact() -> None:
    (run,) = runs.runs(opened("expected-utility", trace="lte-drive"))
    assert run.header.notes[-1] == "clairvoyant: exact"


def test_the_fewest_bytes_are_those_of_a_right_answer() -> None:
    contents = policies.contents(bundle.load("signs"))
    ways = runs.right_ways(contents)
    truth = contents[0].outcomes.truth
    right = [
        {
            (sample, content.points[c])
            for sample, c in zip(*np.nonzero(content.outcomes.label == truth[:, None]), strict=True)
        }
        for content in contents
    ]
    for sample in range(0, len(truth), 97):
        # A picture's quality is numbered as the features' steps are: a way is right in the table that it comes from.
        assert all(any((sample, way.point) in table for table in right) for way in ways[sample])
        sizes = [way.size_bytes for way in ways[sample] if way.size_bytes]
        assert sizes == sorted(sizes, reverse=True)
