"""What a server decides, in virtual time: `Streams` with an engine, a clock that is set, and what was said to whom."""

from __future__ import annotations

from typing import Any

import numpy as np

from isthmus.edge_server.admission import Close, Ending, Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.streams import Compute, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.proto import messages as m
from isthmus.proto.machine import earliest
from isthmus.proto.messages import DeviceMessage

TAIL_S = 0.010


class Server:
    """`Streams` with an engine that takes 10 ms whatever the batch; `said` holds the replies of each stream."""

    def __init__(self, served: Served, engine: Any, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        times = TailTimes({1: TAIL_S, 8: TAIL_S}, max_batch=8)
        self.streams = Streams(
            served, Batcher(times, stream_credits=limits.stream_credits), server_id="edge", limits=limits
        )
        self.engine, self.now = engine, 0.0
        self.said: dict[int, list[m.ServerMessage]] = {}
        self.closed: dict[int, tuple[Ending, str]] = {}
        self.batches: list[int] = []
        self.running: Compute | None = None
        self.done_at: float | None = None

    def open(self, address: str = "10.0.0.1", certificate: str | None = None) -> int:
        stream = self.streams.open(now=self.now, address=address, certificate=certificate)
        self.said[stream] = []
        self.collect()
        return stream

    def hear(self, stream: int, *messages: DeviceMessage) -> None:
        for message in messages:
            self.streams.on_message(stream, message, now=self.now)
        self.collect()

    def collect(self) -> None:
        for action in self.streams.actions():
            match action:
                case Reply(stream, message):
                    self.said[stream].append(message)
                case Close(stream, ending, why):
                    self.closed[stream] = ending, why
                    self.streams.on_gone(stream)
                case Compute(batch):
                    self.running, self.done_at = action, self.now + TAIL_S
                    self.batches.append(len(batch.items))

    def run_until(self, until_s: float, *, broken: bool = False) -> None:
        while (due := earliest(self.done_at, self.streams.due_at)) is not None and due <= until_s:
            self.now = max(self.now, due)
            if due == self.done_at and self.running is not None:
                batch, self.running, self.done_at = self.running.batch, None, None
                outputs = self.engine.run(np.stack([item.payload.features for item in batch.items]))
                self.streams.on_computed(batch, None if broken else outputs, TAIL_S, now=self.now)
            else:
                self.streams.step(self.now)
            self.collect()
        self.now = until_s

    def kinds(self, stream: int) -> list[str]:
        return [type(message).__name__ for message in self.said[stream]]
