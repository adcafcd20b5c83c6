"""Disks: whether what is configured can be written, has room, and what it does to an SD card."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from isthmus.cli.doctoring.finding import Finding, failure, ok, text, warning
from isthmus.device.config import AgentConfig

CARDS = ("/dev/mmcblk",)
VOLATILE = ("tmpfs", "ramfs")
LOW_BYTES = 500_000_000
"""Below this, updates and logs of the system begin to fail."""
RECORD_BYTES = 640
"""One answer in a record, about: 100,000 in a file of 64 MB."""
PREVIEW_BYTES = 30_000
"""One picture of a preview, which is written for every frame, about: 128 pixels wide, PNG."""
USUAL_FPS = 10.0
"""The pace that wear is reckoned with where none is configured."""
HEAVY_BYTES_PER_DAY = 1e9
"""A card of 32 GB that stands 500 cycles of writing lasts 40 years at this; a cheap one in bad order a tenth of that."""
DAY_S = 86_400


@dataclass(frozen=True)
class Place:
    """Something that an agent writes."""

    key: str
    path: str
    most_bytes: int | None
    """What it grows to; None without end."""
    bytes_per_day: float | None = None
    """What is written in a day; None: it depends on what is seen."""


@dataclass(frozen=True)
class Disk:
    """Where a path lies."""

    device: str
    kind: str
    """The file system's name."""
    free_bytes: int
    writable: bool


@dataclass(frozen=True)
class Facts:
    """Each place with its disk; the first is the one that the process was started on."""

    places: tuple[tuple[Place, Disk], ...]


def places(config: AgentConfig) -> list[Place]:
    """What an agent so configured writes."""
    fps = config.fps or USUAL_FPS
    found = []
    if config.record is not None:
        found.append(Place("record", config.record, config.record_total_bytes, RECORD_BYTES * fps * DAY_S))
    if config.clips is not None:
        found.append(Place("clips", config.clips, config.clips_total_bytes))
    if config.overlay is not None:
        found.append(Place("overlay", config.overlay, None))
    if config.preview is not None:
        found.append(Place("preview", config.preview, 0, PREVIEW_BYTES * fps * DAY_S))
    return found


def facts(config: AgentConfig) -> Facts:
    """The disks under what this configuration writes, and under the current folder."""
    mounts = mounted(text("/proc/mounts"))
    wanted = [Place("disk", ".", 0), *places(config)]
    return Facts(tuple((place, _disk(place.path, mounts)) for place in wanted))


def mounted(content: str) -> list[tuple[str, str, str]]:
    """(mount point, device, file system) of /proc/mounts, the longest mount points first."""
    rows = [line.split() for line in content.splitlines()]
    return sorted(((r[1].replace("\\040", " "), r[0], r[2]) for r in rows if len(r) >= 3), key=lambda m: -len(m[0]))


def _disk(path: str, mounts: list[tuple[str, str, str]]) -> Disk:
    there = Path(path).resolve()
    while not there.exists():
        there = there.parent
    under = next((m for m in mounts if there.is_relative_to(m[0])), ("/", "", ""))
    return Disk(under[1], under[2], shutil.disk_usage(there).free, os.access(there, os.W_OK))


def findings(seen: Facts) -> list[Finding]:
    """Judge each place."""
    return [found for place, disk in seen.places for found in _judged(place, disk)]


def _judged(place: Place, disk: Disk) -> list[Finding]:
    free = f"{disk.free_bytes / 1e9:.1f} GB free"
    if place.key == "disk":
        if disk.free_bytes < LOW_BYTES:
            return [warning("disk", free, "make room: the system's own logs and updates fail soon")]
        return [ok("disk", f"{free}{' on an SD card' if _card(disk) else ''}")]
    what = f"{place.key} {place.path}"
    if not disk.writable:
        return [failure(what, "cannot be written by this user", "name another place, or give the user that folder")]
    found = [*_room(what, place, disk, free), *_wear(what, place, disk)]
    if disk.kind in VOLATILE and place.key in ("record", "clips"):
        found.append(warning(what, "lies in memory", "it is gone after a restart; name a place on a disk to keep it"))
    return found or [ok(what, free)]


def _room(what: str, place: Place, disk: Disk, free: str) -> list[Finding]:
    if place.most_bytes is None:
        return [warning(what, f"grows without end; {free}", "end it by --frames, or use clips, which have a bound")]
    if disk.free_bytes < place.most_bytes:
        return [warning(what, f"may grow to {place.most_bytes / 1e9:.1f} GB; {free}",
                        f"set {place.key}_total_bytes to less")]  # fmt: skip
    return []


def _wear(what: str, place: Place, disk: Disk) -> list[Finding]:
    if not _card(disk) or place.bytes_per_day is None or place.bytes_per_day < HEAVY_BYTES_PER_DAY:
        return []
    return [warning(what, f"about {place.bytes_per_day / 1e9:.1f} GB a day written to an SD card",
                    "lower fps, put it on a USB disk, or on /dev/shm if it need not last: cards wear out")]  # fmt: skip


def _card(disk: Disk) -> bool:
    return disk.device.startswith(CARDS)
