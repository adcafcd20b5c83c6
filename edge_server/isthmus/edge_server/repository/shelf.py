"""Which bundles a device may have, and the devices that wait until a tail is loaded. Pure: no clock, no IO."""

from __future__ import annotations

from msgspec import Struct

from isthmus.edge_server.repository.lane import Served
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.messages import Hello
from isthmus.proto.printable import printable

MOST_NAMED = 6
"""Bundles that a refusal names; who wants to know of more asks `Describe`."""


class Fetch(Struct, frozen=True):
    """A device waits for this bundle, whose tail is not loaded: load it, then call `add` or `on_not_loaded`."""

    sha256: bytes


class Drop(Struct, frozen=True):
    """The tail of this bundle is not needed any more."""

    sha256: bytes


class Shelf:
    """The bundles of one server, by their hashes, whether their tails are loaded or not."""

    def __init__(self) -> None:
        self.offered: dict[bytes, Served] = {}
        """What a new device may have."""
        self.waiting: dict[int, Hello] = {}
        """Streams whose bundle's tail is being loaded."""
        self.fetching: set[bytes] = set()
        """The bundles whose tails are being loaded for them."""

    def misfit(self, hello: Hello, *, loaded: bool) -> str | None:
        """Why a device's half goes with none of these; None where its bundle is offered, or still `loaded`."""
        if hello.codec_version != CODEC_VERSION:
            versions = f"codec version {hello.codec_version}, this server speaks {CODEC_VERSION}"
            return f"{versions}; install the same Isthmus on both"
        if loaded or hello.bundle_sha256 in self.offered:
            return None
        theirs = f"bundle {printable(hello.bundle_name)} {hello.bundle_sha256.hex()[:12]}…"
        return f"{theirs}, this server serves {self._names()}; give both halves the same bundle"

    def wait(self, stream: int, hello: Hello) -> bool:
        """A device waits for its bundle's tail; whether it is the first, so that the tail is to be loaded."""
        self.waiting[stream] = hello
        first = hello.bundle_sha256 not in self.fetching
        self.fetching.add(hello.bundle_sha256)
        return first

    def end(self, sha256: bytes) -> list[tuple[int, Hello]]:
        """A tail was loaded, or was not; who has waited for it."""
        self.fetching.discard(sha256)
        ready = [(stream, hello) for stream, hello in self.waiting.items() if hello.bundle_sha256 == sha256]
        for stream, _ in ready:
            del self.waiting[stream]
        return ready

    def _names(self) -> str:
        named = [f"{printable(served.name)} {served.sha256.hex()[:12]}…" for served in self.offered.values()]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        return ", ".join(named[:MOST_NAMED]) + more or "none"
