"""Heat, throttling, governor and memory."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from isthmus.cli.doctoring.finding import Finding, failure, ok, text, warning
from isthmus.device import sensors
from isthmus.device.sensors import THROTTLING_BITS, Reading

SLOW_GOVERNORS = ("powersave", "conservative")
"""Those that keep the clock down while a head runs for a few milliseconds at a time."""
HOT_C = 80.0
"""A Raspberry Pi begins to slow down here; Jetsons somewhat later."""
AGENT_BYTES = 115_000_000
"""What an agent takes."""


@dataclass(frozen=True)
class Facts:
    """A machine at one moment."""

    reading: Reading
    firmware: str = ""
    """The bits of `get_throttled`, in hexadecimal; '' where nothing tells them."""
    governors: frozenset[str] = frozenset()
    available_bytes: int | None = None
    total_bytes: int | None = None


def facts() -> Facts:
    """Read what this machine shows now."""
    memory = meminfo(text("/proc/meminfo"))
    governors = {text(str(p)) for p in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return Facts(
        reading=sensors.read(),
        firmware=text(str(sensors.SYS / sensors.FIRMWARE)) or _vcgencmd(),
        governors=frozenset(governors - {""}),
        available_bytes=memory.get("MemAvailable"),
        total_bytes=memory.get("MemTotal"),
    )


def meminfo(content: str) -> dict[str, int]:
    """The sizes of /proc/meminfo, in bytes."""
    found = {}
    for line in content.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


def _vcgencmd() -> str:
    """What the firmware says through Raspberry Pi's own tool, for kernels that do not show it."""
    if (tool := shutil.which("vcgencmd")) is None:
        return ""
    try:
        done = subprocess.run([tool, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().rpartition("=")[2]


def throttled_before(firmware: str) -> tuple[str, ...]:
    """What has held the cores back since the start: bits 16 to 19 of the firmware's."""
    try:
        bits = int(firmware, 16) >> 16
    except ValueError:
        return ()
    return tuple(name for i, name in enumerate(THROTTLING_BITS) if bits >> i & 1)


def findings(seen: Facts) -> list[Finding]:
    """Judge it; a machine that shows nothing of a thing is not judged by it."""
    return [*_heat(seen), *_governor(seen), *_memory(seen)]


def _heat(seen: Facts) -> list[Finding]:
    now = seen.reading.throttling or sensors.throttling(seen.firmware or None) or ()
    before = tuple(reason for reason in throttled_before(seen.firmware) if reason not in now)
    supply = "give it a better power supply or a shorter cable" if "under-voltage" in (*now, *before) else "cool it"
    if now:
        return [failure("machine", str(seen.reading) or ", ".join(now),
                        f"{supply}: times and profiles are those of a slower machine")]  # fmt: skip
    if before:
        return [warning("machine", f"{seen.reading}; since its start it was held back: {', '.join(before)}", supply)]
    if seen.reading.temperature_C is not None and seen.reading.temperature_C >= HOT_C:
        return [warning("machine", str(seen.reading), "cool it, before it is slowed down")]
    return [ok("machine", str(seen.reading))] if str(seen.reading) else []


def _governor(seen: Facts) -> list[Finding]:
    if not seen.governors:
        return []
    names = ", ".join(sorted(seen.governors))
    if seen.governors & set(SLOW_GOVERNORS):
        return [warning("governor", names, "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor, "
                        "or performance where deadlines are tight")]  # fmt: skip
    return [ok("governor", names)]


def _memory(seen: Facts) -> list[Finding]:
    if seen.available_bytes is None:
        return []
    free = f"{seen.available_bytes / 1e6:.0f} MB of {(seen.total_bytes or 0) / 1e6:.0f} MB can be had"
    if seen.available_bytes < AGENT_BYTES:
        return [failure("memory", free, f"end something else; an agent takes {AGENT_BYTES / 1e6:.0f} MB")]
    if seen.available_bytes < 2 * AGENT_BYTES:
        return [
            warning("memory", free, f"an agent takes {AGENT_BYTES / 1e6:.0f} MB; leave some for the system's cache")
        ]
    return [ok("memory", free)]
