"""What an agent can be told. `proto.config` reads it from a file, ISTHMUS_AGENT_* variables and flags."""

from __future__ import annotations

import math
import re

import msgspec

from isthmus.proto.monitoring.endpoint import address_of
from isthmus.proto.monitoring.spans import check_collector

MOST_THREADS = 64
"""More than any board has cores; LiteRT starts every thread that it is promised, and ends the process where it cannot."""


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration of an agent: everything that it can be told."""

    bundle: str = "signs"
    source: str = "generated:0"
    server: str | tuple[str, ...] | None = None
    """HOST:PORT of the edge server, or of several, with commas between or as a list; None answers from the device alone."""
    discover: bool = False
    """Also turn to servers that announce themselves by mDNS in the local network and serve this bundle."""
    deadline_s: float = 0.1
    """Time from a frame's capture to its answer."""
    fps: float | None = None
    """Frames a second, asked of a camera, and the most of any source; None takes its own pace, or 10 where it has none."""
    size: str | None = None
    """WIDTHxHEIGHT, asked of a camera; None takes what it gives."""
    rotate: int = 0
    """Turn every picture by so many degrees clockwise: 90, 180 or 270."""
    frames: int | None = None
    """Stop after so many frames; None goes on to the end of the source."""
    certs: str | None = None
    """Folder of ca.pem, device.pem and device.key."""
    insecure: bool = False
    """Talk to the server in plaintext."""
    policy: str = "expected-utility"
    on_time: float | None = None
    """Of the frames that are sent, this share is to be answered by the server in time, in the long run; None keeps no share."""
    energy_weight: float = 0.0
    """Utility, a share of a right answer, that a joule above idling costs in each choice; 0 weighs no energy. Needs a profile."""
    profile: str | None = None
    """The profile that the watts are of: a file of `isthmus bench device`, or a shipped name; None is that of `as_device`."""
    radio: str = "wifi"
    """Which of the profile's radios sends."""
    threads: int = 1
    """Threads of the head."""
    filter: str | None = None
    """Folder of a neural filter: frames that it finds nothing of interest in are answered without the head."""
    gate: float | None = None
    """A picture that changed by less, in grey levels of 255, gets the last answer again; None answers each for itself."""
    gate_age_s: float = 2.0
    """The longest that an answer is repeated for."""
    as_device: str | None = None
    """A profile whose machine this one pretends to be: every stage takes as long as there."""
    client_id: str = "device"
    record: str | None = None
    """Also write every answer to this file, with the run's header; what is there is kept under a number of its own."""
    record_file_bytes: int = 64_000_000
    """A file of so many bytes, about 100,000 answers, is followed by the next."""
    record_age_s: float = 86_400.0
    """A file of so many seconds is followed by the next: a day."""
    record_total_bytes: int = 1_000_000_000
    """All files of the record together, the oldest are deleted; a card of 8 GB keeps room for everything else."""
    watch: str | None = None
    """Classes, with commas between, that mqtt, webhook and clips are about; None is all of the bundle's."""
    mqtt: str | None = None
    """mqtt://[USER[:PASSWORD]@]HOST[:PORT] of a broker, to which the device is a device of Home Assistant's; mqtts:// is TLS."""
    webhook: str | None = None
    """URL that is told, in JSON, when a class comes into view and when it has gone."""
    overlay: str | None = None
    """Make a video of what was answered, in this new .mp4 file."""
    clips: str | None = None
    """Keep a snapshot and a clip of everything that comes into view in this folder."""
    clips_total_bytes: int = 1_000_000_000
    """All snapshots and clips together, the oldest are deleted."""
    page: str | None = None
    """HOST:PORT of the live page, to be looked at in a browser; 127.0.0.1:8070 is for this machine alone."""
    page_token: str | None = None
    """Who looks at a page that other machines can reach must have this; None makes one up at every start."""
    open_page: bool = False
    """Open the page in this machine's browser."""
    metrics: str | None = None
    """HOST:PORT of /metrics, /healthz and /readyz; a port alone is for this machine."""
    traces: str | None = None
    """URL of an OpenTelemetry collector (OTLP over HTTP), or "env": what OTEL_EXPORTER_OTLP_ENDPOINT says."""
    traces_share: float = 1.0
    """Of all frames, the share whose traces are sent; both halves choose the same frames."""
    preview: str | None = None
    """Keep the newest picture, small, in this PNG for a viewer."""

    def __post_init__(self) -> None:
        if self.certs is not None and self.insecure:
            raise ValueError("insecure contradicts certs; drop one of them")
        if not 0 < self.deadline_s <= 60:
            raise ValueError(f"deadline_s = {self.deadline_s}, expected more than 0 and at most 60 s")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps = {self.fps}, expected more than 0 and at most 1000")
        if self.size is not None:
            size_of(self.size)
        if self.rotate not in (0, 90, 180, 270):
            raise ValueError(f"rotate = {self.rotate}, expected 0, 90, 180 or 270 degrees clockwise")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames = {self.frames}, expected at least 1")
        if self.gate is not None and not 0 < self.gate <= 255:
            raise ValueError(f"gate = {self.gate}, expected more than 0 and at most 255 grey levels")
        if not 0 < self.gate_age_s <= 3600:
            raise ValueError(f"gate_age_s = {self.gate_age_s}, expected more than 0 and at most 3600 s")
        if not 100_000 <= self.record_file_bytes <= self.record_total_bytes:
            raise ValueError(
                f"record_file_bytes = {self.record_file_bytes}, expected 100000 to record_total_bytes ({self.record_total_bytes})"
            )
        if not self.record_age_s >= 1:
            raise ValueError(f"record_age_s = {self.record_age_s}, expected at least 1 s")
        if not self.clips_total_bytes >= 1_000_000:
            raise ValueError(f"clips_total_bytes = {self.clips_total_bytes}, expected at least 1000000")
        if not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(
                f"threads = {self.threads}, expected 1 to {MOST_THREADS}: a head is small, and LiteRT takes them all"
            )
        if self.on_time is not None and not 0.5 <= self.on_time < 1:
            raise ValueError(f"on_time = {self.on_time}, expected a share from 0.5 to below 1, e.g. 0.9")
        if not 0 <= self.energy_weight < math.inf:
            raise ValueError(f"energy_weight = {self.energy_weight}, expected a finite number of at least 0")
        if self.energy_weight and self.watts is None:
            raise ValueError("energy_weight without a profile; name one (--profile), made by `isthmus bench device`")
        for address in self.servers:
            _check_server(address)
        if self.server is not None and not self.servers:
            raise ValueError("server = '', expected HOST:PORT, or several with commas between")
        if self.page is not None:
            page_address(self.page)
        if self.metrics is not None:
            try:
                address_of(self.metrics)
            except ValueError as error:
                raise ValueError(f"metrics = {error}") from error
        check_collector(self.traces, self.traces_share)
        if self.open_page and self.page is None:
            raise ValueError("open_page without a page; name its HOST:PORT, as 127.0.0.1:8070")
        if self.page_token is not None and not re.fullmatch(r"[\w.~-]{16,}", self.page_token):
            raise ValueError("page_token, expected at least 16 letters, digits, - or _")

    @property
    def watts(self) -> str | None:
        """The profile that energy is counted by."""
        return self.profile or self.as_device

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of all servers, each once, in the order in which they were named."""
        listed = self.server.split(",") if isinstance(self.server, str) else self.server or ()
        return tuple(dict.fromkeys(address.strip() for address in listed if address.strip()))


def size_of(text: str) -> tuple[int, int]:
    """Width and height out of `640x480`. Raises ValueError."""
    if (match := re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", text)) is None:
        raise ValueError(f"size = '{text}', expected WIDTHxHEIGHT in pixels, as 640x480")
    return int(match[1]), int(match[2])


def page_address(text: str) -> tuple[str, int]:
    """The host and port of a page: `127.0.0.1:8070`, `[::1]:8070`, `0.0.0.0:8070`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or (":" in host and not bracketed) or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"page = '{text}', expected HOST:PORT, as 127.0.0.1:8070")
    return host.strip("[]"), int(port)


def _check_server(address: str) -> None:
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not re.fullmatch(r"[^\s,/\[\]]+", host[1:-1] if bracketed else host) or (":" in host and not bracketed):
        raise ValueError(f"server = '{address}', expected HOST:PORT, or several with commas between")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"server = '{address}', expected HOST:PORT, a port from 1 to 65535")
