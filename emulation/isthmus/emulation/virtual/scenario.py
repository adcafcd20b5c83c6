"""What is emulated, as one frozen value: network, machines, frames, policy, what happens when, and the seed of it all.

A scenario is a TOML file whose every key is a field below; an unknown key is refused by name. Those in `scenarios/` ship
with Isthmus and go by their names.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec

from isthmus.emulation.link import LinkOptions
from isthmus.proto import config
from isthmus.proto.errors import ConfigError

UNKNOWN_RADIO = "unknown"
SHELF = Path(__file__).parent / "scenarios"


class Happening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that begins at a time and, after a while, ends."""

    what: Literal["load", "throttling", "server-load", "server-lost", "server-drained", "tail-hung"]
    """Work beside the head; the devices' heat; work beside the tail; a server without power; one that says goodbye and ends;
    one that takes frames, and whose tail answers none.

    A server that was lost or drained starts anew at the event's end.
    """
    at_s: float
    for_s: float = math.inf
    factor: float = 1.0
    """How many times slower it makes a device ("load") or a server ("server-load")."""
    state: str = "none"
    """The state of the profile's throttling."""
    server: int = 0
    """Which server is lost or drained, or its tail hangs, counted from 0."""

    def __post_init__(self) -> None:
        if not (0 <= self.at_s < math.inf and self.for_s > 0):
            raise ValueError(f"at_s = {self.at_s}, for_s = {self.for_s}, expected from 0 on and more than 0")
        if not 0.1 <= self.factor <= 1000:
            raise ValueError(f"factor = {self.factor}, expected 0.1 to 1000")


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One emulation. Everything that happens in it follows from these values."""

    name: str = ""
    about: str = ""
    """One line for whoever chooses among scenarios."""
    seed: int = 1

    trace: str = "lte-drive"
    """A file, or the name of a shipped trace."""
    swap: bool = False
    """Play the recorded downlink as the uplink: most public traces have nothing else."""
    scale: float = 1.0
    """Both rates times this."""
    rtt_ms: float = 40.0
    """Where the trace does not say."""
    down_mbps: float = 10.0
    """Where the trace does not say."""
    start_s: float = 0.0
    """Where in the trace it begins. With links of their own, further devices begin spread over the trace."""
    queue_bytes: float = math.inf
    outage: Literal["hold", "drop"] = "hold"
    jitter_ms: float = 0.0
    share: Literal["own", "cell"] = "own"
    """Each device has a link of its own, or all of them one, first come, first served."""

    profile: str = "pi4"
    threads: Literal["all", "one"] = "all"
    int8: bool = False
    load: float = 1.0
    """How many times slower than idle the devices run, from beginning to end: work beside the head. Events come on top."""
    radio: str = "wifi"
    """Which of the profile's radios pays for what is sent; "unknown" counts no energy at all."""
    battery_Wh: float | None = None
    """What the device's battery holds, for reports to say how long it lasts; None has none."""
    sessions: int = 1
    """Devices, each with its own stream of frames."""

    server: str = "edge-server"
    """The servers' profile."""
    servers: int = 1
    """Each device draws the one that it uses, and one that stands by."""
    server_links: Literal["shared", "own"] = "shared"
    """A device reaches all of them by its one link, or each by a link of its own, spread over the trace as devices are."""
    max_batch: int = 8
    credits: int = 8
    """Frames that one device may have in flight."""

    bundle: str = "cifar10"
    clips: bool = False
    """Replay whole clips in their order, from the bundle's table of them, instead of its validation samples."""
    policy: str = "expected-utility"
    on_time: float | None = None
    """Of the frames that are sent, this share is to be answered in time; None keeps no share."""
    energy_weight: float = 0.0
    """Utility, a share of a right answer, that a joule above idling costs the shipped policy; 0 weighs no energy."""
    deadline_s: float = 0.15
    fps: float = 15.0
    duration_s: float | None = None
    """None: once through the trace."""
    events: tuple[Happening, ...] = ()

    def __post_init__(self) -> None:
        for key, least, most in _RANGES:
            value = getattr(self, key)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{key} = {value}, expected {least:g} to {most:g}")
        for event in self.events:
            if not 0 <= event.server < self.servers:
                raise ValueError(
                    f"events: server = {event.server}, expected 0 to {self.servers - 1}: there are {self.servers}"
                )

    @property
    def link(self) -> LinkOptions:
        """What the trace does not say, for the first device's links."""
        return LinkOptions(
            start_s=self.start_s,
            queue_bytes=self.queue_bytes,
            outage=self.outage,
            jitter_s=self.jitter_ms / 1e3,
            seed=self.seed,
        )


_RANGES = (
    ("scale", 1e-6, 1e6),
    ("rtt_ms", 0, 60_000),
    ("down_mbps", 1e-3, 1e6),
    ("start_s", 0, 1e7),
    ("queue_bytes", 1, math.inf),
    ("jitter_ms", 0, 60_000),
    ("load", 0.1, 1000),
    ("sessions", 1, 100_000),
    ("servers", 1, 1000),
    ("max_batch", 1, 1024),
    ("credits", 1, 1024),
    ("deadline_s", 1e-3, 3600),
    ("fps", 1e-3, 1000),
    ("duration_s", 1e-3, 1e7),
    ("on_time", 0.5, 0.999),
    ("energy_weight", 0, 1e6),
    ("battery_Wh", 1e-3, 1e6),
)


def shipped() -> tuple[str, ...]:
    """The names of the scenarios that come with Isthmus."""
    return tuple(sorted(path.stem for path in SHELF.glob("*.toml")))


def load(name: str | Path, changes: dict[str, object] | None = None) -> Scenario:
    """A scenario by its file or its shipped name, with some keys changed.

    Raises ConfigError naming the file and the key, or the scenarios that there are.
    """
    path = SHELF / f"{name}.toml" if str(name) in shipped() else Path(name)
    if not path.is_file():
        raise ConfigError(f"scenario: no '{name}'; there are {', '.join(shipped())}, or name a file")
    return of({"name": path.stem} | config.read(path) | (changes or {}), where=str(path))


def of(table: dict[str, object], *, where: str = "scenario") -> Scenario:
    """A scenario from its keys; ConfigError names `where` and the key."""
    unknown = sorted(set(table) - set(Scenario.__struct_fields__))
    if unknown:
        raise ConfigError(f"{where}: unknown key '{unknown[0]}'; known: {', '.join(Scenario.__struct_fields__)}")
    try:
        return msgspec.convert(table, Scenario)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
