"""Temperature, throttling and power, where the kernel shows them: text in, one `Reading` out; `read` fetches the text.

No tool is called and nothing needs privileges. Whatever a machine does not show is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")
FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"
"""Raspberry Pi's firmware: the bits that `vcgencmd get_throttled` prints."""
THROTTLING_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Bits 0 to 3, what holds now; bits 16 to 19 say that it once did since the start, and are left."""
PLAUSIBLE_C = (-40.0, 150.0)
"""What silicon survives: a sensor that is not connected shows far more or far less."""
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Rails of Jetson boards that carry everything: of a monitor that has one, the other rails are parts of it."""


@dataclass(frozen=True)
class Reading:
    """A machine at one moment."""

    temperature_C: float | None = None
    """The temperature of its hottest zone; None where none is shown."""
    clock_share: float | None = None
    """Present clock of the slowest core over the highest that it has; a governor lowers it at rest too."""
    throttling: tuple[str, ...] | None = None
    """What the firmware holds the cores back for now; () is nothing."""
    power_W: float | None = None
    """The power of the whole board, or of the rails that are measured."""

    def __str__(self) -> str:
        """The reading in words; '' when the machine shows nothing."""
        words = []
        if self.temperature_C is not None:
            words.append(f"{self.temperature_C:.0f} °C")
        if self.clock_share is not None:
            words.append(f"clock {self.clock_share:.0%}")
        if self.power_W is not None:
            words.append(f"{self.power_W:.1f} W")
        if self.throttling is not None:
            words.append(", ".join(self.throttling) or "not throttled")
        return ", ".join(words)


def hottest_C(zones: Iterable[str]) -> float | None:
    """The highest plausible temperature of thermal zones, each in thousandths of a degree."""
    low, high = PLAUSIBLE_C
    found = [value / 1000 for text in zones if (value := _number(text)) is not None]
    return max((c for c in found if low < c < high), default=None)


def throttling(text: str | None) -> tuple[str, ...] | None:
    """The firmware's reasons to hold back, from its hexadecimal bits; None when it says nothing."""
    try:
        bits = int(text.strip(), 16) if text else None
    except ValueError:
        bits = None
    return None if bits is None else tuple(name for i, name in enumerate(THROTTLING_BITS) if bits >> i & 1)


def clock_share(cores: Iterable[tuple[str, str]]) -> float | None:
    """The lowest of (present, highest) clock over the cores; None without a core that shows both."""
    shares = []
    for present, highest in cores:
        now, most = _number(present), _number(highest)
        if now is not None and most:
            shares.append(now / most)
    return min(shares, default=None)


def power_W(monitors: Iterable[Mapping[str, str]]) -> float | None:
    """Watts from hwmon attributes by name: `powerN_input` (µW), or `inN_input` (mV) times `currN_input` (mA)."""
    watts = [w for m in monitors if (w := _monitor_W(m)) is not None]
    return sum(watts) if watts else None


def _monitor_W(monitor: Mapping[str, str]) -> float | None:
    rails: dict[str, float] = {}
    for name, text in monitor.items():
        value, rail = _number(text), "".join(filter(str.isdigit, name.partition("_")[0]))
        if value is None or not name.endswith("_input"):
            continue
        if name.startswith("power"):
            rails[rail] = value / 1e6
        elif name.startswith("in") and (current := _number(monitor.get(f"curr{rail}_input", ""))) is not None:
            rails.setdefault(rail, value * current / 1e6)
    whole = [w for rail, w in rails.items() if monitor.get(f"in{rail}_label", "").strip() in WHOLE_BOARD]
    watts = whole or list(rails.values())
    return sum(watts) if watts else None


def read(sys: Path = SYS) -> Reading:
    """The machine as it is now; `sys` is where its sysfs is mounted."""
    cpus = sorted(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq"))
    monitors = sorted(sys.glob("class/hwmon/hwmon*"))
    return Reading(
        temperature_C=hottest_C(_text(path) for path in sys.glob("class/thermal/thermal_zone*/temp")),
        clock_share=clock_share((_text(c / "scaling_cur_freq"), _text(c / "cpuinfo_max_freq")) for c in cpus),
        throttling=throttling(_text(sys / FIRMWARE)),
        power_W=power_W(
            {path.name: _text(path) for pattern in ("*_input", "in*_label") for path in monitor.glob(pattern)}
            for monitor in monitors
        ),
    )


def _text(path: Path) -> str:
    """A file's text; '' when it is not there or not now: sensors vanish and fail."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
