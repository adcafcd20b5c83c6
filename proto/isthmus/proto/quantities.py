"""Durations, sizes and rates as people write them, alike in flags, files and variables. Pure."""

from __future__ import annotations

import re

UNITS: dict[str, dict[str, float]] = {
    "s": {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0},
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "mbps": {"bit/s": 1e-6, "kbit/s": 1e-3, "Mbit/s": 1.0, "Gbit/s": 1e3},
}
"""What each kind of quantity is counted in, by the end of the names that hold it, and the units that are read."""
_KINDS = {"s": "a duration", "bytes": "a size", "mbps": "a rate"}
_EXAMPLES = {"s": ("ms", "s"), "bytes": ("B", "kB"), "mbps": ("kbit/s", "Mbit/s")}


def unit_of(key: str) -> str | None:
    """The unit that a name ends in, of those in UNITS: `deadline_s` is in seconds. None: it holds no such quantity."""
    return next((unit for unit in UNITS if key.endswith(f"_{unit}")), None)


def parse(text: str, unit: str, *, bare: bool) -> float:
    """`text` as a number of `unit`: '100ms' is 0.1 where that is "s". `bare`: a number alone is one of `unit`.

    Raises ValueError that shows how to write it.
    """
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-zµ/]*)\s*", text)
    small, usual = _EXAMPLES[unit]
    if match is None:
        raise ValueError(f"'{text}' is not {_KINDS[unit]}; write 100{small} or 5{usual}")
    number, said = match.groups()
    if not said:
        if not bare:
            raise ValueError(f"'{number}' has no unit; write {number}{small} or {number}{usual}")
        return float(number)
    # No two units of a table differ by case alone.
    factor = next((x for name, x in UNITS[unit].items() if name.lower() == said.lower().replace("µ", "u")), None)
    if factor is None:
        raise ValueError(f"'{said}' is no unit of {_KINDS[unit]}; known: {', '.join(UNITS[unit])}")
    return float(f"{float(number) * factor:.12g}")  # 100 ms are 0.1 s, to the last digit
