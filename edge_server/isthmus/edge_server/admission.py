"""Who may have a stream, and how much of the server's attention. Pure: no clock, no IO.

A stream that has not said hello waits in a lobby of its own, so that silence takes no place from those who speak: where
the lobby is full, a newcomer is let in and the oldest of the most crowded address goes. Where there are certificates,
the certificate's name is who a device is: its client id must be that name, its newest stream replaces the one before,
and its limits are those of the name, whatever it connects from.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

from isthmus.proto.codec import MAX_LAYERS
from isthmus.proto.messages import DeviceMessage, Layer
from isthmus.proto.printable import printable
from isthmus.proto.security import SHARED_NAME

HELLO_S = 3.0
"""A stream that says no hello for so long is closed; a device waits no longer for its welcome."""
SILENCE_S = 10.0
"""A stream from which nothing is heard for so long is closed."""
LOBBY = 64
"""Room for streams that wait to say hello, and for streams that end; as much as is served where that is more."""
BURST_S = 1.0
"""A device may use so much of its rates at once."""
MESSAGES_A_FRAME = MAX_LAYERS + 1
"""Every layer, and a cancel."""


class Ending(enum.Enum):
    """Why the server closes a stream."""

    MISMATCH = "mismatch"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    CROWDED = "crowded"
    SILENT = "silent"
    UNREAD = "unread"
    REPLACED = "replaced"
    REVOKED = "revoked"
    UNLOADED = "unloaded"
    DRAINED = "drained"
    AGED = "aged"


class Close(Struct, frozen=True):
    """End the stream, after what was replied before."""

    stream: int
    ending: Ending
    why: str


@dataclass(frozen=True)
class Limits:
    """What a server takes on, and what one device may have of it."""

    streams: int = 64
    """Devices that are served at a time."""
    stream_credits: int = 8
    """Frames of one stream in flight."""
    frames_per_s: float = 1000.0
    """Frames beyond it are answered busy."""
    bytes_per_s: float = 25e6
    """A device that sends faster is read at this rate."""
    workers: int = 1
    """Batches that run at a time, of all bundles together."""
    tails: int | None = None
    """Tails that are loaded at a time; None: all that there are."""

    @property
    def lobby(self) -> int:
        """Streams that may be waiting to say hello, and streams that may be ending."""
        return max(LOBBY, self.streams)


class Meter:
    """Whether something goes on at more than its rate, but for a burst of so many seconds' worth."""

    def __init__(self, burst_s: float = BURST_S) -> None:
        self._burst_s, self._paid_s = burst_s, 0.0

    def spend(self, duration_s: float, *, now: float) -> None:
        """Something happened that takes `duration_s` at the full rate."""
        self._paid_s = max(self._paid_s, now) + duration_s

    def wait_s(self, now: float) -> float:
        """How long to wait until the rate is kept again; 0 where it is."""
        return max(0.0, self._paid_s - now - self._burst_s)


class Account:
    """What one device has used of its limits."""

    def __init__(self, limits: Limits) -> None:
        self._frame_s, self._byte_s = 1 / limits.frames_per_s, 1 / limits.bytes_per_s
        self._message_s = self._frame_s / MESSAGES_A_FRAME
        self._frames, self._reading = Meter(), Meter()

    def on_message(self, message: DeviceMessage, now: float) -> None:
        """A message was read: each has its price, a long one a higher one."""
        size_bytes = len(message.payload) if isinstance(message, Layer) else 0
        self._reading.spend(max(self._message_s, size_bytes * self._byte_s), now=now)

    def on_frame(self, now: float) -> None:
        """A new frame was taken."""
        self._frames.spend(self._frame_s, now=now)

    def frame_wait_s(self, now: float) -> float:
        """When another frame is welcome."""
        return self._frames.wait_s(now)

    def reading_wait_s(self, now: float) -> float:
        """How long to leave its messages where they are."""
        return self._reading.wait_s(now)


@dataclass
class Peer:
    """One device's stream; `client_id` is None before its hello."""

    address: str
    certificate: str | None
    """The name in its certificate; None in plaintext."""
    account: Account
    heard_s: float
    client_id: str | None = None
    shed: int | None = None
    """The newest frame that was shed."""
    told_until_s: float = -math.inf
    """Until when it was asked to send nothing."""

    @property
    def name(self) -> str | None:
        """Who the device is beyond doubt; None without a certificate of its own."""
        return None if self.certificate == SHARED_NAME else self.certificate

    @property
    def crowd(self) -> str:
        """Those whom it belongs to while nothing else is known of it."""
        return self.name or self.address


class Admission:
    """The streams of one server, from the door to the wire's last byte."""

    def __init__(self, limits: Limits, *, server_id: str) -> None:
        self.peers: dict[int, Peer] = {}
        """Streams that are open."""
        self._limits, self._server_id = limits, server_id
        self._ending: set[int] = set()
        self._accounts: dict[str, Account] = {}
        self._revoked: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """Streams that are open, and those that are closed but not yet gone."""
        return len(self.peers) + len(self._ending)

    def enter(self, stream: int, address: str, certificate: str | None, *, now: float) -> list[Close]:
        """A device connected from `address` with a certificate of this name; who has to go for it, or it itself."""
        if certificate in self._revoked:
            return self.refuse(stream, Ending.REVOKED, revoked(certificate))
        if len(self._ending) >= self._limits.lobby:
            return self.refuse(stream, Ending.CROWDED, f"{self._server_id}: too many streams are ending")
        peer = self.peers[stream] = Peer(address, certificate, Account(self._limits), now)
        if peer.name is not None:
            peer.account = self._accounts.setdefault(peer.name, peer.account)
        return self._crowded_out()

    def refuse(self, stream: int, ending: Ending, why: str) -> list[Close]:
        """Do not take a stream on; it counts until it is gone."""
        self._ending.add(stream)
        return [Close(stream, ending, why)]

    def welcome(self, stream: int, client_id: str) -> list[Close]:
        """A stream's hello fits; who has to go for it, or it itself, and then it has no place."""
        peer = self.peers[stream]
        if peer.name is not None and client_id != peer.name:
            why = (
                f"hello: client id '{printable(client_id)}', but the certificate is for '{printable(peer.name)}'; "
                "give the agent that --client-id, or a certificate of its own (isthmus certs add-device)"
            )
            return [Close(stream, Ending.MISMATCH, why)]
        older = self._namesakes(peer.name)
        served = sum(other.client_id is not None for other in self.peers.values()) - len(older)
        if served >= self._limits.streams:
            why = f"{self._server_id}: {served} streams are open, max_streams = {self._limits.streams}"
            return [Close(stream, Ending.CROWDED, why)]
        peer.client_id = client_id
        why = f"another stream of '{printable(client_id)}' came from {peer.address}; each device needs its own certificate"
        return [Close(other, Ending.REPLACED, why) for other in older]

    def revoke(self, names: Iterable[str]) -> list[Close]:
        """From now on these names, and no others, are turned away; their streams that are open."""
        self._revoked = frozenset(names)
        return [
            Close(stream, Ending.REVOKED, revoked(peer.certificate))
            for stream, peer in self.peers.items()
            if peer.certificate in self._revoked
        ]

    def silent(self, now: float) -> list[Close]:
        """The streams that have said nothing for too long."""
        closes = []
        for stream, peer in self.peers.items():
            limit_s, what = (HELLO_S, "no hello") if peer.client_id is None else (SILENCE_S, "nothing heard")
            if peer.heard_s + limit_s <= now:
                closes.append(Close(stream, Ending.SILENT, f"{self._server_id}: {what} for {limit_s:g} s"))
        return closes

    def on_close(self, stream: int) -> None:
        """A stream was told to end; it counts until it is gone."""
        if self.peers.pop(stream, None) is not None:
            self._ending.add(stream)

    def on_gone(self, stream: int) -> None:
        """Nothing of the stream is left."""
        self.peers.pop(stream, None)
        self._ending.discard(stream)

    def _namesakes(self, name: str | None) -> list[int]:
        """The streams that already speak under this name."""
        if name is None:
            return []
        return [stream for stream, peer in self.peers.items() if peer.name == name and peer.client_id is not None]

    def _crowded_out(self) -> list[Close]:
        """The stream that gives up its place in a lobby that is too full."""
        waiting = {stream: peer for stream, peer in self.peers.items() if peer.client_id is None}
        if len(waiting) <= self._limits.lobby:
            return []
        crowds = Counter(peer.crowd for peer in waiting.values())
        crowd, size = crowds.most_common(1)[0]
        oldest = next(stream for stream, peer in waiting.items() if peer.crowd == crowd)
        return [Close(oldest, Ending.CROWDED, f"{self._server_id}: {size} streams from here have said no hello")]


def revoked(name: str | None) -> str:
    """Why a device whose certificate was revoked is turned away."""
    return f"certificate '{printable(name or '')}': revoked; `isthmus certs add-device NAME` makes one of another name"
