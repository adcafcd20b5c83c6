"""A scenario played in virtual time: by the world, or for a clairvoyant by its bound."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from isthmus.emulation.clairvoyant import runs, sighted
from isthmus.emulation.policies import BOUNDS, CLAIRVOYANT, NAMES
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.emulation.virtual.world import World
from isthmus.proto.machine import run_virtual
from isthmus.proto.record import Run


def simulate(scenario: Scenario) -> list[Run]:
    """Play a scenario in virtual time; the run of each session. The same scenario gives the same runs to the last bit.

    The bounds play no part in a world: their runs follow from the setting. Raises ConfigError, BundleError and
    DataError for what the scenario names.
    """
    if scenario.policy in BOUNDS:
        opened = OpenedScenario.of(msgspec.structs.replace(scenario, policy=NAMES[0]))
        return runs.runs(opened) if scenario.policy == CLAIRVOYANT else sighted.runs(opened)
    world = World(OpenedScenario.of(scenario))
    with uncollected():
        run_virtual(world, until_s=world.ends_s)
    return world.runs()


@contextmanager
def uncollected() -> Iterator[None]:
    """Let the cyclic collector rest: a run makes many objects and no cycles, so that it only looks, and in vain."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
