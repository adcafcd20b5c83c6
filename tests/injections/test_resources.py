"""Injections of what a process may have: descriptors, memory; and a soak, in which nothing may grow."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

from injections.invariants import grown, invariants
from injections.lab import HERE, Lab
from injections.machine import limited, usage
from injections.peers import Peer, channel, hello

MEMORY_BYTES = 256 << 20
STEADY_BYTES = 12 << 20
"""What a process may take in the second half of a soak."""


class Cutter:
    """A proxy in front of a server, whose connections can all be cut at once."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server((HERE, 0))
        self.address = f"{HERE}:{self._listener.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while raw := source.recv(65_536):
                sink.sendall(raw)

    def cut(self) -> None:
        """End every connection, both ways."""
        while self._pairs:
            for end in self._pairs.pop():
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def test_37_soak(lab: Lab) -> None:
    """37: cut after cut, cancel after cancel, beside a steady device: nothing grows, nothing is lost."""
    rng = random.Random(37)
    server = lab.server()
    with contextlib.closing(Cutter(server.address)) as cutter:
        steady, harried = lab.agent(server.address), lab.agent(cutter.address, client_id="cam1")
        for agent in (steady, harried):
            agent.answered_by("server", 10)
            agent.settle()
        server.settle()
        for half in range(2):
            for _ in range(10):
                cutter.cut()
                with channel(server.address) as own:
                    for peer in [Peer(own).greeted(hello(client_id=f"raw{n}")) for n in range(5)]:
                        peer.close()
                harried.more(rng.randrange(15, 30))
            for role in (server, steady, harried):
                grown(role, STEADY_BYTES if half else 48 << 20)
                role.settle()
        harried.answered_by("server", 5)
        assert harried.connections >= 10
        invariants([steady, harried], [server], log_lines=400)


def test_38_descriptors(lab: Lab) -> None:
    """38: few descriptors, and more connections than that: the device answers alone, and is served when they are gone."""
    server = lab.server(prefix=("prlimit", "--nofile=128:128"))
    host, _, port = server.address.rpartition(":")
    idle: list[socket.socket] = []
    for _ in range(200):
        with contextlib.suppress(OSError):
            idle.append(socket.create_connection((host, int(port)), timeout=1))
    agent = lab.agent(server.address)
    agent.more(30)
    for connection in idle:
        connection.close()
    agent.answered_by("server", 10)
    agent.settle()
    invariants([agent], [server], log_lines=300)


def test_38_memory(lab: Lab) -> None:
    """38: both halves in little memory."""
    server = lab.server()
    agent = lab.agent(server.address)
    with limited([server.pid, agent.pid], memory_bytes=MEMORY_BYTES):
        agent.answered_by("server", 60)
        agent.settle()
        assert usage(server.pid).rss_bytes + usage(agent.pid).rss_bytes < 2 * MEMORY_BYTES
        invariants([agent], [server])
