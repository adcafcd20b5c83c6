"""One replica of a tail, on whatever machine Ray put it: it dials the server that it is for, and answers its batches.

Ray places replicas, starts others in place of those that die, and says how many there are. Batches do not go through it: a
call of Ray Serve costs some ten milliseconds of processor time between both ends, one over a connection a hundredth of that.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.edge_server.engines import Engine
from isthmus.edge_server.scale_out import batch_messages as wire

DEPTH = 2
"""Links of a replica: one batch runs while the next is on its way, or waits beside it."""
DIAL_S = 5.0
"""How long the server may take to pick up."""
REDIAL_S = 1.0
"""A server that has let go of a link is dialled again after so long; one that is gone is gone with its replicas soon."""
LEAVE_S = 2.0
"""What a replica that is told to end may take for the batches it has."""


@dataclass(frozen=True)
class Door:
    """Where a server's replicas dial in, and the key that they show."""

    host: str
    port: int
    key: bytes = field(repr=False)


class Replica:
    """A tail and its links. Ray Serve makes it, asks it how busy it is, and calls `__del__` before its process ends."""

    def __init__(self, make: Callable[[], Engine], door: Door) -> None:
        """`make` makes the tail here. Raises ConnectionError where the server cannot be reached from this machine."""
        self._leaving, self._speaking, self._turn = threading.Event(), threading.Lock(), threading.Lock()
        self._links: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._engine, self._door = make(), door
        self._name = secrets.token_bytes(wire.NAME_BYTES)
        self._worked_s, self._asked_s, self._worked_until_asked_s = 0.0, time.monotonic(), 0.0
        self._links += [self._dialled() for _ in range(DEPTH)]
        self._threads += [
            threading.Thread(target=self._serve, args=(n,), name="link", daemon=True) for n in range(DEPTH)
        ]
        for thread in self._threads:
            thread.start()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For what share of the time it was at work since it was last asked; Ray Serve knows the method by this name."""
        now, worked_s = time.monotonic(), self._worked_s
        share = (worked_s - self._worked_until_asked_s) / max(1e-6, now - self._asked_s)
        self._asked_s, self._worked_until_asked_s = now, worked_s
        return {"busy": min(1.0, share)}

    def __del__(self) -> None:
        """Take no more batches, and answer those that are here."""
        self._leaving.set()
        for link in self._links:
            with contextlib.suppress(OSError):
                self._say(link, wire.Leaving())
        for thread in self._threads:
            thread.join(LEAVE_S)

    def _serve(self, number: int) -> None:
        """Answer what comes on a link, and dial again where it is lost, until the replica is told to end."""
        while True:
            with contextlib.suppress(OSError, EOFError):
                self._answer_all(self._links[number])
            self._links[number].close()
            if self._leaving.wait(REDIAL_S):
                return
            with contextlib.suppress(OSError):
                self._links[number] = self._dialled()

    def _answer_all(self, link: socket.socket) -> None:
        while True:
            self._say(link, self._answered(wire.receive(link)))

    def _answered(self, message: bytes) -> wire.Said:
        try:
            frames = wire.unpacked_batch(message)
            with self._turn:  # an engine knows one caller
                began_s = time.monotonic()
                answers = self._engine.run(frames)
                self._worked_s += time.monotonic() - began_s
            return wire.answers_of(answers)
        except Exception as error:  # whatever an engine throws costs its batch
            return wire.Failed(f"{type(error).__name__}: {error}")

    def _say(self, link: socket.socket, said: wire.Said) -> None:
        message = wire.packed_said(said)
        with self._speaking:
            wire.send(link, message)

    def _dialled(self) -> socket.socket:
        try:
            link = socket.create_connection((self._door.host, self._door.port), DIAL_S)
        except OSError as error:
            where = f"{self._door.host}:{self._door.port}"
            raise ConnectionError(f"the server at {where} cannot be reached from here: {error}") from error
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(self._door.key + self._name)
        link.settimeout(None)
        return link
