"""The source: whether it opens, and how many pictures a second really come."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from isthmus.cli.doctoring.finding import Finding, failure, ok, warning

if TYPE_CHECKING:
    from isthmus.device.capture.sources import Source
    from isthmus.device.config import AgentConfig

WATCHED_S, FIRST_S, MOST = 4.0, 10.0, 200
"""So long it is watched, so long the first picture may take, and so many pictures are enough."""
SLOW = 0.8
"""Below this share of the rate that was asked for."""
DARK = 8.0
"""A picture whose mean, of 255, is below: a lens cap, or night."""


@dataclass(frozen=True)
class Facts:
    """A source that was watched for some seconds."""

    name: str
    live: bool = True
    asked_fps: float | None = None
    times_s: tuple[float, ...] = ()
    """When each picture came."""
    size: tuple[int, int] | None = None
    asked_size: tuple[int, int] | None = None
    mean: float | None = None
    """The brightness of the last picture, of 255."""
    error: str = ""


def facts(config: AgentConfig) -> Facts:
    """Open the configured source and watch it."""
    from isthmus.device.capture.reader import opened
    from isthmus.device.capture.sources.address import public
    from isthmus.device.run import wish_of
    from isthmus.proto.errors import SourceError

    wish = wish_of(config)
    try:
        source = opened(config.source, (), wish, config.rotate)
    except SourceError as error:
        return Facts(public(config.source), error=str(error))
    return _watched(source, config.fps, wish.size)


def _watched(source: Source, fps: float | None, size: tuple[int, int] | None) -> Facts:
    came: queue.SimpleQueue[tuple[float, object, str]] = queue.SimpleQueue()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                picture = source.read()
            except Exception as error:  # it is what is to be found out
                came.put((0.0, None, str(error)))
                return
            if picture is None:
                came.put((0.0, None, ""))
                return
            came.put((time.monotonic(), picture.pixels, picture.why))

    threading.Thread(target=read, name="source", daemon=True).start()
    times: list[float] = []
    last, error = None, ""
    ends_s = time.monotonic() + FIRST_S
    while len(times) < (MOST if source.live else 1):
        try:
            at_s, pixels, error = came.get(timeout=max(0.0, ends_s - time.monotonic()))
        except queue.Empty:
            break
        if not at_s:
            break
        if not times:
            ends_s = at_s + WATCHED_S
        times.append(at_s)
        last = pixels if pixels is not None else last
    over.set()
    seen = None if last is None else (int(last.shape[1]), int(last.shape[0]))  # type: ignore[attr-defined]
    mean = None if last is None else float(last.mean())  # type: ignore[attr-defined]
    return Facts(source.name, source.live, fps or source.fps, tuple(times), seen, size, mean, error)


def rate(times_s: tuple[float, ...]) -> float | None:
    """Pictures a second, by the median of the pauses after the first few; None of too few."""
    pauses = sorted(b - a for a, b in pairwise(times_s[2:]))
    return 1 / pauses[len(pauses) // 2] if pauses and pauses[len(pauses) // 2] > 0 else None


def findings(seen: Facts) -> list[Finding]:
    """Judge it."""
    what = f"source {seen.name}"
    if seen.error:
        return [failure(what, seen.error.removeprefix(f"{seen.name}: "), "see docs/sources.md")]
    if not seen.times_s:
        return [
            failure(what, f"gave no picture within {FIRST_S:g} s", "is it free, and does its cable or network hold?")
        ]
    pixels = "" if seen.size is None else f"{seen.size[0]}x{seen.size[1]}"
    if not seen.live:
        return [ok(what, f"gives pictures {pixels}")]
    found = [_rate(what, pixels, seen)]
    if seen.mean is not None and seen.mean < DARK:
        found.append(warning(what, f"is dark (mean {seen.mean:.0f} of 255)", "take off the lens cap, or give it light"))
    if (
        seen.asked_size is not None
        and seen.size is not None
        and seen.size not in (seen.asked_size, seen.asked_size[::-1])
    ):
        found.append(warning(what, f"gives {pixels}, {seen.asked_size[0]}x{seen.asked_size[1]} was asked for",
                             "ask for a size that it has: v4l2-ctl --list-formats-ext"))  # fmt: skip
    return found


def _rate(what: str, pixels: str, seen: Facts) -> Finding:
    real = rate(seen.times_s)
    if real is None:
        return warning(
            what, f"gave {len(seen.times_s)} pictures {pixels} in {WATCHED_S:g} s", "is its link or its light too poor?"
        )
    said = f"{real:.1f} pictures a second, {pixels}"
    if seen.asked_fps is not None and real < SLOW * seen.asked_fps:
        return warning(what, f"{said}; {seen.asked_fps:g} were to be had",
                       "give it more light (exposure lengthens in the dark), a smaller --size, or a faster port")  # fmt: skip
    return ok(what, said)
