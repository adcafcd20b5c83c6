"""Injections of one server out of several: killed, drained, frozen, wrong, absent; and lists that are not what they seem."""

from __future__ import annotations

import signal
import sys

import pytest

from injections.invariants import invariants
from injections.lab import Agent, Lab, Server, free_address
from injections.machine import CpuWaits


def listed(*servers: Server | str) -> str:
    """What `--server` takes."""
    return ",".join(server if isinstance(server, str) else server.address for server in servers)


def two(lab: Lab, *more: str) -> tuple[Agent, Server, Server]:
    """An agent with two servers, one that is used and one that stands by, both warm."""
    servers = lab.server(), lab.server()
    agent = lab.agent(listed(*servers), "--policy", "always-offload", *more, deadline="600ms")
    agent.until(lambda: agent.connections == 2, "both have taken it on")
    agent.answered_by("server", 20)
    agent.settle()
    used = agent.rows[-1]["server"]
    first, second = sorted(servers, key=lambda server: server.address != used)
    return agent, first, second


def fallen_back(agent: Agent, start: int, *waits: CpuWaits) -> list[str]:
    """The answers from the row `start` on that came from the device, though the machine kept nobody from its CPUs for long.

    A frame that no server had room for fell back because of those before it: what kept those counts, too.
    """
    told = []
    for row in agent.rows[start:]:
        if row["source"] == "exit":
            allowed_s = row["deadline_s"] - row["captured_s"]
            begin_s, end_s = row["captured_s"] - allowed_s * (row["reason"] == "busy"), row["answered_s"]
            kept_s = max(w.between(begin_s, end_s) for w in (agent.waits, *waits))
            if kept_s < 0.25 * (end_s - begin_s):
                told.append(
                    f"{row['frame_id']}: {row['reason']} after {end_s - begin_s:.3f} s, CPUs kept for {kept_s:.3f} s"
                )
    return told


@pytest.mark.parametrize("how", ["killed", "drained", "frozen"])
def test_40_with_a_standby(lab: Lab, how: str) -> None:
    """40: the server that is used is killed, drained or frozen: the standby answers, and one frame falls back at most."""
    agent, used, standby = two(lab)
    start, waits = len(agent.rows), CpuWaits(standby.pid)
    used.signal({"killed": signal.SIGKILL, "drained": signal.SIGTERM, "frozen": signal.SIGSTOP}[how])
    agent.until(lambda: agent.rows[-1].get("server") == standby.address, "the standby answers")
    agent.more(60)
    waits.close()
    assert len(fell := fallen_back(agent, start, waits)) <= 1, fell
    if how == "frozen":
        used.signal(signal.SIGCONT)
    invariants([agent], [standby])


HANGING = """
import pathlib, sys, time
from isthmus.edge_server import engines
flag, run = pathlib.Path(sys.argv.pop(1)), engines.Tail.run

def waiting(tail, frames):
    while flag.exists():
        time.sleep(0.02)
    return run(tail, frames)

engines.Tail.run, sys.argv[0] = waiting, "isthmus"
from isthmus.cli.main import main
main()
"""


def test_40_a_tail_that_hangs(lab: Lab) -> None:
    """40: a tail hangs, and its server acknowledges frames as ever: the standby answers what it has taken, and what comes."""
    flags = [lab.folder / f"hang-{number}" for number in range(2)]
    servers = [lab.server(program=(sys.executable, "-c", HANGING, str(flag))) for flag in flags]
    agent = lab.agent(listed(*servers), "--policy", "always-offload", deadline="600ms")
    agent.until(lambda: agent.connections == 2, "both have taken it on")
    agent.answered_by("server", 20)
    used = next(number for number, server in enumerate(servers) if server.address == agent.rows[-1]["server"])
    start, waits = len(agent.rows), CpuWaits(servers[1 - used].pid)
    flags[used].touch()
    agent.until(lambda: agent.rows[-1].get("server") == servers[1 - used].address, "the standby answers")
    agent.more(30)
    waits.close()
    assert len(fell := fallen_back(agent, start, waits)) <= 1, fell
    flags[used].unlink()
    invariants([agent], servers)


def test_40_both_gone(lab: Lab) -> None:
    """40: both servers are gone: the device answers, and the first that comes back is used."""
    agent, used, standby = two(lab)
    standby.kill()
    used.kill()
    agent.answered_by("exit", 40)
    assert "server" not in agent.sources[-20:]
    back = lab.server(listen=standby.address)
    agent.answered_by("server", 20)
    assert agent.rows[-1]["server"] == back.address
    invariants([agent], [back])


def test_40_one_wrong_bundle(lab: Lab) -> None:
    """40: one of the list serves another bundle: it is named in the log, and the others are used."""
    wrong, right = lab.server(bundle="cifar10"), lab.server()
    agent = lab.agent(listed(wrong, right), "--policy", "always-offload")
    agent.until(lambda: "cifar10" in agent.log, "the other bundle is named")
    agent.answered_by("server", 30)
    assert {row["server"] for row in agent.rows if row["source"] == "server"} == {right.address}
    agent.settle()
    invariants([agent], [right])


def test_40_all_wrong_bundles(lab: Lab) -> None:
    """40: every server of the list serves another bundle: that is an error of whoever set it up, and ends the agent."""
    wrong = lab.server(bundle="cifar10"), lab.server(bundle="cifar10")
    agent = lab.agent(listed(*wrong))
    assert agent.wait() == 8, agent.last_words
    assert "cifar10" in agent.log


@pytest.mark.parametrize("other", ["no-such-host.invalid:50551", "{free}"])
def test_40_a_name_that_leads_nowhere(lab: Lab, other: str) -> None:
    """40: a name of the list does not resolve, or nobody listens there: said once, and the others are used."""
    server = lab.server()
    nowhere = other.format(free=free_address())
    agent = lab.agent(listed(nowhere, server), "--policy", "always-offload")
    agent.answered_by("server", 30)
    agent.until(lambda: nowhere in agent.log, "it is named")
    agent.settle()
    agent.more(60)
    assert sum(nowhere in line for line in agent.log.splitlines()) == 1
    invariants([agent], [server])


def test_40_found_by_mdns(lab: Lab) -> None:
    """40: servers announce themselves; the one with the agent's bundle is used, the other one is not, and none is named."""
    pytest.importorskip("zeroconf")
    other, server = lab.server("--announce", bundle="cifar10"), lab.server("--announce")
    agent = lab.agent(None, "--discover", "--insecure", "--policy", "always-offload")
    agent.answered_by("server", 30)
    assert {row["server"] for row in agent.rows if row["source"] == "server"} == {server.address}
    assert other.address not in agent.log
    assert server.end() == 0
    agent.answered_by("exit", 10)
    again = lab.server("--announce")
    agent.answered_by("server", 10)
    assert agent.rows[-1]["server"] == again.address
    agent.settle()
    invariants([agent], [again, other])


def test_40_duplicates(lab: Lab) -> None:
    """40: the same address twice is one server, with one stream."""
    server = lab.server()
    agent = lab.agent(f"{server.address}, {server.address},", "--policy", "always-offload")
    agent.answered_by("server", 60)
    assert agent.connections == 1
    agent.settle()
    invariants([agent], [server])


@pytest.mark.parametrize(
    "no_list", ["127.0.0.1:1 127.0.0.1:2", "localhost", "127.0.0.1:1,edge", "127.0.0.1:70000", ","]
)
def test_40_what_is_no_list(lab: Lab, no_list: str) -> None:
    """40: what is no list of addresses is refused by name rather than dialled in vain."""
    agent = lab.run("agent", "--server", no_list, "--insecure", "--frames", "2")
    assert agent.process.returncode == 3, agent.last_words
    assert "server" in agent.log
    assert "HOST:PORT" in agent.log
