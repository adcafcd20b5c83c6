"""A server and the replicas that dial it, over real connections on this machine, and without Ray."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from isthmus.edge_server.engines import Frame
from isthmus.edge_server.scale_out import batch_messages as wire
from isthmus.edge_server.scale_out.replica import DEPTH, Door, Replica
from isthmus.edge_server.scale_out.replica_links import ReplicaError, ReplicaLinks
from isthmus.edge_server.scale_out.wanted_replicas import BUSY_SHARE, by_their_work
from isthmus.proto.tasks.task import Packed

SOON_S = 30.0


class Sum:
    """A tail that answers the sum of a frame; it may be held up, and counts its batches."""

    def __init__(self) -> None:
        self.batches, self.begun, self.go_on = 0, threading.Event(), threading.Event()
        self.go_on.set()

    def run(self, frames: Sequence[Frame]) -> list[Packed | None]:
        self.batches += 1
        self.begun.set()
        assert self.go_on.wait(SOON_S)
        if any(not frame.size for frame in frames):
            raise ValueError("nothing crossed")
        return [(float(frame.sum()), 0.5) for frame in frames]


@pytest.fixture
def links() -> Iterator[ReplicaLinks]:
    links = ReplicaLinks("127.0.0.1")
    yield links
    links.close()


def replica(links: ReplicaLinks, *, of: int = 1) -> tuple[Replica, Sum]:
    """One more replica, of so many."""
    tail = Sum()
    made = Replica(lambda: tail, links.door)
    assert links.wait_for(of, SOON_S)
    until(lambda: links.count == of * DEPTH)
    return made, tail


def until(true: object) -> None:
    assert callable(true)
    ends_s = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < ends_s
        time.sleep(0.005)


def frames(*values: float) -> list[Frame]:
    return [np.full((2, 2, 1), value, np.float32) for value in values]


def test_a_batch_goes_to_a_replica_and_its_answers_come_back(links: ReplicaLinks) -> None:
    replica(links)
    assert links.run(frames(1, 2, 3)) == [(4.0, 0.5), (8.0, 0.5), (12.0, 0.5)]
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert links.run([picture]) == [(66.0, 0.5)]


def test_the_least_busy_replica_gets_the_next_batch(links: ReplicaLinks) -> None:
    both = [replica(links, of=1)[1], replica(links, of=2)[1]]
    for tail in both:
        tail.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(links.run, frames(n)) for n in range(2)]
        assert all(tail.begun.wait(SOON_S) for tail in both), "one each, although each could take two"
        for tail in both:
            tail.go_on.set()
        assert [one.result() for one in asked] == [[(0.0, 0.5)], [(4.0, 0.5)]]


def test_a_batch_for_which_there_is_no_link_yet_is_the_next(links: ReplicaLinks) -> None:
    """Two threads that ask again at once when they are answered do not keep a third one waiting."""
    _, tail = replica(links)
    tail.go_on.clear()
    with ThreadPoolExecutor(DEPTH + 1) as pool:
        busy = [pool.submit(lambda: [links.run(frames(n)) for n in range(200)]) for _ in range(DEPTH)]
        until(lambda: not links._idle)
        third = pool.submit(links.run, frames(7))
        until(lambda: links._waiting)
        tail.go_on.set()
        assert third.result(SOON_S) == [(28.0, 0.5)]
        batches = tail.batches
        for one in busy:
            one.result(SOON_S)
    assert batches < 100


def test_what_a_tail_raises_costs_its_batch_alone(links: ReplicaLinks) -> None:
    replica(links)
    with pytest.raises(ReplicaError, match="ValueError: nothing crossed"):
        links.run([np.zeros((0, 2, 1), np.float32)])
    assert links.run(frames(1)) == [(4.0, 0.5)]
    assert links.count == DEPTH


def test_a_replica_that_is_told_to_end_answers_what_it_has(links: ReplicaLinks) -> None:
    leaving, tail = replica(links)
    tail.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(links.run, frames(n)) for n in range(DEPTH)]
        until(lambda: tail.begun.is_set() and not links._idle)
        ending = threading.Thread(target=leaving.__del__)
        ending.start()
        _, other = replica(links, of=2)
        tail.go_on.set()
        assert [one.result() for one in asked] == [[(0.0, 0.5)], [(4.0, 0.5)]]
        ending.join()
    assert links.run(frames(2)) == [(8.0, 0.5)]
    assert (tail.batches, other.batches, links.replicas) == (2, 1, 1)


def test_a_replica_that_dies_costs_the_batches_it_has(links: ReplicaLinks) -> None:
    with socket.create_connection((links.door.host, links.door.port)) as dying:
        dying.sendall(links.door.key + bytes(wire.NAME_BYTES))
        assert links.wait_for(1, SOON_S)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(links.run, frames(1))
            wire.receive(dying)
            dying.close()
            with pytest.raises(ReplicaError, match="a replica was lost with its batch"):
                asked.result()
    replica(links)
    assert links.run(frames(1)) == [(4.0, 0.5)]


def test_an_idle_replica_that_dies_costs_nothing(links: ReplicaLinks) -> None:
    with socket.create_connection((links.door.host, links.door.port)) as dying:
        dying.sendall(links.door.key + bytes(wire.NAME_BYTES))
        assert links.wait_for(1, SOON_S)
    Replica(Sum, links.door)
    until(lambda: links.count == DEPTH)
    assert links.run(frames(1)) == [(4.0, 0.5)]


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(wire.KEY_BYTES + wire.NAME_BYTES)])
def test_whoever_has_no_key_is_hung_up_on(links: ReplicaLinks, said: bytes) -> None:
    with socket.create_connection((links.door.host, links.door.port)) as stranger:
        stranger.settimeout(SOON_S)
        stranger.sendall(said)
        assert stranger.recv(1) == b""
    assert links.count == 0


def test_a_server_that_cannot_be_reached_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"the server at 127.0.0.1:{port} cannot be reached from here"):
        Replica(Sum, Door("127.0.0.1", port, bytes(wire.KEY_BYTES)))


def test_a_replica_whose_link_is_lost_dials_again(links: ReplicaLinks) -> None:
    made, _ = replica(links)
    made._links[0].shutdown(socket.SHUT_RDWR)
    until(lambda: links.count == 1)
    until(lambda: links.count == DEPTH)
    assert links.run(frames(1)) == [(4.0, 0.5)]


@pytest.mark.parametrize(
    "said", [wire.Answers([(1.0, float("inf")), b"packed", None]), wire.Failed("x"), wire.Leaving()]
)
def test_what_a_replica_says_comes_whole(said: wire.Said) -> None:
    assert wire.unpacked_said(wire.packed_said(said)) == said


@pytest.mark.parametrize("message", [b"", b"\xc0", b"\x93\x01\x02\x03", wire.packed_batch([])])
def test_what_no_replica_says_is_told_apart(message: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.unpacked_said(message)


def test_arrays_of_objects_are_no_frames() -> None:
    with pytest.raises(ValueError, match="OBJECT"):
        wire.unpacked_batch(msgspec.msgpack.encode([("O", (1,), bytes(8))]))


@pytest.mark.parametrize(
    ("running", "busy", "wanted"),
    [(1, 0.2, 1), (1, 0.9, 2), (2, 0.9, 3), (4, BUSY_SHARE, 4), (4, 0.3, 2), (4, 0.0, 1)],
)
def test_more_replicas_are_wanted_while_they_are_at_work(running: int, busy: float, wanted: int) -> None:
    context = SimpleNamespace(
        current_num_replicas=running,
        target_num_replicas=running,
        aggregated_metrics={"busy": dict.fromkeys(range(running), busy)},
    )
    assert by_their_work(context) == (wanted, {})


def test_as_many_as_there_are_until_any_has_said_how_busy_it_is() -> None:
    assert by_their_work(SimpleNamespace(target_num_replicas=3, aggregated_metrics={})) == (3, {})
