"""`isthmus serve --engine ray` with a real Ray: answers as the plain server's, and a replica that is killed at work."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from injections.lab import Lab, until

pytestmark = [
    pytest.mark.alone("ray"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="no /proc, where Ray's replicas are found"),
]
RAY_S = 150.0
"""Ray takes long to start, and longer beside other tests."""
ROOM = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.1")


def replicas(server: int) -> list[int]:
    """The processes of this server's replicas, which are named after it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").strip("\0 ")
        except OSError:
            continue
        if words.startswith("ray::ServeReplica") and words.endswith(f"-{server}:tail"):
            found.append(int(path.parent.name))
    return found


def test_a_replica_that_is_killed_costs_its_batch_s_frames_and_nothing_more(lab: Lab) -> None:
    server = lab.server(*ROOM, patience_s=RAY_S)
    assert len(replicas(server.pid)) == 2
    agent = lab.agent(server.address, frames=400, fps=40, source="generated:3")
    agent.answered_by("server", 20)
    victim = replicas(server.pid)[0]
    os.kill(victim, signal.SIGKILL)
    agent.answered_by("server", 20)
    until(lambda: len(set(replicas(server.pid)) - {victim}) == 2, "Ray starts another", of=[server], limit_s=RAY_S)
    assert agent.wait() == 0
    assert sorted(row["frame_id"] for row in agent.rows) == list(range(400)), "every frame has one answer"
    assert sum(row["source"] != "server" and row["reason"] == "invalid" for row in agent.rows) <= 8
    assert agent.connections == 1
    assert server.end() == 0
    until(lambda: not replicas(server.pid), "its replicas end with it")
