"""Holds two fresh network namespaces, `near` (the device's side) and `far`, and opens things in them for its parent.

`namespaces.py` starts it under `unshare`, already in the far one. It imports the standard library only, answers one
request at a time, and ends with its parent; the kernel then takes both namespaces down with everything in them.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys

CLONE_NEWNET = 0x4000_0000
TUNSETIFF = 0x4004_54CA
IFF_TUN_NO_PI = 0x0001 | 0x1000
"""Linux's own numbers (sched.h, if_tun.h), which Python does not name."""
_LARGEST_REQUEST = 65_536
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serve the parent at the other end of the socket whose number is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    parent = socket.socket(fileno=int(sys.argv[1]))
    far = os.open("/proc/self/ns/net", os.O_RDONLY)
    _check(_libc.unshare(CLONE_NEWNET))
    sides = {"far": far, "near": os.open("/proc/self/ns/net", os.O_RDONLY)}
    parent.send(json.dumps({"pid": os.getpid(), "sides": sides}).encode())
    while request := parent.recv(_LARGEST_REQUEST):
        _answer(parent, sides, json.loads(request))


def _answer(parent: socket.socket, sides: dict[str, int], request: dict[str, object]) -> None:
    """Open what is asked for on its side, and pass it on."""
    try:
        _check(_libc.setns(sides[str(request["side"])], CLONE_NEWNET))
        opened = _tun(str(request["name"])) if request["what"] == "tun" else _socket(request)
    except OSError as error:
        parent.send(json.dumps({"error": f"{error.strerror}"}).encode())
        return
    socket.send_fds(parent, [b"{}"], [opened])
    os.close(opened)


def _tun(name: str) -> int:
    """A TUN device of this name: a descriptor from which its IP packets are read, one each, and written."""
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    except OSError:
        os.close(opened)
        raise
    return opened


def _socket(request: dict[str, object]) -> int:
    kind = socket.SOCK_STREAM if request["what"] == "stream" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as opened:
        opened.bind((str(request["host"]), int(str(request["port"]))))
        return opened.detach()


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
