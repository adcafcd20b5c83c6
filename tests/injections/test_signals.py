"""Injections of signals, ports and configurations."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import grpc
import pytest

from injections import tails
from injections.invariants import invariants, oracle, quiet
from injections.lab import HERE, Lab, Role, free_address
from injections.machine import signal_waits
from injections.peers import Peer, channel, hello, impostor, layer, said
from isthmus.proto import edge_pb2 as pb
from isthmus.proto import messages as m
from isthmus.proto import record


def test_29_drain(lab: Lab) -> None:
    """29: SIGTERM with frames in flight: they are answered, new ones refused, the devices go on alone."""
    slow = tails.bundle(lab.folder / "slow", tails.slow(0.15))
    server = lab.server("--grace", "10s", bundle=slow)
    agents = [
        lab.agent(server.address, "--policy", "always-offload", deadline="3s", fps=4, bundle=slow, client_id=f"cam{n}")
        for n in range(3)
    ]
    for agent in agents:
        agent.answered_by("server", 2)
        agent.settle()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.last_words
    for agent in agents:
        agent.answered_by("exit", 4)
    invariants(agents, [server])


SECOND = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""What a second signal ends a process with."""


@pytest.mark.parametrize("number", SECOND)
def test_30_second_signal_to_a_server(lab: Lab, number: signal.Signals) -> None:
    """30: a second signal ends a server that drains at once, by a documented code and not by the signal."""
    hung = tails.bundle(lab.folder / "hung", tails.looping(1e12))
    source = oracle(hung)
    server = lab.server("--grace", "60s", bundle=hung)
    with channel(server.address) as own:
        peer = Peer(own).greeted(hello(source))
        peer.say(layer(1, source.payloads(source.picture(5, 40))[0]))
        assert isinstance(peer.hear(), m.Ack)
        server.signal(signal.SIGTERM)
        assert isinstance(peer.hear(), m.Drain)
        server.signal(number)
        assert server.wait() == SECOND[number], server.last_words
    quiet(server)


@pytest.mark.parametrize("number", SECOND)
def test_30_second_signal_to_an_agent(lab: Lab, number: signal.Signals) -> None:
    """30: a second signal ends an agent at once that still waits for answers, by a documented code and not by the signal."""
    asked = threading.Event()

    def mute(requests: Iterator[pb.DeviceMessage], _: grpc.ServicerContext) -> Iterator[bytes]:
        for message in requests:
            if message.HasField("hello"):
                yield said(m.Welcome("edge", 64, 65_536))
            elif message.HasField("heartbeat"):
                yield said(m.ServerHeartbeat(message.heartbeat.sequence))
            elif message.HasField("layer"):
                asked.set()

    with impostor(mute) as address:
        agent = lab.agent(address, "--policy", "always-offload", deadline="50s")
        agent.until(asked.is_set, "a frame is away")
        agent.signal(signal.SIGTERM)
        agent.until(lambda: not signal_waits(agent.pid, signal.SIGTERM), "it has heard the first")
        agent.signal(number)
        assert agent.wait() == SECOND[number], agent.last_words
    quiet(agent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_30_once(lab: Lab, number: signal.Signals) -> None:
    """30: one signal: the code says which, the record is whole, nothing is lost."""
    server = lab.server()
    path = lab.folder / "run.jsonl"
    agent = lab.agent(server.address, "--record", str(path))
    agent.answered_by("server", 10)
    for role, codes in (
        (agent, {signal.SIGINT: 130, signal.SIGTERM: 0}),
        (server, {signal.SIGINT: 130, signal.SIGTERM: 0}),
    ):
        role.signal(number)
        assert role.wait() == codes[number], role.last_words
    run = record.load(path)
    assert run.cut_lines == 0
    assert len(run.records) == len(agent.rows)
    invariants([agent], [server])


def test_30_hangup(lab: Lab) -> None:
    """30: SIGHUP never ends anything: it reloads, and the stream goes on."""
    server = lab.server()
    agent = lab.agent(server.address)
    agent.answered_by("server", 10)
    agent.settle()
    for role in (server, agent):
        role.signal(signal.SIGHUP)
    agent.answered_by("server", 20)
    assert agent.connections == 1
    invariants([agent], [server])


AT_ONCE = 3
"""Processes that are started side by side."""
CONFIGURATIONS: dict[str, tuple[Sequence[str], int, str]] = {
    "no certificates": (("serve",), 9, "--insecure"),
    "unknown bundle": (("serve", "--insecure", "--bundle", "sings"), 4, "sings: no bundle"),
    "no port": (("serve", "--insecure", "--listen", "localhost"), 3, "HOST:PORT"),
    "port too high": (("serve", "--insecure", "--listen", "127.0.0.1:70000"), 3, "HOST:PORT"),
    "metrics": (("serve", "--insecure", "--listen", "127.0.0.1:0", "--metrics", "here"), 3, "HOST:PORT"),
    "threads": (("serve", "--insecure", "--listen", "127.0.0.1:0", "--threads", "100000"), 3, "threads"),
    "batch": (("serve", "--insecure", "--listen", "127.0.0.1:0", "--max-batch", "1000000"), 3, "max_batch"),
    "no batch": (("serve", "--insecure", "--max-batch", "0"), 3, "max_batch"),
    "credits": (("serve", "--insecure", "--credits", "-1"), 3, "credits"),
    "streams": (("serve", "--insecure", "--max-streams", "0"), 3, "max_streams"),
    "grace": (("serve", "--insecure", "--grace", "soon"), 3, "--grace"),
    "engine": (("serve", "--insecure", "--listen", "127.0.0.1:0", "--engine", "cuda"), 3, "engine"),
    "both postures": (("serve", "--insecure", "--certs", "certs"), 3, "insecure"),
    "agent's threads": (("agent", "--frames", "1", "--threads", "100000"), 3, "threads"),
    "agent's deadline": (("agent", "--frames", "1", "--deadline", "0s"), 3, "deadline_s"),
    "agent's pace": (("agent", "--frames", "1", "--fps", "0"), 3, "fps"),
    "agent's policy": (("agent", "--frames", "1", "--policy", "best"), 3, "policy"),
    "agent's server": (("agent", "--frames", "1", "--insecure", "--server", "localhost"), 3, "HOST:PORT"),
    "agent's source": (("agent", "--source", "nowhere"), 6, "nowhere"),
    "agent's filter": (("agent", "--frames", "1", "--filter", "nowhere"), 4, "nowhere"),
    "agent's profile": (("agent", "--frames", "1", "--as-device", "pi9"), 3, "pi9"),
}


def test_31_configuration(lab: Lab) -> None:
    """31: what cannot be is refused at once, in a line that names it, with its code."""
    for names in zip_longest(*[iter(CONFIGURATIONS)] * AT_ONCE):
        started = {name: lab.role(*CONFIGURATIONS[name][0]) for name in names if name is not None}
        for name, refused in started.items():
            _, code, said = CONFIGURATIONS[name]
            assert refused.wait() == code, f"{name}: {refused.last_words}"
            assert said in " ".join(refused.log.split()), f"{name}: {refused.last_words}"
            quiet(refused, 12)


def test_31_port_in_use(lab: Lab) -> None:
    """31: a second server on the same port, or metrics on a port that is taken, is refused; the first goes on."""
    server = lab.server()
    second = lab.run("serve", "--insecure", "--listen", server.address)
    assert second.process.returncode == 7
    assert "in use" in second.log
    with socket.create_server((HERE, 0)) as taken:
        where = f"{HERE}:{taken.getsockname()[1]}"
        third: Role = lab.run("serve", "--insecure", "--listen", free_address(), "--metrics", where)
    assert third.process.returncode == 7
    agent = lab.agent(server.address)
    agent.answered_by("server", 5)
    agent.settle()
    invariants([agent], [server])
