"""A scenario with everything that it names opened and checked: what a world is built from.

A clairvoyant may know all of it. Whatever it hands out is fresh and depends on the scenario alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from isthmus.device.deciding.energy import EnergyCost
from isthmus.emulation import policies, traces
from isthmus.emulation.link import LinkTables, ShapedLink
from isthmus.emulation.policies.contestant import Contestant
from isthmus.emulation.replay import Feed, Head, Replay, Tail
from isthmus.emulation.traces import BYTES_PER_MBIT, AnyTrace, PacketTrace
from isthmus.emulation.virtual.scenario import UNKNOWN_RADIO, Happening, Scenario
from isthmus.models import bundle as bundles
from isthmus.models import profiles, work
from isthmus.models.bundle import Bundle
from isthmus.models.profiles import Profile
from isthmus.proto.errors import ConfigError, DataError
from isthmus.proto.record import Battery, RunHeader
from isthmus.proto.vocabulary import Answer


@dataclass(frozen=True)
class OpenedScenario:
    """One scenario, opened."""

    scenario: Scenario
    bundle: Bundle
    contestant: Contestant
    trace: AnyTrace
    """The trace as the links play it."""
    trace_sha256: str
    """The hash of the trace as it was found."""
    profile: Profile
    server: Profile
    replay: Replay
    stages_s: tuple[tuple[float, ...], ...]
    """[stage][width]: the profile's seconds on an idle, cool device."""
    flow_s: float
    """The same of following boxes from one picture to the next, on one thread."""
    duration_s: float
    coding_s: float = 0.0
    """The profile's seconds for coding a picture."""
    energy: EnergyCost | None = None
    """What joules cost the policy."""

    @classmethod
    def of(cls, scenario: Scenario) -> OpenedScenario:
        """Open what a scenario names. Raises ConfigError, BundleError and DataError, each naming the thing."""
        bundle, found = bundles.load(scenario.bundle), traces.find(scenario.trace)
        trace = played(found, scenario)
        contestant = policies.contestant(scenario.policy, bundle, clips=scenario.clips)
        profile, server = profiles.load(scenario.profile), profiles.load(scenario.server)
        if scenario.radio != UNKNOWN_RADIO:
            profile.radio(scenario.radio)
        elif scenario.energy_weight:
            raise ConfigError(f"radio: '{UNKNOWN_RADIO}' counts no energy; name the one that energy_weight is to weigh")
        for event in scenario.events:
            profile.throttled(event.state)
        return cls(
            scenario,
            bundle,
            contestant,
            trace,
            found.sha256,
            profile,
            server,
            contestant.content.replay(scenario.seed),
            work.stage_times(profile, bundle, threads=scenario.threads, int8=scenario.int8),
            work.flow_s(profile),
            scenario.duration_s or trace.length_s,
            work.coding_s(profile, bundle),
            EnergyCost.of(profile, scenario.radio, scenario.energy_weight),
        )

    def feed(self, device: int) -> Feed:
        """The frames of device number `device`."""
        s = self.scenario
        return self.replay.feed(s.seed, device, fps=s.fps, duration_s=self.duration_s, deadline_s=s.deadline_s)

    def head(self, device: int) -> Head:
        """A fresh head for device number `device`."""
        seed = self.scenario.seed
        times = {"flow_s": self.flow_s, "coding_s": self.coding_s}
        return Head(self.replay, self.feed(device), self.stages_s, seed=seed, device=device, **times)

    def tail(self, server: int) -> Tail:
        """A fresh tail for server number `server`."""
        return Tail(self.replay, self.tail_s, seed=self.scenario.seed, server=server, pictures_s=self.pictures_s)

    def tail_s(self, batch: int) -> float:
        """The server profile's seconds for a batch."""
        return self.server.tail_s(self.contestant.content.tail_flops, batch)

    def pictures_s(self, batch: int) -> float:
        """The same for a batch of pictures."""
        return self.server.tail_s(self.contestant.content.picture_flops, batch)

    def least_slowdown(self, whose: Literal["device", "server"], begin_s: float, end_s: float) -> float:
        """How many times slower than its profile a head or tail is at least, whenever it runs between two times."""
        lasting, passing = [], []
        for event in self.scenario.events:
            factor = self.slowdown(event, whose)
            if event.at_s <= begin_s and end_s <= event.at_s + event.for_s:
                lasting.append(factor)
            elif event.at_s < end_s and begin_s < event.at_s + event.for_s:
                passing.append(min(1.0, factor))
        always = self.scenario.load if whose == "device" else 1.0
        return always * math.prod(lasting + passing)

    def slowdown(self, event: Happening, whose: Literal["device", "server"]) -> float:
        """How many times slower one event makes heads or tails."""
        if event.what == "server-load":
            return event.factor if whose == "server" else 1.0
        if whose == "server":
            return 1.0
        match event.what:
            case "load":
                return event.factor
            case "throttling":
                return self.profile.throttled(event.state).slowdown
            case _:
                return 1.0

    def energy_J(self, answer: Answer, messages: int) -> float | None:
        """What a frame cost its device above idling; None when the profile knows nothing of power."""
        if self.profile.power is None or self.scenario.radio == UNKNOWN_RADIO:
            return None
        active_s = answer.timings.head_s + answer.timings.encode_s
        idle_s = max(0.0, 1 / self.scenario.fps - active_s)
        spent = self.profile.energy(
            active_s=active_s, idle_s=idle_s, messages=messages, bytes_up=answer.bytes_up, radio=self.scenario.radio
        )
        return spent.above_idle_J

    @property
    def battery(self) -> Battery | None:
        """What a device lives on; None where that, or what it takes idling, is unknown."""
        capacity_Wh, power = self.scenario.battery_Wh, self.profile.power
        return None if capacity_Wh is None or power is None else Battery(capacity_Wh, power.idle_W)

    def start_s(self, device: int) -> float:
        """Where in the trace a device's links begin: those of a cell together, others spread over it."""
        s = self.scenario
        return s.start_s + (0.0 if s.share == "cell" else self.trace.length_s * device / s.sessions)

    def links(self, device: int, server: int = 0) -> tuple[ShapedLink, ShapedLink]:
        """Fresh links, up and down, for device number `device`; of a cell, it is the first device that has them.

        With links of its own to each server, that to `server`.
        """
        s = self.scenario
        start_s = self.start_s(device) + self.trace.length_s * server / s.servers
        options = replace(s.link, start_s=start_s, seed=s.seed + device + s.sessions * server)
        up, down = self._tables
        return ShapedLink(self.trace, "up", options, up), ShapedLink(self.trace, "down", options, down)

    @cached_property
    def _tables(self) -> tuple[LinkTables, LinkTables]:
        """Up and down, the same for all devices."""
        return LinkTables.of(self.trace, "up"), LinkTables.of(self.trace, "down")

    def header(self, device: int) -> RunHeader:
        """How the run of device number `device` is made."""
        s = self.scenario
        return RunHeader(
            kind="simulated",
            bundle=self.bundle.manifest.name,
            bundle_sha256=self.bundle.sha256.hex(),
            policy=s.policy,
            profile=self.profile.name,
            scenario=s.name or None,
            trace=s.trace,
            trace_sha256=self.trace_sha256,
            trace_swapped=s.swap,
            trace_scale=s.scale,
            trace_start_s=self.start_s(device),
            deadline_s=s.deadline_s,
            fps=s.fps,
            seed=s.seed,
            battery=self.battery,
            notes=(f"device {device} of {s.sessions}",) if s.sessions > 1 else (),
        )


def played(trace: AnyTrace, scenario: Scenario) -> AnyTrace:
    """What a scenario's links make of a trace: turned, scaled, what it leaves unknown filled in. Raises DataError."""
    if isinstance(trace, PacketTrace):
        if scenario.swap or scenario.scale != 1:
            raise DataError(f"{trace.name}: a list of departures is played as it is; swap and scale are for rates")
        return replace(trace, rtt_s=scenario.rtt_ms / 1e3)
    if scenario.swap:
        trace = trace.swapped()
    elif np.isnan(trace.up_Bps).all():
        raise DataError(f"{scenario.trace}: has no uplink; play its downlink as one with swap = true (--swap)")
    rates = trace.scaled(scenario.scale)
    return rates.filled(down_Bps=scenario.down_mbps * BYTES_PER_MBIT, rtt_s=scenario.rtt_ms / 1e3, loss=0.0)
