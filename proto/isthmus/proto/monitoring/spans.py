"""A frame's spans, and the trace that both halves find for it without a word: its ids are made of what crosses anyway.

Pure, and without OpenTelemetry; `tracer` hands spans over.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

FRAME = "frame"
"""The device's span from capture to answer, below which all others of a frame are."""
ENVIRONMENT = "env"
"""In place of a URL: what the variable says."""
VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_PATH = "/v1/traces"
_LOW_64 = (1 << 64) - 1

Attribute = str | bool | int | float


class FrameTrace(Struct, frozen=True):
    """The trace of one frame: by its device, its number, and a `mark` that tells it from the same number of another run."""

    client_id: str
    frame_id: int
    mark: bytes

    @classmethod
    def of_sent(cls, client_id: str, frame_id: int, crc: int) -> FrameTrace:
        """Of a frame that was sent; `crc` is its first layer's, which both halves have. The same picture has the same."""
        return cls(client_id, frame_id, b"crc" + struct.pack("<I", crc))

    @classmethod
    def of_kept(cls, client_id: str, frame_id: int, captured_unix_s: float) -> FrameTrace:
        """Of a frame that never left the device, which alone knows when it was captured."""
        return cls(client_id, frame_id, b"at" + struct.pack("<d", captured_unix_s))

    @property
    def trace_id(self) -> int:
        """16 bytes."""
        return self._derived(b"trace", 16)

    def span_id(self, name: str) -> int:
        """8 bytes; a frame has one span of each name."""
        return self._derived(b"span" + name.encode(), 8)

    def kept(self, share: float) -> bool:
        """Whether it is among so many of all traces: the same answer in both halves, and in OpenTelemetry's own samplers."""
        return (self.trace_id & _LOW_64) < share * (1 << 64)

    def _derived(self, what: bytes, size: int) -> int:
        whole = struct.pack("<I", self.frame_id & 0xFFFFFFFF) + self.mark + b"\0" + self.client_id.encode()
        return int.from_bytes(hashlib.sha256(what + b"\0" + whole).digest()[:size], "big") or 1


class Span(Struct, frozen=True):
    """Something that took its time, in seconds of the monotonic clock of the half that it happened in."""

    name: str
    began_s: float
    ended_s: float
    attributes: Mapping[str, Attribute] = {}
    parent: str | None = FRAME
    """The name of the span that it is a part of; None for the frame's own."""


def check_collector(traces: str | None, share: float) -> None:
    """Raises ValueError where a half is told to send traces to what is no collector's address, or no share of them."""
    if not 0 < share <= 1:
        raise ValueError(f"traces_share = {share}, expected more than 0 and at most 1")
    if traces is None:
        if share < 1:
            raise ValueError("traces_share goes with traces; name a collector's URL, as http://127.0.0.1:4318")
        return
    if traces != ENVIRONMENT:
        endpoint_of(traces)


def endpoint_of(url: str) -> str:
    """Where a collector takes traces: its URL, with the path that OTLP has where it names none. Raises ValueError."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(
            f"traces is no collector's URL: expected http://HOST[:PORT] or https://…, or {ENVIRONMENT} for what {VARIABLE} says"
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}{TRACES_PATH}"


def host_of(endpoint: str) -> str:
    """What may be said of a collector in a log: no password, and no path, in which a token may be."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
