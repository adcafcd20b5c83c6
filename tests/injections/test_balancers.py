"""The balancers' configurations that ship, with the real programs in front of real servers, and real agents behind them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from injections.lab import HERE, Agent, Lab, Role, Server, free_address, until
from isthmus.edge_server import security

EXAMPLES = Path(__file__).parents[2] / "examples/balancers"
NGINX = "daemon off; master_process off; error_log stderr; pid nginx.pid;"
PROGRAMS = {
    "haproxy.cfg": ("haproxy", "-db", "-f"),
    "haproxy-passthrough.cfg": ("haproxy", "-db", "-f"),
    "nginx.conf": ("nginx", "-g", NGINX, "-e", "stderr", "-p", ".", "-c"),
    "envoy.yaml": ("envoy", "--log-level", "warning", "--disable-hot-restart", "-c"),
}
AGE = "2s"
WELCOME = re.compile(r"'(cam\d)' at .*: welcome")


class Site:
    """A balancer by one of the shipped files, two servers that may be started behind it, and devices."""

    def __init__(self, lab: Lab, example: str) -> None:
        program = PROGRAMS[example]
        if shutil.which(program[0]) is None:
            pytest.skip(f"{program[0]} is not installed")
        self.lab, self.example = lab, example
        self.certs = lab.folder / "certs"
        security.init(self.certs, [HERE])
        security.add_balancer(self.certs, [HERE])
        self.address, self.places, self.pages = (
            free_address(),
            [free_address(), free_address()],
            [free_address(), free_address()],
        )

    def configuration(self) -> str:
        """The example with this machine's addresses and files, and nothing else changed."""
        text = (EXAMPLES / self.example).read_text()
        text = text.replace("/etc/isthmus/balancer", str(self.certs / "balancer")).replace("port 9464 ", "")
        text = re.sub(r"(bind |listen )[*:]*50551", rf"\g<1>{self.address}", text)
        text = text.replace(in_envoy("0.0.0.0:50551"), in_envoy(self.address))
        for number, (place, page) in enumerate(zip(self.places, self.pages, strict=True), start=1):
            port = f" port {page.rpartition(':')[2]}" if self.example.startswith("haproxy") else ""
            text = text.replace(f"192.168.1.2{number}:50551", place + port)
            text = text.replace(in_envoy(f"192.168.1.2{number}:50551"), in_envoy(place))
        return text

    def balance(self, *changes: tuple[str, str]) -> Role:
        """Start the balancer, with some lines changed."""
        text = self.configuration()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = self.lab.folder / self.example
        path.write_text(text)
        *words, flag = PROGRAMS[self.example]
        words = [str(self.lab.folder) if word == "." else word for word in words]
        return self.lab.role(flag, str(path), program=words, stdout=subprocess.DEVNULL)

    def serve(self, number: int, *more: str) -> Server:
        """Start a server."""
        place, page = self.places[number], self.pages[number]
        return self.lab.server("--certs", str(self.certs / "server"), "--metrics", page, *more, listen=place)

    def device(self, name: str, frames: int | None = None, fps: float = 20) -> Agent:
        """Start a device with a certificate of its own."""
        security.add_device(self.certs, name)
        place = str(self.certs / "devices" / name)
        return self.lab.agent(self.address, "--certs", place, client_id=name, frames=frames, fps=fps)


def in_envoy(place: str) -> str:
    """An address as Envoy's file says it."""
    host, _, port = place.rpartition(":")
    return f"address: {host}, port_value: {port}"


def welcomed(server: Server) -> list[str]:
    """The devices that a server took on, in order."""
    return WELCOME.findall(server.log)


def each_once(agent: Agent) -> bool:
    """Whether every frame of an agent that has ended was answered, once."""
    return sorted(row["frame_id"] for row in agent.rows) == list(range(len(agent.rows)))


@pytest.mark.parametrize("example", PROGRAMS)
def test_streams_spread_over_a_server_that_comes_and_leave_one_that_goes(lab: Lab, example: str) -> None:
    site = Site(lab, example)
    first = site.serve(0, "--stream-age", AGE)
    balancer = site.balance()
    agents = [site.device(f"cam{number}") for number in (1, 2)]
    for agent in agents:
        agent.answered_by("server", 3)
    assert set(welcomed(first)) == {"cam1", "cam2"}, "each under the name in its own certificate"
    second = site.serve(1, "--stream-age", AGE)
    until(lambda: welcomed(second), "a stream moves to the new server", of=[balancer, *agents])
    assert first.end() == 0
    until(lambda: set(welcomed(second)) == {"cam1", "cam2"}, "all of them are there", of=[balancer, *agents])
    for agent in agents:
        agent.answered_by("server", 3)
        assert agent.end() == 0
        assert each_once(agent)
        assert all(row["on_time"] for row in agent.rows if row["source"] == "server")
    assert "Traceback" not in first.log + second.log


IDLE = {
    "haproxy.cfg": ("timeout client", "timeout server"),
    "nginx.conf": ("client_body_timeout", "grpc_read_timeout"),
    "envoy.yaml": ("stream_idle_timeout:",),
}


@pytest.mark.parametrize("example", IDLE)
def test_a_balancer_that_cuts_idle_streams_costs_no_frame(lab: Lab, example: str) -> None:
    changes = [
        (f"{line} 10s", f"{line} 0.2s" if example == "envoy.yaml" else f"{line} 200ms") for line in IDLE[example]
    ]
    frames, site = 12, Site(lab, example)
    site.serve(0)
    site.balance(*changes)
    agent = site.device("cam1", frames, fps=2)  # the beats, one each half second, are too seldom for it
    assert agent.wait() == 0
    assert len(agent.rows) == frames
    assert each_once(agent)
    assert agent.connections > 2, "it was cut again and again"
    assert "server" in agent.sources, "and came again each time"


@pytest.mark.parametrize("example", ["haproxy.cfg", "envoy.yaml"])
def test_a_device_cannot_say_that_it_is_another(lab: Lab, example: str) -> None:
    site = Site(lab, example)
    server = site.serve(0)
    balancer = site.balance()
    security.add_device(site.certs, "cam1")
    agent = lab.agent(site.address, "--certs", str(site.certs / "devices/cam1"), client_id="cam2")
    refused = "client id 'cam2', but the certificate is for 'cam1'"
    until(lambda: refused in server.log, "it is refused by the name that the balancer says", of=[balancer])
    agent.kill()
    assert not welcomed(server)
    assert "server" not in agent.sources
