"""Injections of the link: packets really dropped, addresses changed, flows forgotten, rates that collapse."""

from __future__ import annotations

import re
import signal
import time

import pytest

from injections.invariants import health_of, invariants
from injections.lab import ISTHMUS, Lab, until
from injections.network import Network

BRIEF_S = 2.0
"""A cut of half a second that takes longer, on a starved machine, may outlast what a device waits for a silent server."""
ABSENT = ("network namespaces: ", "tun on the ")
"""What a shaped link says that a machine lacks."""


@pytest.mark.parametrize("how", ["dropped", "cable"])
def test_03_blackout(lab: Lab, net: Network, how: str) -> None:
    """3: every packet is dropped, or the cable pulled; the device answers alone, then the server is used again."""
    server = lab.server(listen=f"{net.server}:0")
    agent = lab.agent(server.address, prefix=net.on_device)
    agent.answered_by("server", 20)
    agent.settle()
    (net.drop if how == "dropped" else net.link_down)()
    agent.answered_by("exit", 60)
    assert "server" not in agent.sources[-30:]
    (net.pass_on if how == "dropped" else net.link_up)()
    agent.answered_by("server", 10)
    invariants([agent], [server])


def test_04_flapping(lab: Lab, net: Network) -> None:
    """4: cuts of half a second, one after the other, cost no answer and no connection."""
    server = lab.server(listen=f"{net.server}:0")
    agent = lab.agent(server.address, prefix=net.on_device)
    agent.answered_by("server", 10)
    agent.settle()
    stretched = 0
    for _ in range(6):
        began_s = time.monotonic()
        net.drop()
        agent.more(12)
        net.pass_on()
        stretched += time.monotonic() - began_s > BRIEF_S
        agent.more(15)
    agent.answered_by("server", 5)
    assert agent.connections <= 1 + stretched
    invariants([agent], [server])


def test_05_half_open(lab: Lab, net: Network) -> None:
    """5: a device dies without a word; its place is free soon, also for the same id at once."""
    server = lab.server("--max-streams", "1", listen=f"{net.server}:0")
    first = lab.agent(server.address, prefix=net.on_device)
    first.answered_by("server", 5)
    net.drop()
    first.kill()
    net.pass_on()
    second = lab.agent(server.address, prefix=net.on_device)
    second.answered_by("server", 20)
    second.settle()
    invariants([second], [server])


def test_06_address_change(lab: Lab, net: Network) -> None:
    """6: the device gets another address in mid-stream, as a phone does between cells."""
    server = lab.server(listen=f"{net.server}:0")
    agent = lab.agent(server.address, prefix=net.on_device)
    agent.answered_by("server", 10)
    agent.settle()
    net.readdress(net.other_address)
    agent.answered_by("exit", 5)
    agent.answered_by("server", 10)
    assert agent.connections == 2
    invariants([agent], [server])


def test_07_forgotten_flow(lab: Lab, net: Network) -> None:
    """7: a NAT forgets the flow, and passes nothing on that it does not remember."""
    net.translate()
    server = lab.server(listen=f"{net.server}:0")
    agent = lab.agent(server.address, prefix=net.on_device)
    agent.answered_by("server", 10)
    agent.settle()
    net.router("ip", "rule", "add", "pref", "1", "blackhole", "iif", "todevice")  # its packets would make a new entry
    net.forget_flows()
    net.router("ip", "rule", "del", "pref", "1")
    agent.until(lambda: agent.connections == 2, "it has connected anew")
    agent.answered_by("server", 10)
    invariants([agent], [server])


def test_07_idle_flow(lab: Lab, net: Network) -> None:
    """7: a NAT forgets what is idle; a stream on which no frame passes is kept alive."""
    net.translate()
    net.forget_after(4)
    server = lab.server(listen=f"{net.server}:0")
    agent = lab.agent(server.address, "--policy", "local-only", prefix=net.on_device)
    agent.until(lambda: agent.connections == 1, "it is connected")
    agent.settle()
    agent.more(150)
    assert set(agent.sources) == {"exit"}
    assert agent.connections == 1
    invariants([agent], [server])


def test_08_lossy_link(lab: Lab) -> None:
    """8: a tenth of the packets lost, half a second of round trip, 200 kbit/s: no frame is late, and every reason is one."""
    trace = lab.folder / "lossy.csv"
    trace.write_text("time_s,up_mbps,down_mbps,rtt_ms,loss\n0,0.2,0.2,500,0.1\n60,0.2,0.2,500,0.1\n")
    server = lab.server()
    link = ("--backend", "tun", "--trace", str(trace), "--to", server.address, "--lag-budget", "5s")
    agent = lab.agent("{server}", deadline="3s", fps=10, frames=100, prefix=[*ISTHMUS, "shape", *link, "--"])
    code = agent.wait()
    if code == 3 and any(absent in agent.log for absent in ABSENT):
        pytest.skip(agent.log.strip())
    assert code == 0, agent.last_words
    assert len(agent.rows) == 100
    assert "server" in agent.sources
    assert not re.search(r": (\(\))?;", agent.log), "a reason that says nothing"
    invariants([agent], [server])


def test_09_rate_collapse(lab: Lab, net: Network) -> None:
    """9: the rate falls to a tenth in the middle of frames, and rises again, over and over."""
    net.rate(200_000)
    server = lab.server(listen=f"{net.server}:0")
    agent = lab.agent(server.address, "--policy", "always-offload", prefix=net.on_device)
    agent.answered_by("server", 10)
    agent.settle()
    for rate in (20_000, 200_000, 20_000, 200_000):
        net.rate(rate)
        agent.more(20)
    agent.answered_by("server", 5)
    invariants([agent], [server])


def test_02_frozen(lab: Lab) -> None:
    """2: the server's process stands still, its connections open; the device goes on, and comes back when it wakes."""
    server = lab.server()
    agent = lab.agent(server.address)
    agent.answered_by("server", 20)
    agent.settle()
    server.signal(signal.SIGSTOP)
    agent.answered_by("exit", 60)
    assert health_of(server, 1.0) is None
    server.signal(signal.SIGCONT)
    agent.answered_by("server", 10)
    invariants([agent], [server])


def test_01_killed(lab: Lab) -> None:
    """1: the server is killed in mid-stream and started again; the device answers, and uses it again."""
    first = lab.server()
    agent = lab.agent(first.address)
    agent.answered_by("server", 20)
    agent.settle()
    first.kill()
    agent.answered_by("exit", 20)
    second = lab.server(listen=first.address)
    agent.answered_by("server", 10)
    until(lambda: agent.connections == 2, "it has connected anew", of=[agent])
    invariants([agent], [second])
