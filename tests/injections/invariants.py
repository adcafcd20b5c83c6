"""What must hold however a run was disturbed. Every injection ends here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from injections.lab import Agent, Role, Server, until
from injections.machine import usage
from isthmus.device.catalogue import Catalogue
from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.models import bundle as bundles
from isthmus.models.scenes import Drive
from isthmus.proto.codec import Codec
from isthmus.proto.security import channel_credentials
from isthmus.proto.vocabulary import Guess, OperatingPoint

UNSEEN_SHARE = 0.02
"""Of a run's frames that may be late without a cause that can be seen from here: a host may halt its guest unannounced."""
SAME = 2e-3
"""Confidences may differ by so much: a tail adds in another order in a batch than alone."""
GROWTH_BYTES = 48 << 20
"""What allocators, gRPC's buffers and the first batches of a size may take beyond a process that has settled."""
GROWTH_FDS, GROWTH_THREADS = 8, 24
LOG_LINES = 40
"""A process's log in the ten seconds or so of a test."""
LINE_BYTES = 1000
"""No line of a log is longer, whatever a peer says."""
SERVING = health_pb2.HealthCheckResponse.SERVING


class Oracle:
    """A bundle's own two halves in this process: what the answer to a picture must be."""

    def __init__(self, bundle: str = "signs") -> None:
        self.bundle = bundles.load(bundle)
        self.codec = Codec(self.bundle.codec)
        self._catalogue = Catalogue.from_manifest(self.bundle.manifest)
        self._executor, self._tail = Executor(self.bundle), Tail(self.bundle, 1)
        self._drives: dict[int, Drive] = {}
        self._answers: dict[tuple[int, int, OperatingPoint], Guess] = {}

    def picture(self, seed: int, index: int) -> NDArray[np.uint8]:
        """Frame `index` of the source `generated:SEED`."""
        return self._drives.setdefault(seed, Drive(seed)).frame(index).image

    def local(self, pixels: NDArray[np.uint8], width: float, stage: int) -> Guess:
        """What the head's exit after `stage` says."""
        self._executor.hold(0, pixels)
        results = [self._executor.job(0, index, width)() for index in range(stage + 1)]
        assert results[-1].guess is not None
        return results[-1].guess

    def payloads(self, pixels: NDArray[np.uint8], width: float = 1.0, step: int = 0) -> tuple[bytes, ...]:
        """What the head sends, layer by layer."""
        self.local(pixels, width, len(self.bundle.manifest.stages) - 1)
        return tuple(self._executor.encode(0, step, layer) for layer in range(self.codec.config.layers))

    def logits(self, payloads: Sequence[bytes]) -> Any:
        """What the tail gives for these layers, packed."""
        return self._tail.run([self.codec.decode(payloads)])[0]

    def remote(self, pixels: NDArray[np.uint8], point: OperatingPoint) -> Guess:
        """What comes back from the server at an operating point."""
        known = self._catalogue.known(point)
        assert point.step is not None
        packed = self.logits(self.payloads(pixels, point.width, point.step)[: point.layers])
        return self._catalogue.task.guess(packed, temperature=known.temperature, accuracy=known.accuracy)

    def answer(self, seed: int, index: int, point: OperatingPoint) -> Guess:
        """The answer to a picture at an operating point; kept, since most tests show the same pictures."""
        if (seed, index, point) not in self._answers:
            pixels = self.picture(seed, index)
            at_exit = None if point.exit is None else self.local(pixels, point.width, point.exit)
            self._answers[seed, index, point] = at_exit or self.remote(pixels, point)
        return self._answers[seed, index, point]

    def check(self, row: dict[str, Any], seed: int, index: int) -> None:
        """The answer in `row` is that of this picture, and of no other."""
        offloaded = row["source"] == "server"
        point = (row["width"], None, row["step"], row["layers"]) if offloaded else (row["width"], row["exit"])
        right = self.answer(seed, index, OperatingPoint(*point))
        assert row["label"] == right.label, f"{row} should be {right}"
        assert abs(row["confidence"] - right.confidence) < SAME, f"{row} should be {right}"


@cache
def oracle(bundle: str = "signs") -> Oracle:
    """One for all tests."""
    return Oracle(bundle)


def invariants(
    agents: Sequence[Agent] = (),
    servers: Sequence[Server] = (),
    *,
    seed: int = 3,
    unusable: Collection[int] = (),
    log_lines: int = LOG_LINES,
    growth_bytes: int = GROWTH_BYTES,
    health: bool = True,
    liar: bool = False,
) -> None:
    """End what still runs and hold all of it to account.

    `unusable` are frames whose picture nobody can read, `log_lines` what a log may hold, `health` whether the servers
    should be serving by now; behind a `liar` only the device's own answers are recomputed.
    """
    for server in servers:
        if health and not server.ended:
            assert serving(server)
    for agent in agents:
        grown(agent, growth_bytes)
        if not agent.ended:
            assert agent.end() == 0, agent.last_words
        each_frame_once(agent)
        never_late(agent, unusable)
        recomputed(agent, seed, skip=unusable, sources=("exit",) if liar else ("exit", "server"))
    for server in servers:
        let_go(server)
        grown(server, growth_bytes)
        if not server.ended:
            assert server.end() == 0, server.last_words
    for role in (*agents, *servers):
        quiet(role, log_lines)


def each_frame_once(agent: Agent) -> None:
    """Every frame from the first to the last has one answer."""
    ids = Counter(row["frame_id"] for row in agent.rows)
    assert ids == Counter(range(len(ids))), f"doubled or lost: {[i for i in range(len(ids)) if ids[i] != 1]}"


def never_late(agent: Agent, unusable: Collection[int] = ()) -> None:
    """No frame is late or without an answer but for what the machine did.

    A frame may be late where the agent's threads stood in the queue for a CPU, or the machine waited for its host, for at
    least as long as it was late; and one in fifty (`UNSEEN_SHARE`) for what cannot be seen from here.
    """
    rows = [row for row in agent.rows if row["frame_id"] not in unusable]
    blamed = [row for row in rows if not _kept(row) and not _excused(agent, row)]
    assert len(blamed) <= max(1, UNSEEN_SHARE * len(rows)), f"{len(blamed)} of {len(rows)} frames: {blamed[:3]}"


def _kept(row: dict[str, Any]) -> bool:
    return bool(row["on_time"]) and row["source"] != "none"


def _excused(agent: Agent, row: dict[str, Any]) -> bool:
    span_s: float = row["deadline_s"] - row["captured_s"]
    waited_s = agent.waits.between(row["captured_s"] - span_s, row["answered_s"])
    late_s: float = row["answered_s"] - row["deadline_s"]
    return waited_s >= max(late_s, 0.25 * span_s if row["source"] == "none" else 0.0)


def recomputed(
    agent: Agent, seed: int, *, skip: Collection[int] = (), sources: Sequence[str] = ("exit", "server")
) -> None:
    """Every answer is that of its own picture: both halves run once more, here."""
    for row in agent.rows:
        if row["source"] in sources and row["frame_id"] not in skip:
            oracle(agent.judged_by).check(row, seed, row["frame_id"])


def grown(role: Role, growth_bytes: int = GROWTH_BYTES) -> None:
    """It holds hardly more than when it had settled."""
    if role.settled is None or role.ended:
        return
    now = usage(role.pid)
    assert now.rss_bytes <= role.settled.rss_bytes + growth_bytes, f"{role.settled} became {now}"
    assert now.fds <= role.settled.fds + GROWTH_FDS, f"{role.settled} became {now}"
    assert now.threads <= role.settled.threads + GROWTH_THREADS, f"{role.settled} became {now}"


def let_go(server: Server) -> None:
    """A server without devices has given their descriptors back."""
    settled = server.settled
    if settled is not None and not server.ended:
        server.until(lambda: usage(server.pid).fds <= settled.fds + GROWTH_FDS, "the descriptors are given back")


def quiet(role: Role, log_lines: int = LOG_LINES) -> None:
    """No traceback, no flood, no line that is somebody else's or without end."""
    lines = role.log.splitlines()
    assert "Traceback" not in role.log, role.last_words
    assert len(lines) <= log_lines, f"{len(lines)} lines\n{role.last_words}"
    assert max(map(len, lines), default=0) <= LINE_BYTES
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", role.log), "control characters in the log"


def health_of(server: Server, limit_s: float = 5.0) -> int | None:
    """What the health service says; None when it says nothing in time."""
    with opened(server) as channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=limit_s).status)
        except grpc.RpcError:
            return None


def opened(server: Server) -> grpc.Channel:
    """A channel to the server, with a device's certificates where it asks for them."""
    if server.certs is None:
        return grpc.insecure_channel(server.address)
    return grpc.secure_channel(server.address, channel_credentials(server.certs))


def serving(server: Server) -> bool:
    """It says so, in a while."""
    return bool(until(lambda: health_of(server) == SERVING, f"{server.address}: serving", of=[server]))
