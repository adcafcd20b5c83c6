"""One scenario in virtual and in real time: the same decisions, for the same frames, at the same scheduled times."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from isthmus.emulation.realtime.pace import run_real
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual import scenario as scenarios
from isthmus.emulation.virtual.scenario import Happening, Scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.emulation.virtual.world import World
from isthmus.proto.errors import LagError


def busy() -> Scenario:
    """Two devices in one cell, frames at 30 a second, a server that is lost for half a second."""
    return msgspec.structs.replace(
        scenarios.load("lost-server"),
        sessions=2,
        fps=30.0,
        duration_s=1.5,
        share="cell",
        scale=0.02,
        events=(Happening(what="server-lost", at_s=0.8, for_s=0.4),),
    )


def test_virtual_and_real_time_decide_alike() -> None:
    world = World(OpenedScenario.of(busy()))
    began = time.monotonic()
    lag = asyncio.run(run_real(world, until_s=world.ends_s, budget_s=10.0))
    assert time.monotonic() - began >= world.ends_s
    assert lag.deliveries > 200
    assert msgspec.json.encode(world.runs()) == msgspec.json.encode(simulate(busy()))


def test_a_machine_that_falls_behind_does_everything_at_its_time_and_then_fails() -> None:
    timeline, done = Timeline(), []

    def slow(due_s: float, number: int) -> None:
        time.sleep(0.01)
        done.append((due_s, number))

    for number in range(20):
        timeline.at(0.001 * number, slow, number)
    with pytest.raises(
        LagError, match=r"emulate: .* ms behind its schedule \(99th percentile\), over the budget of 5.0 ms"
    ):
        asyncio.run(run_real(timeline, until_s=0.02, budget_s=0.005))
    assert done == [(0.001 * number, number) for number in range(20)]
