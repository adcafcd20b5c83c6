"""Injections of the tail: it raises, gives no numbers, hangs, takes the process with it."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from grpc_health.v1 import health_pb2

from injections import tails
from injections.invariants import health_of, invariants
from injections.lab import Lab, until

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("make", [tails.raising, tails.nan], ids=["raises", "no numbers"])
def test_26_failing_tail(lab: Lab, make: Callable[[], bytes]) -> None:
    """26: every batch fails: the device answers, the server says so in a line and in its health, not in a thousand lines."""
    broken = tails.bundle(lab.folder / "broken", make())
    server = lab.server(bundle=broken)
    agent = lab.agent(server.address, "--policy", "always-offload", bundle=broken)
    agent.settle()
    agent.answered_by("exit", 60)
    until(lambda: health_of(server) == NOT_SERVING, "health says that nothing works", of=[server, agent])
    assert "tail" in server.log
    assert "server" not in agent.sources
    invariants([agent], [server], health=False, log_lines=12)


def test_26_hung_tail(lab: Lab) -> None:
    """26: the tail hangs: it is declared dead, the device answers, and SIGTERM ends the server within its grace."""
    broken = tails.bundle(lab.folder / "broken", tails.looping(1e12))
    server = lab.server("--grace", "2s", bundle=broken)
    agent = lab.agent(server.address, "--policy", "always-offload", bundle=broken)
    agent.settle()
    agent.answered_by("exit", 30)
    until(lambda: health_of(server) == NOT_SERVING, "the tail is declared dead", of=[server, agent])
    server.end()  # for what the tail does, it would be days
    agent.answered_by("exit", 10)
    assert "Traceback" not in server.log
    invariants([agent], [], log_lines=20)


def test_26_tail_takes_the_process(lab: Lab) -> None:
    """26: the tail's runtime crashes and takes the server with it: the device goes on, and uses the next one."""
    first = lab.server()
    agent = lab.agent(first.address)
    agent.answered_by("server", 10)
    agent.settle()
    first.signal(signal.SIGSEGV)
    assert first.wait() == -signal.SIGSEGV
    agent.answered_by("exit", 10)
    second = lab.server(listen=first.address)
    agent.answered_by("server", 10)
    invariants([agent], [second])
