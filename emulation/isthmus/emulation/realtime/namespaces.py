"""A private piece of network: two namespaces of the kernel's, with nothing between them until a back end puts a link there.

Nothing outside is touched: no interface, no route, no rule. Root is not needed where the kernel lets users have
namespaces of their own. Linux with `unshare`, `nsenter` (util-linux), `ip` and `tc` (iproute2).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Literal

from isthmus.proto.errors import ConfigError

Side = Literal["near", "far"]
SIDES: tuple[Side, Side] = ("near", "far")
NEAR, FAR = "10.77.0.2", "10.77.0.1"
"""Addresses of the two ends: the device's, and the one behind which the edge server is."""
LINK = "link0"
"""The name of the link's interface on both sides."""
_PROGRAMS = ("unshare", "nsenter", "ip")
_SYSTEM = ("/usr/sbin", "/sbin")
"""Where Debian keeps `tc`, and does not look for what a user runs."""
_OWN = ["--net"]
_USER = ["--user", "--map-root-user", "--net"]


def _found(*programs: str) -> list[str]:
    """Their paths. Raises ConfigError naming those that are not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM))
    found = {program: shutil.which(program, path=path) for program in programs}
    if missing := [program for program, where in found.items() if where is None]:
        raise ConfigError(
            f"network namespaces: {', '.join(missing)} not found; install util-linux and iproute2 (Linux only)"
        )
    return [where for where in found.values() if where is not None]


class Namespaces:
    """Made by `with Namespaces() as net:`; gone with all that is in them when the block ends.

    Raises ConfigError that says why this machine cannot have them.
    """

    def __enter__(self) -> Namespaces:
        _found(*_PROGRAMS)
        reasons = []
        for flags in [_OWN, _USER] if os.geteuid() == 0 else [_USER]:
            if (reason := self._start(flags)) is None:
                break
            reasons.append(reason)
        else:
            raise ConfigError(f"network namespaces: not allowed here ({'; '.join(reasons)}); the relay needs none")
        for side in SIDES:
            self.run(side, "ip", "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.close()
        self._process.wait()

    def command(self, side: Side, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` on a side. Raises ConfigError when there is no such program."""
        user = [f"--user=/proc/{self._pid}/ns/user", "--preserve-credentials"] if self._own_user else []
        there = [*user, f"--net=/proc/{self._pid}/fd/{self._sides[side]}", "--"]
        return [*_found("nsenter"), *there, *_found(arguments[0]), *arguments[1:]]

    def run(self, side: Side, *arguments: str) -> None:
        """Run a short command on a side; raises ConfigError with what it said when it fails."""
        done = subprocess.run(self.command(side, arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"code {done.returncode}"
            raise ConfigError(f"{' '.join(arguments)}: {said}")

    def tun(self, side: Side) -> int:
        """A TUN device on a side, up and with its address: the descriptor of its packets."""
        opened = self._open({"side": side, "what": "tun", "name": LINK})
        self._address(side)
        return opened

    def veth(self) -> None:
        """A pair of Ethernet devices between the two sides, up and with their addresses."""
        near = f"/proc/{self._pid}/fd/{self._sides['near']}"
        self.run("far", "ip", "link", "add", LINK, "type", "veth", "peer", "name", "peer0")
        self.run("far", "ip", "link", "set", "peer0", "netns", near)
        self.run("near", "ip", "link", "set", "peer0", "name", LINK)
        for side in SIDES:
            self._address(side)

    def socket(self, side: Side, kind: Literal["stream", "dgram"], port: int = 0) -> socket.socket:
        """A TCP or UDP socket on a side, bound to its address; raises ConfigError when the port is taken."""
        host = NEAR if side == "near" else FAR
        return socket.socket(fileno=self._open({"side": side, "what": kind, "host": host, "port": port}))

    def _address(self, side: Side) -> None:
        mine, other = (NEAR, FAR) if side == "near" else (FAR, NEAR)
        self.run(side, "ip", "addr", "add", mine, "peer", other, "dev", LINK)
        self.run(side, "ip", "link", "set", LINK, "addrgenmode", "none")  # no router solicitations on the link
        self.run(side, "ip", "link", "set", LINK, "up")
        if side == "near":
            self.run(side, "ip", "route", "add", "default", "via", other, "dev", LINK)

    def _start(self, flags: Sequence[str]) -> str | None:
        """Start the host; why it did not start, or None."""
        host = [*_found("unshare"), *flags, sys.executable, "-m", "isthmus.emulation.realtime.namespace_host"]
        self._host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*host, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        ready = self._host.recv(65_536)
        if not ready:
            self._host.close()
            _, said = self._process.communicate()
            return (said.strip().splitlines() or ["no reason given"])[-1]
        assert self._process.stderr is not None
        self._process.stderr.close()
        found = json.loads(ready)
        self._pid, self._sides, self._own_user = found["pid"], found["sides"], flags is _USER
        return None

    def _open(self, request: dict[str, str | int]) -> int:
        self._host.send(json.dumps(request).encode())
        reply, opened, _, _ = socket.recv_fds(self._host, 65_536, 1)
        if not opened:
            with contextlib.suppress(ValueError):
                why = json.loads(reply)["error"]
                raise ConfigError(f"{request['what']} on the {request['side']} side: {why}")
            raise ConfigError("network namespaces: their host has ended")
        return opened[0]
