"""The virtual world: N sessions, their links, one or more servers, on one timeline. Pure: time is an argument.

The sessions, link estimators, streams, batchers and links are the ones that run live; only head and tail are stood in
for, by what the real networks answered.
"""

from __future__ import annotations

import math
import random
from functools import partial

from isthmus.device.deciding.kept_share import KeptShare
from isthmus.device.servers.servers import Servers
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.device.tracking.tracker import Tracker
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.streams import Ready, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.replay import Feed, Head
from isthmus.emulation.virtual.nodes import DeviceNode, ServerNode, Way
from isthmus.emulation.virtual.scenario import Happening
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.messages import Hello
from isthmus.proto.record import FrameRecord, Run
from isthmus.proto.vocabulary import Answer, Frame, Guess

AFTERWARDS_S = 1.0
"""How long a run goes on after its last deadline, so that the last answer is given."""

GRACE_S = 5.0
"""How long a server that is drained goes on answering: `isthmus serve`'s."""
Links = tuple[ShapedLink, ShapedLink]
"""Up and down."""


class World(Timeline):
    """A machine: everybody in a setting, from time 0 on."""

    def __init__(self, setting: OpenedScenario) -> None:
        super().__init__()
        self.setting = setting
        s = setting.scenario
        self.records: list[list[FrameRecord]] = [[] for _ in range(s.sessions)]
        """The records of each device, in the order of its answers."""
        self._tails = [setting.tail(index) for index in range(s.servers)]
        self.servers = [ServerNode(self, self._core(index), tail) for index, tail in enumerate(self._tails)]
        self._heads = [setting.head(index) for index in range(s.sessions)]
        cell = self._links(0) if s.share == "cell" else None
        self.devices = [self._device(index, head, cell or self._links(index)) for index, head in enumerate(self._heads)]
        self._happening: list[Happening] = []
        self._settle()
        for event in s.events:
            self.at(event.at_s, self._begin, event)
            self.at(event.at_s + event.for_s, self._end, event)

    @property
    def ends_s(self) -> float:
        """When every frame has its answer."""
        return self.setting.duration_s + self.setting.scenario.deadline_s + AFTERWARDS_S

    def runs(self) -> list[Run]:
        """The run of each device until now."""
        return [Run(self.setting.header(device), records, 0) for device, records in enumerate(self.records)]

    def _core(self, index: int) -> Streams:
        """A server's streams as they are when it starts."""
        setting, s = self.setting, self.setting.scenario
        times = TailTimes({b: setting.tail_s(b) for b in range(1, s.max_batch + 1)}, max_batch=s.max_batch)
        batcher: Batcher[Ready] = Batcher(times, max_batch=s.max_batch, stream_credits=s.credits)
        served = Served(setting.bundle.manifest.name, setting.bundle.sha256, setting.bundle.codec)
        limits = Limits(streams=s.sessions, stream_credits=s.credits)
        return Streams(served, batcher, server_id=f"edge-{index}", limits=limits, codec=setting.replay)

    def _links(self, device: int) -> list[Links]:
        """A device's links to each server."""
        s = self.setting.scenario
        if s.server_links == "shared":
            return [self.setting.links(device)] * s.servers
        return [self.setting.links(device, server) for server in range(s.servers)]

    def _device(self, index: int, head: Head, links: list[Links]) -> DeviceNode:
        setting, s, feed = self.setting, self.setting.scenario, head.feed
        catalogue = setting.contestant.content.catalogue
        tracker = Tracker() if setting.contestant.tracks else None
        times = StageTimes(head.stages_s, setting.coding_s)
        names = [server.core.server_id for server in self.servers]
        servers = Servers(names, chance=random.Random(f"{s.seed}/device-{index}/servers"))
        kept = KeptShare(s.on_time)
        policy, energy = setting.contestant.new_policy(), setting.energy
        session = Session(catalogue, policy, times, tracker=tracker, servers=servers, kept=kept, energy=energy)
        device = DeviceNode(
            self,
            session,
            head,
            {name: Way(server, *pair) for name, server, pair in zip(names, self.servers, links, strict=True)},
            partial(self._told, self.records[index], session, feed),
            hello=Hello(setting.bundle.manifest.name, setting.bundle.sha256, CODEC_VERSION, f"device-{index}"),
        )
        self.at(0.0, device.connect)
        self.at(feed.captured_s(0), self._capture, device, feed, 0)
        return device

    def _capture(self, now: float, device: DeviceNode, feed: Feed, frame_id: int) -> None:
        if frame_id + 1 < feed.frames:
            self.at(feed.captured_s(frame_id + 1), self._capture, device, feed, frame_id + 1)
        truth = self.setting.replay.truth[feed.sample(frame_id)]
        device.take(now, Frame(frame_id, now, now + feed.deadline_s, truth))

    def _told(
        self,
        records: list[FrameRecord],
        session: Session,
        feed: Feed,
        frame: Frame,
        answer: Answer,
        local: Guess | None,
        messages: int,
    ) -> None:
        energy_J = self.setting.energy_J(answer, messages)
        goodput_Bps = session.link.goodput_Bps
        record = FrameRecord.from_answer(frame, answer, local, goodput_Bps=goodput_Bps, energy_J=energy_J)
        records.append(self.setting.replay.judged(record, feed.sample(frame.id), local))

    def _begin(self, now: float, event: Happening) -> None:
        self._happening.append(event)
        self._settle()
        if event.what == "server-lost":
            self.servers[event.server].die(now)
        elif event.what == "server-drained":
            self.servers[event.server].drain(now, GRACE_S)
        elif event.what == "tail-hung":
            self.servers[event.server].hangs = True

    def _end(self, now: float, event: Happening) -> None:
        self._happening.remove(event)
        self._settle()
        if event.what == "server-lost":
            self.servers[event.server].revive(now)
        elif event.what == "server-drained":
            self.servers[event.server].restart(now, self._core(event.server))
        elif event.what == "tail-hung":
            self.servers[event.server].hangs = False

    def _settle(self) -> None:
        """Apply the product of all active slowdowns to every head and tail."""
        passing = math.prod(self.setting.slowdown(event, "device") for event in self._happening)
        device = self.setting.scenario.load * passing
        server = math.prod(self.setting.slowdown(event, "server") for event in self._happening)
        for head in self._heads:
            head.slowdown = device
        for tail in self._tails:
            tail.slowdown = server
