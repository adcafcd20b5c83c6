"""What every source is, and what it gives.

`read` blocks (it runs in a thread of its own) and gives the next picture, or None at the end. A picture that cannot be
read is given too, without pixels and with the reason: it is answered for, never skipped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

PATIENCE_S = 5.0
"""A read that takes longer hangs: no camera exposes for so long, and no picture takes so long to decode."""


@dataclass(frozen=True)
class Picture:
    """One picture: `pixels` (H, W, 3) RGB, or None with the reason `why`; `label` is the true class where it is known."""

    name: str
    pixels: NDArray[Any] | None
    label: int | None = None
    why: str = ""
    captured_s: float | None = None
    """When it came, on its reader's clock; None where it is as old as its reading."""


@dataclass(frozen=True)
class Wish:
    """What a source is asked for, as far as it can be asked."""

    size: tuple[int, int] | None = None
    """Width and height, in pixels."""
    fps: float | None = None


ANYTHING = Wish()


class Source(Protocol):
    """Something that frames come from."""

    name: str
    """What it is called in a log: never with a password in it."""
    fps: float | None = None
    """The source's own pace; None when it has none."""
    live: bool = False
    """A live source sets the pace by itself, and only its newest picture counts; others are paced by their reader."""
    bursts: bool = False
    """A live source whose pictures come many at once: they are let through at `fps`."""
    reconnects: bool = False
    """When it goes away it may come back: `again` is tried until it does."""
    patience_s: float = PATIENCE_S
    """How long `read` may take before it counts as hanging; infinite where nothing can be done about it."""

    def read(self) -> Picture | None:
        """The next picture; None at the end. Raises SourceError when the source has gone away."""

    def again(self) -> Source:
        """The source opened anew, for when `read` hangs or fails: it goes on behind the picture that it hangs on, if it can.

        Raises SourceError when it cannot be opened now.
        """
        return self

    def wake(self) -> None:
        """Have a `read` that waits for something come back soon with None; called from another thread, at the end."""
        return  # most do not wait for long

    def close(self) -> None:
        """Let go of the device or file."""
