"""A small network of the kernel's own: device, router and server, each in a namespace, so that packets are really dropped.

The server's side is reached from this process too. Nothing of the machine's own network is touched but one interface and one
route, both in the range that is set aside for benchmarks (RFC 2544), and both gone at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

from injections.machine import UnavailableError

SERVER, ROUTER_UP = "198.18.{}.1", "198.18.{}.2"
ROUTER_DOWN, DEVICE, OTHER_DEVICE = "198.18.{}.129", "198.18.{}.130", "198.18.{}.166"
NUMBERS = 250


def run(*arguments: str) -> str:
    """A short command's output. Raises UnavailableError when there is no such program, RuntimeError when it fails."""
    where = shutil.which(arguments[0], path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if where is None:
        raise UnavailableError(f"{arguments[0]}: not installed")
    done = subprocess.run([where, *arguments[1:]], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout


def possible(*arguments: str) -> str:
    """The same for what a machine may not allow. Raises UnavailableError also when it fails."""
    try:
        return run(*arguments)
    except RuntimeError as error:
        raise UnavailableError(str(error)) from error


def _free_number() -> int:
    """A number that no other network of this machine has: who could make the router's namespace of that number has it."""
    for number in range(NUMBERS):
        try:
            possible("ip", "netns", "add", f"isthmus{number}r")
        except UnavailableError as error:
            if "exists" in str(error):
                continue
            raise
        return number
    raise UnavailableError(
        f"network namespaces: all {NUMBERS} numbers are taken; `ip netns del` frees those that were left"
    )


class Network:
    """Server (this namespace), router, device: `with Network() as net:`. Raises UnavailableError, which says what is missing."""

    def __enter__(self) -> Network:
        number = _free_number()
        self.server, self.device = SERVER.format(number), DEVICE.format(number)
        self._number, self._up, self._down = number, f"ist{number}u", f"ist{number}d"
        self.router_ns, self.device_ns = f"isthmus{number}r", f"isthmus{number}d"
        try:
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _build(self) -> None:
        number, up, down = self._number, self._up, self._down
        possible("ip", "netns", "add", self.device_ns)
        for name in (self.router_ns, self.device_ns):
            self.inside(name, "ip", "link", "set", "lo", "up")
        possible("ip", "link", "add", up, "type", "veth", "peer", "name", "toserver", "netns", self.router_ns)
        run("ip", "addr", "add", f"{self.server}/30", "dev", up)
        run("ip", "link", "set", up, "up")
        self.inside(self.router_ns, "ip", "addr", "add", f"{ROUTER_UP.format(number)}/30", "dev", "toserver")
        self.inside(self.router_ns, "ip", "link", "set", "toserver", "up")
        self.router("ip", "link", "add", "todevice", "type", "veth", "peer", "name", down, "netns", self.device_ns)
        self.router("ip", "addr", "add", f"{ROUTER_DOWN.format(number)}/25", "dev", "todevice")
        self.router("ip", "link", "set", "todevice", "up")
        self.router("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        self.readdress(self.device)
        run("ip", "route", "add", f"198.18.{number}.128/25", "via", ROUTER_UP.format(number), "dev", up)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The router last: with it goes the number.
        for undo in (("link", "del", self._up), ("netns", "del", self.device_ns), ("netns", "del", self.router_ns)):
            subprocess.run(["ip", *undo], capture_output=True)

    @property
    def on_device(self) -> list[str]:
        """What a command is preceded by that is to run on the device."""
        return ["ip", "netns", "exec", self.device_ns]

    def inside(self, namespace: str, *arguments: str) -> str:
        """Run a command in a namespace."""
        return run("ip", "netns", "exec", namespace, *arguments)

    def router(self, *arguments: str) -> str:
        """Run a command on the router."""
        return self.inside(self.router_ns, *arguments)

    def readdress(self, address: str) -> None:
        """Give the device this address and no other: the route through the router goes with it."""
        for command in (
            ("addr", "flush", "dev", self._down),
            ("addr", "add", f"{address}/25", "dev", self._down),
            ("link", "set", self._down, "up"),
            ("route", "replace", "default", "via", ROUTER_DOWN.format(self._number)),
        ):
            self.inside(self.device_ns, "ip", *command)

    @property
    def other_address(self) -> str:
        """Another address that the device may have."""
        return OTHER_DEVICE.format(self._number)

    def drop(self) -> None:
        """From now on the router loses every packet, both ways, and says nothing."""
        self.router("ip", "rule", "add", "pref", "1", "blackhole")

    def pass_on(self) -> None:
        """The router passes packets on again."""
        self.router("ip", "rule", "del", "pref", "1")

    def link_down(self) -> None:
        """Pull the device's cable: its carrier goes."""
        self.router("ip", "link", "set", "todevice", "down")

    def link_up(self) -> None:
        """Plug it in again."""
        self.router("ip", "link", "set", "todevice", "up")

    def rate(self, bits_per_second: int) -> None:
        """What the router lets through, each way."""
        for side in ("toserver", "todevice"):
            shape = ("tbf", "rate", f"{bits_per_second}bit", "burst", "1600", "latency", "400ms")
            self.router("tc", "qdisc", "replace", "dev", side, "root", *shape)

    def translate(self) -> None:
        """The router hides the device behind its own address, and passes on only what belongs to a flow that it remembers."""
        self.router("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "toserver", "-j", "MASQUERADE")
        tracked = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
        self.router("iptables", "-A", "FORWARD", *tracked)
        self.router("iptables", "-A", "FORWARD", "-p", "tcp", "--syn", "-j", "ACCEPT")
        self.router("iptables", "-A", "FORWARD", "-j", "DROP")
        self.router("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0")

    def forget_flows(self) -> None:
        """The router's table of flows is lost, as when it is restarted."""
        self.router("conntrack", "-F")

    def forget_after(self, idle_s: int) -> None:
        """A flow on which nothing passes for so long is forgotten."""
        self.router("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_tcp_timeout_established={idle_s}")
