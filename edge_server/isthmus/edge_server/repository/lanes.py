"""The lanes of all bundles whose tails are loaded, and what they share: workers and memory. Pure: no clock, no IO."""

from __future__ import annotations

from collections.abc import Container, Iterator

from isthmus.edge_server.batcher import RunBatch
from isthmus.edge_server.repository.fair_share import FairShare
from isthmus.edge_server.repository.lane import Lane, Ready
from isthmus.proto.machine import earliest
from isthmus.proto.vocabulary import Load

RETIRED_S = 30.0
"""How long a bundle that is not offered any more is kept without streams: a device that lost its connection comes back."""


class Lanes:
    """The lanes of one server, by their bundles' hashes."""

    def __init__(self, *, workers: int, most: int | None) -> None:
        """So many batches run at a time; at `most` so many tails are loaded, None: any number."""
        self._lanes: dict[bytes, Lane] = {}
        self._share, self._most = FairShare(workers), most
        self._uses = 0

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, sha256: bytes) -> Lane | None:
        """The lane of a bundle; None where its tail is not loaded."""
        return self._lanes.get(sha256)

    @property
    def due_at(self) -> float | None:
        """When a frame cannot wait for more layers, or a lane's turn comes."""
        coming = turn = None
        for lane in self._lanes.values():  # asked for several times a message: no generators, no calls
            if (at := lane.assembly.due_at) is not None and (coming is None or at < coming):
                coming = at
            if (at := lane.batcher.due_at) is not None and (turn is None or at < turn):
                turn = at
        if turn is not None and len(self._lanes) > 1:
            turn = max(turn, self._share.opens_at)
        return earliest(coming, turn)

    @property
    def idle(self) -> bool:
        """No frame is in any of them."""
        return all(lane.idle for lane in self)

    @property
    def waiting(self) -> int:
        """Frames in the queues. May be asked for from another thread."""
        return sum(lane.batcher.waiting for lane in list(self._lanes.values()))

    def load(self, now: float) -> Load:
        """How busy the busiest is, with the frames of all."""
        loads = [self.load_of(lane, now) for lane in self]
        busiest = max(loads, key=lambda load: load.wait_s + load.tail_s, default=Load())
        return Load(sum(load.queue for load in loads), busiest.wait_s, busiest.tail_s)

    def load_of(self, lane: Lane, now: float) -> Load:
        """What a frame that arrived now would meet in this lane."""
        self.weigh(lane, now)
        return lane.batcher.load(now)

    def resize(self, engines: int, *, now: float) -> None:
        """From now on so many batches run at once, wherever they do."""
        self._share.workers = engines
        for lane in self:
            lane.batcher.resize(engines, now=now)

    def weigh(self, lane: Lane, now: float) -> None:
        """Tell a lane what the others leave it of the workers; to be called before it counts with them."""
        if len(self._lanes) == 1:
            return
        others = sum(not other.batcher.idle for other in self if other is not lane)
        lane.batcher.share(self._share.free_s(now), max(1.0, (others + 1) / self._share.workers))

    def add(self, lane: Lane) -> None:
        """A bundle's tail is loaded."""
        self._lanes[lane.served.sha256] = lane
        self.use(lane)

    def use(self, lane: Lane) -> None:
        """A stream of it came or went."""
        self._uses += 1
        lane.used = self._uses

    def drop(self, lane: Lane) -> None:
        """Let go of a lane without streams."""
        del self._lanes[lane.served.sha256]
        self._share.forget(lane.served.sha256)
        if len(self._lanes) == 1:
            next(iter(self)).batcher.share(0.0, 1.0)

    def full(self, coming: set[bytes]) -> bool:
        """Whether no more tails may be loaded, beside those that come."""
        return self._most is not None and len(self._lanes.keys() | coming) >= self._most

    def least_used(self) -> Lane | None:
        """The lane that was not used for longest, of those that nobody uses now."""
        unused = [lane for lane in self if lane.streams == 0 and lane.idle]
        return min(unused, key=lambda lane: lane.used, default=None)

    def retired(self, offered: Container[bytes], now: float) -> list[Lane]:
        """The lanes whose bundles are not offered any more, and whose last devices have been gone for a while."""
        for lane in self:
            if lane.served.sha256 in offered or lane.streams > 0 or not lane.idle:
                lane.unused_since_s = None
            elif lane.unused_since_s is None:
                lane.unused_since_s = now
        return [lane for lane in self if lane.unused_since_s is not None and lane.unused_since_s + RETIRED_S <= now]

    def step(self, now: float, due: float) -> Lane | None:
        """Do the one thing that is `due` in some lane; which lane that was."""
        for lane in self._lanes.values():
            if lane.assembly.due_at == due:
                self.weigh(lane, now)
                lane.step_assembly(now)
                return lane
        return self._give_turn(now)

    def computed(self, batch: RunBatch[Ready], tail_s: float, *, now: float) -> Lane:
        """A batch is off its worker after `tail_s`; whose it was."""
        lane = next(lane for lane in self if lane.runs(batch))
        self._share.end(lane.served.sha256, tail_s)
        self.weigh(lane, now)
        return lane

    def _give_turn(self, now: float) -> Lane | None:
        """The lane that goes first gets a worker, if it has a batch worth running now."""
        waiting = [lane.served.sha256 for lane in self if (at := lane.batcher.due_at) is not None and at <= now]
        if not waiting:
            return None
        lane = self._lanes[self._share.first(waiting)]
        self.weigh(lane, now)
        if size := lane.step_batcher(now):
            self._share.begin(lane.served.sha256, lane.batcher.times.p95_s(size), now=now)
        return lane
