"""All streams of one server, from the door to the goodbye, and the lanes of its bundles, as one machine. Pure: no clock, no IO.

Messages go in; what to reply, to compute and to close comes out. `service` performs it over gRPC; an emulator may too.
The hello says which bundle a device has: its frames then go the lane of that bundle. Places, rates and names are those of the
whole server, and the lanes share its workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from isthmus.edge_server.admission import HELLO_S, Admission, Close, Ending, Limits, Peer
from isthmus.edge_server.batcher import Batcher, RunBatch
from isthmus.edge_server.repository.lane import Compute as Compute
from isthmus.edge_server.repository.lane import Decoder, Lane
from isthmus.edge_server.repository.lane import Ready as Ready
from isthmus.edge_server.repository.lane import Reply as Reply
from isthmus.edge_server.repository.lane import Served as Served
from isthmus.edge_server.repository.lanes import Lanes
from isthmus.edge_server.repository.shelf import Drop as Drop
from isthmus.edge_server.repository.shelf import Fetch as Fetch
from isthmus.edge_server.repository.shelf import Shelf
from isthmus.edge_server.scale_out.ages import Ages
from isthmus.edge_server.shedding import SendingTime, Shedder
from isthmus.proto import messages as m
from isthmus.proto.machine import earliest
from isthmus.proto.printable import printable
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Load

SWEEP_S = 1.0
"""How often silent streams are looked for: a tenth of the silence itself."""


Action = Reply | Compute | Close | Fetch | Drop


class Streams:
    """One server's state. Numbers its streams from 1 and never uses a number again."""

    def __init__(
        self,
        served: Served | None = None,
        batcher: Batcher[Ready] | None = None,
        *,
        server_id: str,
        limits: Limits,
        codec: Decoder | None = None,
        ages: Ages | None = None,
    ) -> None:
        """`served`, with its batcher and codec, is the first bundle that is added; None: there is none yet."""
        self.server_id = server_id
        self._limits, self._admission = limits, Admission(limits, server_id=server_id)
        self.shedder, self.sending = Shedder(), SendingTime()
        self.lanes, self._shelf = Lanes(workers=limits.workers, most=limits.tails), Shelf()
        self._lane_of: dict[int, Lane] = {}
        self._ages = ages or Ages()
        self._opened = 0
        self._sweep_at: float | None = None
        self._draining = False
        self._drain_until: float | None = None
        self._actions: list[Action] = []
        if served is not None and batcher is not None:
            self.offer(served)
            self.add(served, batcher, codec=codec, now=0.0)

    @property
    def due_at(self) -> float | None:
        """The earliest of all timers."""
        return earliest(self.lanes.due_at, self._sweep_at, self._drain_until, self._ages.due_at)

    @property
    def _peers(self) -> dict[int, Peer]:
        return self._admission.peers

    @property
    def count(self) -> int:
        """Streams that are open, and those that are closed but not yet gone."""
        return self._admission.count

    @property
    def waiting(self) -> int:
        """Frames in the queues."""
        return self.lanes.waiting

    def resize(self, engines: int, *, now: float) -> None:
        """From now on so many batches run at once."""
        self.lanes.resize(engines, now=now)

    @property
    def offered(self) -> tuple[Served, ...]:
        """The bundles that a device may have, loaded or not."""
        return tuple(self._shelf.offered.values())

    def served_to(self, stream: int) -> Served | None:
        """The bundle that a stream has; None before its welcome."""
        lane = self._lane_of.get(stream)
        return None if lane is None else lane.served

    @property
    def full(self) -> bool:
        """Whether a tail has to leave before another is loaded."""
        return self.lanes.full(self._shelf.fetching)

    def load(self, now: float) -> Load:
        """How busy the busiest lane is, with the frames of all."""
        return self.lanes.load(now)

    def actions(self) -> list[Action]:
        """What to do, in order; each action is handed out once."""
        actions, self._actions = self._actions, []
        return actions

    def offer(self, served: Served) -> None:
        """From now on devices may have this bundle."""
        self._shelf.offered[served.sha256] = served

    def withdraw(self, sha256: bytes) -> None:
        """No new device is told of this bundle; those that have it are served until the lane is dropped."""
        self._shelf.offered.pop(sha256, None)

    def add(self, served: Served, batcher: Batcher[Ready], *, codec: Decoder | None = None, now: float) -> None:
        """A bundle's tail is loaded; the devices that have waited for it are welcome."""
        self.lanes.add(Lane(served, batcher, shedder=self.shedder, codec=codec))
        for stream, hello in self._shelf.end(served.sha256):
            self._welcome(stream, hello, now)
        self._settle()

    def on_not_loaded(self, sha256: bytes, why: str) -> None:
        """A bundle's tail could not be loaded; the devices that have waited for it are sent away."""
        for stream, _ in self._shelf.end(sha256):
            self._close(stream, Ending.UNLOADED, f"hello: {why}")
        self._settle()

    def tidy(self, now: float) -> None:
        """Let go of the lanes whose bundles are offered no more, once their last devices have been gone for a while."""
        for lane in self.lanes.retired(self._shelf.offered, now):
            self._drop_lane(lane)

    def open(self, *, now: float, address: str = "", certificate: str | None = None) -> int:
        """A device connected from `address`, with a certificate of this name; the number of its stream.

        One that is not taken on is closed at once, and counts like any other until `on_gone`.
        """
        self._opened += 1
        stream = self._opened
        if self._draining:
            self._end(self._admission.refuse(stream, Ending.DRAINED, f"{self.server_id}: stopping; try again later"))
        else:
            self._end(self._admission.enter(stream, address, certificate, now=now))
            if self._sweep_at is None:
                self._sweep_at = now + SWEEP_S
        return stream

    def ask(self, sha256: bytes, features: NDArray[Any], *, due_s: float, now: float) -> int | None:
        """A frame for this bundle that came without a stream; the number of its one reply, until `on_gone`.

        None where it is not taken: the server drains, or the tail is not loaded, which is then seen to.
        """
        if self._draining:
            return None
        if (lane := self.lanes.get(sha256)) is None:
            if sha256 in self._shelf.offered and sha256 not in self._shelf.fetching and self._make_room():
                self._shelf.fetching.add(sha256)
                self._actions.append(Fetch(sha256))
            return None
        self._opened += 1
        self._lane_of[self._opened] = lane
        self.lanes.use(lane)
        self.lanes.weigh(lane, now)
        lane.ask(self._opened, features, due_s=due_s, now=now)
        self._take(lane)
        return self._opened

    def on_gone(self, stream: int) -> None:
        """Nothing is left of the stream, whoever ended it."""
        self._leave(stream)
        self._admission.on_gone(stream)
        self._settle()

    def revoke(self, names: Iterable[str]) -> None:
        """Turn away whoever has a certificate of one of these names, and no others."""
        self._end(self._admission.revoke(names))

    def pause_s(self, stream: int, now: float) -> float:
        """How long to read nothing more of a stream that sends faster than it may."""
        peer = self._peers.get(stream)
        return 0.0 if peer is None else peer.account.reading_wait_s(now)

    def on_unread(self, stream: int, why: str) -> None:
        """The device does not read what it is told."""
        self._close(stream, Ending.UNREAD, why)
        self._settle()

    def on_malformed(self, stream: int, why: str) -> None:
        """A message that is none of ours; costs this stream only."""
        self._close(stream, Ending.MALFORMED, why)
        self._settle()

    def on_message(self, stream: int, message: m.DeviceMessage, *, now: float, came_s: float | None = None) -> None:
        """A device said something; it came at `came_s` and has waited since. None: it came now."""
        peer = self._peers.get(stream)
        if peer is None:
            return  # closed a moment ago
        peer.heard_s = now
        peer.account.on_message(message, now)
        lane = self._lane_of.get(stream)
        if isinstance(message, m.Hello):
            if lane is None and stream not in self._shelf.waiting:
                self._on_hello(stream, message, now)
            else:
                self._close(stream, Ending.MALFORMED, "hello: expected one hello only")
        elif lane is None:
            self._close(stream, Ending.MALFORMED, f"{type(message).__name__.lower()}: expected a hello first")
        else:
            self._on_greeted(lane, stream, peer, message, now if came_s is None else came_s, now)
        self._settle()

    def on_computed(
        self, batch: RunBatch[Ready], answers: Sequence[Packed | None] | None, tail_s: float, *, now: float
    ) -> None:
        """The tail's answers to a batch, packed by the bundle's task; None when it failed, or for one that is NaN."""
        lane = self.lanes.computed(batch, tail_s, now=now)
        lane.on_computed(batch, answers, tail_s, now=now)
        self._take(lane)
        self._settle()

    def drain(self, grace_s: float, *, now: float) -> None:
        """Take on nothing new; answer what is in flight, then close every stream, after `grace_s` at the latest."""
        self._draining, self._drain_until = True, now + grace_s
        for stream in self._peers:
            lane = self._lane_of.get(stream)
            self._reply(stream, m.Drain(grace_s, self.load(now) if lane is None else self.lanes.load_of(lane, now)))
        self._settle()

    def step(self, now: float) -> None:
        """Do the one thing that is due."""
        in_lanes = self.lanes.due_at
        due = earliest(in_lanes, self._sweep_at, self._drain_until, self._ages.due_at)
        if due is None:
            return
        if due == in_lanes:
            if (lane := self.lanes.step(now, due)) is not None:
                self._take(lane)
        elif due == self._sweep_at:
            self._sweep(now)
        elif due == self._ages.due_at:
            for stream in self._ages.grown(now):
                self._reply(stream, m.Drain(self._ages.grace_s, self.lanes.load_of(self._lane_of[stream], now)))
            self._see_off(now)
        else:
            self._finish("the grace is over")
        self._settle()

    def _on_hello(self, stream: int, hello: m.Hello, now: float) -> None:
        sha256, shelf = hello.bundle_sha256, self._shelf
        loaded = self.lanes.get(sha256) is not None
        if (why := shelf.misfit(hello, loaded=loaded)) is not None:
            self._close(stream, Ending.MISMATCH, f"hello: {why}")
        elif loaded:
            self._welcome(stream, hello, now)
        elif sha256 not in shelf.fetching and not self._make_room():
            why = f"{self.server_id}: {len(self.lanes)} tails are in use, max_tails = {self._limits.tails}"
            self._close(stream, Ending.CROWDED, why)
        elif shelf.wait(stream, hello):
            self._actions.append(Fetch(sha256))

    def _welcome(self, stream: int, hello: m.Hello, now: float) -> None:
        self._end(self._admission.welcome(stream, hello.client_id))
        lane = self.lanes.get(hello.bundle_sha256)
        if lane is None or stream not in self._peers:
            return
        self._lane_of[stream] = lane
        references, credit = lane.enter(stream), self._limits.stream_credits
        self.lanes.use(lane)
        welcome = m.Welcome(self.server_id, credit, lane.max_layer_bytes, self.lanes.load_of(lane, now), references)
        self._reply(stream, welcome)
        self._ages.enter(stream, now=now)

    def _on_greeted(
        self, lane: Lane, stream: int, peer: Peer, message: m.DeviceMessage, came_s: float, now: float
    ) -> None:
        match message:
            case m.Layer():
                self._on_layer(lane, stream, peer, message, came_s, now)
            case m.Cancel(frame_id):
                lane.cancel(stream, frame_id)
            case m.Heartbeat(sequence):
                self._reply(stream, m.ServerHeartbeat(sequence, self.lanes.load_of(lane, now)))

    def _on_layer(self, lane: Lane, stream: int, peer: Peer, layer: m.Layer, came_s: float, now: float) -> None:
        if layer.frame_id == peer.shed:
            return
        if len(layer.payload) > lane.max_layer_bytes:
            why = f"layer of {len(layer.payload)} bytes, at most {lane.max_layer_bytes} are welcome"
            self._close(stream, Ending.OVERSIZED, why)
            return
        self.shedder.note(now - came_s, now=now)
        due_s = came_s - self.sending.usual_s(now) + layer.budget_s
        load, begins = self.lanes.load_of(lane, now), not lane.knows(stream, layer.frame_id)
        if begins and self._shed(lane, stream, peer, layer.frame_id, due_s, now):
            return
        if begins and (retry_s := self._no_room_s(lane, stream, peer, now)) is not None:
            lane.refuse(stream, layer.frame_id)
            self._reply(stream, m.Busy(layer.frame_id, retry_s, load=load))
            return
        if layer.layer == 0:
            peer.account.on_frame(now)
        lane.on_layer(stream, layer, due_s=due_s, load=load, now=now)
        self._take(lane)

    def _shed(self, lane: Lane, stream: int, peer: Peer, frame_id: int, due_s: float, now: float) -> bool:
        """Whether a frame is turned away by its first layer, unread and unacknowledged, since the loop is behind."""
        if self.shedder.takes() and not (self.shedder.shedding and lane.batcher.hopeless(due_s, now=now)):
            return False
        peer.shed = frame_id
        if now >= peer.told_until_s:
            retry_s = self.shedder.retry_s()
            peer.told_until_s = now + retry_s
            self._reply(stream, m.Busy(frame_id, retry_s, load=self.lanes.load_of(lane, now)))
        return True

    def _no_room_s(self, lane: Lane, stream: int, peer: Peer, now: float) -> float | None:
        """When to try again, if a new frame of this stream is not welcome."""
        if self._draining:
            return max(0.0, self._drain_until - now) if self._drain_until is not None else 0.0
        if lane.inside(stream) >= self._limits.stream_credits:
            load = self.lanes.load_of(lane, now)
            return load.wait_s + load.tail_s
        return peer.account.frame_wait_s(now) or None

    def _take(self, lane: Lane) -> None:
        self._actions += lane.actions()

    def _sweep(self, now: float) -> None:
        for stream, hello in list(self._shelf.waiting.items()):
            if self._peers[stream].heard_s + HELLO_S <= now:
                why = f"hello: bundle {printable(hello.bundle_name)} is still being loaded; try again"
                self._close(stream, Ending.UNLOADED, why)
        self._end(self._admission.silent(now))
        self._sweep_at = now + SWEEP_S if self._peers else None

    def _see_off(self, now: float = -math.inf) -> None:
        """Close the streams of age of which nothing is inside any more, or whose grace is over."""
        for stream in self._ages.closing(lambda stream: self._lane_of[stream].inside(stream), now):
            self._close(stream, Ending.AGED, f"{self.server_id}: open for long; connect again")

    def _settle(self) -> None:
        """A draining server whose frames are all answered has nothing to stay for, nor has a stream of age."""
        self._see_off()
        if self._draining and self.lanes.idle:
            self._finish("all frames in flight are answered")

    def _finish(self, why: str) -> None:
        for stream in list(self._peers):
            self._close(stream, Ending.DRAINED, f"{self.server_id}: stopping; {why}")
        self._drain_until = None

    def _reply(self, stream: int, message: m.ServerMessage) -> None:
        if stream in self._peers:
            self._actions.append(Reply(stream, message))

    def _close(self, stream: int, ending: Ending, why: str) -> None:
        if stream in self._peers:
            self._end([Close(stream, ending, why)])

    def _end(self, closes: Iterable[Close]) -> None:
        """Close these streams; what is in flight of them is dropped."""
        for close in closes:
            self._actions.append(close)
            self._admission.on_close(close.stream)
            self._leave(close.stream)

    def _leave(self, stream: int) -> None:
        self._shelf.waiting.pop(stream, None)
        self._ages.leave(stream)
        if (lane := self._lane_of.pop(stream, None)) is not None:
            lane.leave(stream)
            self.lanes.use(lane)

    def _make_room(self) -> bool:
        """Whether one more tail may be loaded; the one that was not used for longest leaves for it."""
        if not self.full:
            return True
        if (lane := self.lanes.least_used()) is None:
            return False
        self._drop_lane(lane)
        return True

    def _drop_lane(self, lane: Lane) -> None:
        self.lanes.drop(lane)
        self._actions.append(Drop(lane.served.sha256))
