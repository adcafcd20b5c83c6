"""Addresses that a half would listen on: free, or taken."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.cli.doctoring.finding import Finding, failure, ok
from isthmus.device.config import page_address


@dataclass(frozen=True)
class Facts:
    """Addresses by what wants them, and the error number of listening there; 0 is none."""

    tried: tuple[tuple[str, str, int], ...]


def facts(wanted: Iterable[tuple[str, str]]) -> Facts:
    """Listen for a moment on each (what, HOST:PORT) of `wanted`. Raises ValueError for what is no address."""
    return Facts(tuple((what, address, _listened(address)) for what, address in wanted))


def _listened(address: str) -> int:
    host, port = page_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return 0


def findings(seen: Facts) -> list[Finding]:
    """Judge each address."""
    return [_judged(f"{what} {address}", number) for what, address, number in seen.tried]


def _judged(what: str, number: int) -> Finding:
    if number == 0:
        return ok(what, "is free")
    if number == errno.EADDRINUSE:
        return failure(
            what, "is in use already", "end what listens there (`ss -ltnp` names it), or choose another port"
        )
    if number in (errno.EACCES, errno.EPERM):
        return failure(what, "may not be listened on by this user", "choose a port above 1023")
    return failure(
        what, f"cannot be listened on ({errno.errorcode.get(number, number)})", "has this machine that address?"
    )
