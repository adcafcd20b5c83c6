"""The TCP connections under gRPC's streams: whose they are, and how one is ended whose device does not read.

Cancelling a handler of `grpc.aio` ends nothing on the wire, and an abort waits behind what the device does not read.
Only the connection itself can then be ended, and every stream of that device with it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc.aio

from isthmus.proto.security import BALANCED, BALANCER_NAME

DESCRIPTORS = Path("/dev/fd")
INTERNET = (socket.AF_INET, socket.AF_INET6)
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: what is unsent is thrown away."""


def address_of(peer: str) -> str:
    """The IP address in gRPC's name of a peer, `ipv4:192.0.2.1:50551` or `ipv6:%5B::1%5D:50551`."""
    return _endpoint(peer)[0]


def name_of(peer: str) -> str:
    """A peer as people write it, `192.0.2.1:50551`."""
    return unquote(peer).partition(":")[2]


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The name in the peer's certificate; None in plaintext, empty where a certificate has none.

    Behind a balancer that ends the TLS it is the name in the device's certificate, which the balancer has checked.
    """
    auth = context.auth_context()
    if b"ssl" not in auth.get("transport_security_type", ()):
        return None
    names = [*auth.get("x509_common_name", ()), *auth.get("x509_subject_alternative_name", ()), b""]
    name = bytes(names[0]).decode(errors="replace")
    return _told_by_balancer(context) if name == BALANCER_NAME else name


def _told_by_balancer(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """`cam7` in plain, or as some balancers write it, `CN=cam7`: a device's name has no equals sign."""
    said = [value for key, value in context.invocation_metadata() or () if key == BALANCED]
    return said[0].removeprefix("CN=") if len(said) == 1 and isinstance(said[0], str) else ""


def cut(peer: str) -> bool:
    """End the TCP connection to a peer at once; False where there is none (any more), or no list of descriptors."""
    endpoint, found = _endpoint(peer), False
    for connection in _connections():
        with connection, contextlib.suppress(OSError):  # one that only listens has no peer
            if connection.family not in INTERNET:
                continue
            host, port, *_ = connection.getpeername()
            if (_plain(host), port) == endpoint:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                connection.shutdown(socket.SHUT_RDWR)
                found = True
    return found


def _connections() -> Iterator[socket.socket]:
    """Every socket of this process, each through a descriptor of its own."""
    for path in list(DESCRIPTORS.iterdir()) if DESCRIPTORS.is_dir() else []:
        with contextlib.suppress(OSError):  # closed since it was listed
            if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                yield socket.socket(fileno=os.dup(int(path.name)))


def _endpoint(peer: str) -> tuple[str, int]:
    host, _, port = name_of(peer).rpartition(":")
    return _plain(host.strip("[]")), int(port) if port.isdecimal() else 0


def _plain(host: str) -> str:
    """An IPv4 address as such, also where it came in through an IPv6 socket; anything that is none as it is."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return str(getattr(address, "ipv4_mapped", None) or address)
    return host
