"""A call that carries bytes both ways and means nothing: what a tool measures a link by, without a device's stream.

The request begins with the size of the reply that is wanted, four bytes, the most significant first; the rest is ballast.
"""

from __future__ import annotations

SERVICE, METHOD = "isthmus.v1.Probe", "Echo"
PATH = f"/{SERVICE}/{METHOD}"
MOST_BYTES = 60_000
"""In either direction: below the smallest limit that a server has for messages."""
WANTED_BYTES = 4


def request(*, up_bytes: int, down_bytes: int) -> bytes:
    """A request of `up_bytes`, at least four, for a reply of `down_bytes`."""
    return down_bytes.to_bytes(WANTED_BYTES, "big").ljust(up_bytes, b"\0")


def reply(asked: bytes) -> bytes:
    """As many bytes as `asked` wants, at most MOST_BYTES."""
    return bytes(min(int.from_bytes(asked[:WANTED_BYTES], "big"), MOST_BYTES))


def goodput_Bps(size_bytes: int, took_s: float, round_trip_s: float) -> float | None:
    """Bytes a second of so many that took so long with their way; None where the way there and back hides the rest."""
    rest_s = took_s - round_trip_s
    return size_bytes / rest_s if rest_s > 0.2 * round_trip_s and rest_s > 0 else None
