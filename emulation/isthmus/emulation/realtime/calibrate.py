"""How well each back end emulates on this machine: goodput against the trace, and the delay that it adds.

The link is saturated from the device's side, and what comes out in each whole second of the trace is held against what
the trace carries in it. Kernel links are filled with UDP, the relay, which knows streams only, with TCP. Delay is that of
64-byte messages there and back, less the same over this machine's loopback.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from isthmus.emulation import capacity, synthetic
from isthmus.emulation.link import LinkOptions
from isthmus.emulation.realtime.backends import BACKENDS, LinkBackend, NamespaceLink
from isthmus.emulation.realtime.lag import LagSummary
from isthmus.emulation.traces import PACKET_BYTES, AnyTrace, Floats

TARGET_ERROR = 0.01
"""What the relay's goodput may be off, over bins of 1 s at 5 Mbit/s and more."""
_HEADER_BYTES = 28
"""What the headers of IPv4 and UDP add to a datagram."""
_PING_BYTES, _PINGS, _BETWEEN_S = 64, 100, 2e-3
"""Pings too small to fill the link, with a pause between them that lets it fall idle."""
_WARM_UP_S = 1.0
"""The time that is not counted at the beginning, while buffers on the way fill up."""
_AHEAD_BYTES, _QUEUE_BYTES = 500_000, 1_000_000
"""How far the sender of packets keeps ahead of the trace, so that the link never idles; the link's queue holds it."""
_TICK_S = 1e-3
"""The longest wait between two looks at what may be sent; 40 Mbit/s are 5 kB in it, 1 % of `_AHEAD_BYTES`."""
_PATIENCE_S = 5.0
"""How long a connection or a ping may take on this machine before it counts as lost."""
_DELAY_S = 0.04
"""Round trip of the second delay test."""


@dataclass(frozen=True)
class Calibration:
    """One back end on this machine. Delays in seconds; None is what the back end cannot do."""

    backend: str
    error: float
    """Mean over whole seconds of |goodput / trace - 1|."""
    worst: float
    """The worst second."""
    total: float
    """All bytes over the trace's."""
    added_p50_s: float
    added_p99_s: float
    """Round trip beyond the loopback's, on a wide link without delay."""
    delay_p50_s: float | None
    delay_p99_s: float | None
    """Round trip on one of 40 ms, beyond those 40 ms."""
    lag: LagSummary


def walk(length_s: float = 60.0) -> AnyTrace:
    """The trace that is replayed by default: 5 to 40 Mbit/s up, changing every 100 ms."""
    return synthetic.markov((6.5, 10, 16, 24, 33), stay=0.8, rtt_ms=(0, 0), length_s=length_s, seed=17)


def calibrate(name: str, trace: AnyTrace, *, length_s: float, lag_budget_s: float) -> Calibration:
    """Measure one back end over `length_s` of the trace's uplink.

    Raises ConfigError when this machine cannot have it, LagError when it fell behind its budget.
    """
    queue_bytes = _QUEUE_BYTES if issubclass(BACKENDS[name], NamespaceLink) else math.inf
    with _linked(name, trace, LinkOptions(queue_bytes=queue_bytes)) as (link, near, far):
        bins = _goodput(near, far, capacity.of(trace, "up").carried, began_s=link.began_s, length_s=length_s)
        lag = link.end()
    lag.check(lag_budget_s, who=name)
    shares = bins[:, 0] / bins[:, 1]
    kind = socket.SOCK_STREAM if name == "relay" else socket.SOCK_DGRAM
    with _loopback(kind) as (near, far):
        bare_p50_s = float(np.median(_round_trips(near, far)))
    added = _delays(name, rtt_s=0.0) - bare_p50_s
    delay = _delays(name, rtt_s=_DELAY_S) - _DELAY_S if "delay" in BACKENDS[name].can else None
    return Calibration(
        backend=name,
        error=float(np.abs(shares - 1).mean()),
        worst=float(np.abs(shares - 1).max()),
        total=float(bins[:, 0].sum() / bins[:, 1].sum()),
        added_p50_s=float(np.median(added)),
        added_p99_s=float(np.quantile(added, 0.99)),
        delay_p50_s=None if delay is None else float(np.median(delay)),
        delay_p99_s=None if delay is None else float(np.quantile(delay, 0.99)),
        lag=lag,
    )


@contextlib.contextmanager
def _linked(
    name: str, trace: AnyTrace, options: LinkOptions
) -> Iterator[tuple[LinkBackend, socket.socket, socket.socket]]:
    """A back end at work, and a socket at each of its ends, connected through it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = f"127.0.0.1:{server.getsockname()[1]}"
        with BACKENDS[name](trace, upstream=upstream, options=options) as link:
            near, far = _datagrams(link) if isinstance(link, NamespaceLink) else _streams(link.address, server)
            with near, far:
                yield link, near, far


def _datagrams(link: NamespaceLink) -> tuple[socket.socket, socket.socket]:
    near, far = link.net.socket("near", "dgram"), link.net.socket("far", "dgram")
    near.connect(far.getsockname())
    far.connect(near.getsockname())
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    return near, far


def _streams(address: str, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    host, _, port = address.rpartition(":")
    near = socket.create_connection((host, int(port)), timeout=_PATIENCE_S)
    far, _ = server.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@contextlib.contextmanager
def _loopback(kind: socket.SocketKind) -> Iterator[tuple[socket.socket, socket.socket]]:
    with contextlib.ExitStack() as stack:
        if kind == socket.SOCK_STREAM:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            near, far = _streams(f"127.0.0.1:{server.getsockname()[1]}", server)
        else:
            near, far = socket.socket(type=kind), socket.socket(type=kind)
            for end in (near, far):
                end.bind(("127.0.0.1", 0))
            near.connect(far.getsockname())
            far.connect(near.getsockname())
        yield stack.enter_context(near), stack.enter_context(far)


def _goodput(
    near: socket.socket, far: socket.socket, carried: Callable[[float], float], *, began_s: float, length_s: float
) -> Floats:
    """(seconds, 2): bytes that came out in each whole second of the trace, and that it carries in it."""
    packets = near.type == socket.SOCK_DGRAM
    message = b"\0" * (PACKET_BYTES - _HEADER_BYTES if packets else 16_384)
    header_bytes = _HEADER_BYTES if packets else 0
    near.setblocking(False)
    far.setblocking(False)
    elapsed_s = time.monotonic() - began_s
    first = int(elapsed_s + _WARM_UP_S) + 1
    counts = np.zeros(round(length_s))
    sent = carried(elapsed_s)
    while (elapsed_s := time.monotonic() - began_s) < first + len(counts):
        goal = carried(elapsed_s) + _AHEAD_BYTES if packets else math.inf  # a stream is slowed by the link itself
        with contextlib.suppress(BlockingIOError):
            while sent < goal:
                sent += near.send(message) + header_bytes
        came = 0
        with contextlib.suppress(BlockingIOError):
            while part := far.recv(65_536):
                came += len(part) + header_bytes
        if elapsed_s >= first:
            counts[int(elapsed_s) - first] += came
        select.select([far], [], [], _TICK_S)
    edges = [carried(first + second) for second in range(len(counts) + 1)]
    return np.stack([counts, np.diff(edges)], axis=1)


def _delays(name: str, *, rtt_s: float) -> Floats:
    """Round trips of small messages over a wide link of this back end."""
    wide = synthetic.constant(up_mbps=1000, down_mbps=1000, rtt_ms=rtt_s * 1e3)
    with _linked(name, wide, LinkOptions()) as (_, near, far):
        return _round_trips(near, far)


def _round_trips(near: socket.socket, far: socket.socket) -> Floats:
    """Seconds there and back, each end waiting for the other's message."""
    times = np.empty(_PINGS)
    for end in (near, far):
        end.settimeout(_PATIENCE_S)
    for i in range(_PINGS):
        time.sleep(_BETWEEN_S)
        began_s = time.perf_counter()
        for source, sink in ((near, far), (far, near)):
            source.send(b"\0" * _PING_BYTES)
            sink.recv(_PING_BYTES)
        times[i] = time.perf_counter() - began_s
    return times
