"""The ways to put a real-time link between a device's processes and an edge server, behind one interface.

Each says what it can do (`can`) and what nobody should conclude from it (`limits`). `opened` takes the most faithful that
the trace needs and this machine allows; the relay needs nothing, and is what remains.

    relay   any system, no privilege   rate, delay, jitter, outages that hold
    tun     Linux, namespaces          rate, delay, jitter, loss, a finite queue, outages that hold or drop
    netem   the same, with sch_netem   rate, delay, loss, a finite queue, outages that hold or drop
    tbf     the same, with sch_tbf     rate, a finite queue, outages that hold
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import ClassVar

import numpy as np

from isthmus.emulation.link import LinkOptions
from isthmus.emulation.realtime.child import Child
from isthmus.emulation.realtime.forward import Forwarder
from isthmus.emulation.realtime.lag import LagSummary
from isthmus.emulation.realtime.namespaces import FAR, LINK, SIDES, Namespaces, Side
from isthmus.emulation.realtime.relay import LIMITS, OPTIONS, RelayJob, host_port
from isthmus.emulation.realtime.tc import Controls, TcShaper
from isthmus.emulation.realtime.tun import TunShaper
from isthmus.emulation.traces import AnyTrace, Trace
from isthmus.proto.errors import ConfigError

QUEUE_BYTES = 150_000
"""Drop-tail, where the link has a queue of its own: a hundred packets."""


class LinkBackend(ABC):
    """`with SomeBackend(trace, upstream="HOST:PORT") as link:` starts the trace and ends the link with the block.

    Raises ConfigError when this machine cannot have it or it cannot do what the options ask, DataError as `ShapedLink`.
    """

    name: ClassVar[str]
    can: ClassVar[frozenset[str]]
    """What it can do beside shaping the rate: "delay", "jitter", "loss", "drop" (an outage that drops)."""
    limits: ClassVar[str]
    """What every report on a run over this link must say."""
    queue_bytes: ClassVar[float] = QUEUE_BYTES

    address: str
    """Where a process on the device's side finds the server."""
    began_s: float
    """When the trace began, on CLOCK_MONOTONIC."""

    def __init__(self, trace: AnyTrace, *, upstream: str, options: LinkOptions) -> None:
        if "drop" in needs(trace, options) - self.can:
            raise ConfigError(f"{self.name}: cannot lose what waits in an outage; use outage 'hold', or tun or netem")
        self._trace, self._upstream = trace, host_port(upstream)
        finite = options.queue_bytes < float("inf")
        self._options = options if finite else replace(options, queue_bytes=self.queue_bytes)

    def __enter__(self) -> LinkBackend:
        with contextlib.ExitStack() as stack:
            try:
                self._shaper = self._start(stack)
            except ConfigError as error:
                raise ConfigError(f"{self.name}: {error}") from error
            self._ending = stack.pop_all()
        self.began_s = self._shaper.ready["began_s"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` on the device's side."""
        return list(arguments)

    def end(self) -> LagSummary:
        """Stop shaping; how late it was."""
        return self._shaper.end()

    @abstractmethod
    def _start(self, stack: contextlib.ExitStack) -> Child:
        """Start everything, to be ended with `stack`; set `address`; the shaper's process."""


class RelayLink(LinkBackend):
    """An asyncio TCP relay: the device's side is this machine."""

    name = "relay"
    can = frozenset({"delay", "jitter"})
    limits = LIMITS
    queue_bytes = OPTIONS.queue_bytes

    def _start(self, stack: contextlib.ExitStack) -> Child:
        upstream = f"{self._upstream[0]}:{self._upstream[1]}"
        child = stack.enter_context(Child(RelayJob(self._trace, "127.0.0.1:0", upstream, self._options)))
        self.address = f"127.0.0.1:{child.ready['port']}"
        return child


class NamespaceLink(LinkBackend):
    """The device's side is a network namespace whose only way out is the link; TCP passes it for real."""

    net: Namespaces

    def command(self, arguments: Sequence[str]) -> list[str]:
        """See `LinkBackend`."""
        return self.net.command("near", arguments)

    def _start(self, stack: contextlib.ExitStack) -> Child:
        self.net = stack.enter_context(Namespaces())
        self._lay(stack)
        host, port = self._upstream
        with self.net.socket("far", "stream", port) as listener:
            gate = Forwarder(listener.fileno(), host, port)
            stack.enter_context(Child(gate, descriptors=[listener.fileno()]))
        self.address = f"{FAR}:{port}"
        return stack.enter_context(self._shape())

    @abstractmethod
    def _lay(self, stack: contextlib.ExitStack) -> None:
        """Put an interface on each of the two sides."""

    @abstractmethod
    def _shape(self) -> Child:
        """Start the shaper between them, and with it the trace."""


class TunLink(NamespaceLink):
    """A user-space shaper: the sans-IO link itself, packet by packet."""

    name = "tun"
    can = frozenset({"delay", "jitter", "loss", "drop"})
    limits = (
        "tun: shapes IP packets one by one in user space, good to some hundred Mbit/s; TCP ends where the link does"
    )

    def _lay(self, stack: contextlib.ExitStack) -> None:
        self._ends = [self.net.tun(side) for side in SIDES]
        for end in self._ends:
            stack.callback(os.close, end)

    def _shape(self) -> Child:
        near, far = self._ends
        return Child(TunShaper(near, far, self._trace, self._options), descriptors=self._ends)


class TbfLink(NamespaceLink):
    """The kernel's token bucket, its rate changed as the trace goes."""

    name = "tbf"
    can = frozenset()
    limits = "tbf: shapes the rate alone, in steps of 100 ms; no delay, no loss; an outage still passes 1 kB/s"
    first: ClassVar[tuple[str, ...]] = ("tbf", "rate", "8kbit", "burst", "1600", "limit", "3028")
    """What is asked of the kernel first, to see whether it has it."""

    def _lay(self, stack: contextlib.ExitStack) -> None:
        self.net.veth()
        kicks = [stack.enter_context(self.net.socket(side, "dgram")) for side in SIDES]
        for kick, other in zip(kicks, reversed(kicks), strict=True):
            kick.connect(other.getsockname())  # nobody reads them; a port that nobody has would answer with an error
        self._controls = [self._controlled(stack, *one) for one in zip(SIDES, kicks, strict=True)]

    def _shape(self) -> Child:
        near, far = self._controls
        job = TcShaper(near, far, self._trace, self._options, netem="netem" in self.first)
        return Child(job, descriptors=job.descriptors)

    def _controlled(self, stack: contextlib.ExitStack, side: Side, kick: socket.socket) -> Controls:
        """Make a side's interface ready to be shaped."""
        self.net.run(side, "ip", "link", "set", LINK, "gso_max_segs", "1", "gso_max_size", "1600")
        self.net.run(side, "tc", "qdisc", "replace", "dev", LINK, "root", "handle", "1:", *self.first)
        command = self.net.command(side, ["tc", "-batch", "-"])
        tc = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(tc.communicate)  # closes its orders, by which it ends
        assert tc.stdin is not None
        assert tc.stdout is not None
        return Controls(tc.stdin.fileno(), tc.stdout.fileno(), kick.fileno())


class NetemLink(TbfLink):
    """The kernel's network emulator for delay and loss, over its token bucket for the rate."""

    name = "netem"
    can = frozenset({"delay", "loss", "drop"})
    limits = "netem: as tbf, with delay and loss; what already waits when an outage begins is held"
    first = ("netem", "delay", "0ms")


BACKENDS: Mapping[str, type[LinkBackend]] = {kind.name: kind for kind in (TunLink, NetemLink, RelayLink, TbfLink)}
"""The most faithful first; tbf, which lacks more than the relay, only for whoever names it."""


def needs(trace: AnyTrace, options: LinkOptions) -> frozenset[str]:
    """What a link must be able to do for this trace, beyond a rate."""

    def some(column: object) -> bool:
        return bool(np.nansum(np.asarray(column, dtype=float)) > 0)

    wanted = {
        "delay": some(trace.rtt_s),
        "jitter": options.jitter_s > 0,
        "loss": not options.lossless
        and (options.bursts is not None or (isinstance(trace, Trace) and some(trace.loss))),
        "drop": options.outage == "drop",
    }
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


@contextlib.contextmanager
def opened(
    name: str, trace: AnyTrace, *, upstream: str, options: LinkOptions, say: Callable[[str], None]
) -> Iterator[LinkBackend]:
    """The back end of this name at work, or for "auto" the best that works; which one, why and its limits are said.

    Raises ConfigError for an unknown name, or when none can do what the trace and options need.
    """
    if name != "auto" and name not in BACKENDS:
        raise ConfigError(f"back end '{name}': not one of auto, {', '.join(BACKENDS)}")
    wanted = needs(trace, options)
    candidates = [BACKENDS[name]] if name != "auto" else [BACKENDS[each] for each in ("tun", "netem", "relay")]
    with contextlib.ExitStack() as stack:
        for kind in candidates:
            try:
                link = stack.enter_context(kind(trace, upstream=upstream, options=options))
                break
            except ConfigError as error:
                if kind is candidates[-1]:
                    raise
                say(f"not here: {error}")
        say(link.limits)
        if left_out := sorted(wanted - link.can):
            say(f"{link.name}: leaves out the trace's {' and '.join(left_out)}")
        yield link
