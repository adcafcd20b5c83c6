"""The links that a server's replicas hold to it, and which of them gets the next batch: one of the least busy replica.

Blocking: each batch is sent and waited for in a thread of its own. The links are the truth about how many replicas there are.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from isthmus.edge_server.engines import Frame
from isthmus.edge_server.scale_out import batch_messages as wire
from isthmus.edge_server.scale_out.replica import Door
from isthmus.proto.errors import IsthmusError
from isthmus.proto.tasks.task import Packed

PATIENCE_S = 30.0
"""A batch is given up after so long; the server has given it up long before, and this frees the thread that waits."""
HELLO_S = 2.0
"""Whoever dials shows the key within so long."""

MOST_HELLOS = 64
"""Who dials while so many have not said who they are is hung up on: each takes a thread."""


class ReplicaError(IsthmusError):
    """A replica failed on a batch, was lost with it, or there was none for it."""


class _Link(NamedTuple):
    socket: socket.socket
    replica: bytes


class ReplicaLinks:
    """Listens from the beginning on; may be called by any thread."""

    def __init__(self, host: str) -> None:
        """Listens on a free port of this address."""
        self._listening = socket.create_server((host, 0))
        self.door = Door(host, self._listening.getsockname()[1], secrets.token_bytes(wire.KEY_BYTES))
        self._changed, self._hellos = threading.Condition(), threading.BoundedSemaphore(MOST_HELLOS)
        self._all: list[_Link] = []
        self._idle: list[_Link] = []
        """Those without a batch, the one that has had none for longest first."""
        self._waiting: list[object] = []
        """Batches for which there is no link; the first is the next."""
        threading.Thread(target=self._accept, name="replicas", daemon=True).start()

    @property
    def count(self) -> int:
        """Links that are up: as many batches can be under way."""
        with self._changed:
            self._drop_gone()
            return len(self._all)

    @property
    def replicas(self) -> int:
        """Replicas that hold them."""
        with self._changed:
            self._drop_gone()
            return len({link.replica for link in self._all})

    def wait_for(self, replicas: int, within_s: float) -> bool:
        """Whether so many replicas have dialled in, in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len({link.replica for link in self._all}) >= replicas, within_s)

    def run(self, frames: Sequence[Frame]) -> Sequence[Packed | None]:
        """The answers of some replica to a batch. Raises ReplicaError."""
        link = self._taken()
        try:
            wire.send(link.socket, wire.packed_batch(frames))
            said = self._heard(link)
        except TimeoutError:
            self._drop(link.replica)
            raise ReplicaError(f"a replica has said nothing to a batch for {PATIENCE_S:g} s") from None
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self._forget(link)
            raise ReplicaError(f"a replica was lost with its batch: {error}") from error
        if isinstance(said, wire.Answers):
            return said.answers
        raise ReplicaError(said.why)

    def close(self) -> None:
        """Let go of all of them; nobody may dial any more."""
        with contextlib.suppress(OSError):  # wakes whoever accepts
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._changed:
            for link in self._all:
                link.socket.close()
            self._all, self._idle = [], []

    def _heard(self, link: _Link) -> wire.Answers | wire.Failed:
        """What it says of its batch; a link whose replica is told to end is let go with that, others wait for the next."""
        leaves = False
        while isinstance(said := wire.unpacked_said(wire.receive(link.socket)), wire.Leaving):
            leaves = True
        if leaves:
            self._forget(link)
        else:
            with self._changed:
                self._idle.append(link)
                self._changed.notify_all()
        return said

    def _taken(self) -> _Link:
        """An idle link of the replica that has most of them, the longest idle first."""
        until_s, turn = time.monotonic() + PATIENCE_S, object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while True:
                    self._drop_gone()
                    if self._idle and self._waiting[0] is turn:
                        return self._least_busy()
                    if not self._changed.wait(until_s - time.monotonic()):
                        raise ReplicaError(f"no replica has had room for a batch for {PATIENCE_S:g} s")
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()

    def _least_busy(self) -> _Link:
        replicas = [link.replica for link in self._idle]
        return self._idle.pop(max(range(len(replicas)), key=lambda n: (replicas.count(replicas[n]), -n)))

    def _drop_gone(self) -> None:
        """Idle links on which something comes are at their end: a goodbye, or nothing more."""
        poll, by_number = select.poll(), {link.socket.fileno(): link for link in self._idle}
        for number in by_number:
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(0):
            self._forget(by_number[number])

    def _drop(self, replica: bytes) -> None:
        """Let go of a replica that hangs, with all its links; batches on them fail."""
        with self._changed:
            for link in [link for link in self._all if link.replica == replica]:
                with contextlib.suppress(OSError):
                    link.socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits on it
                self._forget(link)

    def _forget(self, link: _Link) -> None:
        with self._changed:
            link.socket.close()
            self._all = [one for one in self._all if one is not link]
            self._idle = [one for one in self._idle if one is not link]

    def _accept(self) -> None:
        while True:
            try:
                dialled, _ = self._listening.accept()
            except OSError:
                return  # closed
            if self._hellos.acquire(blocking=False):
                threading.Thread(target=self._enter, args=(dialled,), name="replica's hello", daemon=True).start()
            else:
                dialled.close()  # a replica dials again

    def _enter(self, dialled: socket.socket) -> None:
        """Take on whoever shows the key in time, and nobody else."""
        try:
            dialled.settimeout(HELLO_S)
            hello = wire.receive_exactly(dialled, wire.KEY_BYTES + wire.NAME_BYTES)
            if not hmac.compare_digest(hello[: wire.KEY_BYTES], self.door.key):
                raise EOFError
            dialled.settimeout(PATIENCE_S)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, EOFError):
            dialled.close()
            return
        finally:
            self._hellos.release()
        with self._changed:
            link = _Link(dialled, hello[wire.KEY_BYTES :])
            self._all.append(link)
            self._idle.append(link)
            self._changed.notify_all()
