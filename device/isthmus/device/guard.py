"""How long before its deadline an answer is due, longer on a host that wakes up late; and what a session waits for otherwise.

Pure: no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.proto.vocabulary import Frame


@dataclass(frozen=True)
class SessionConfig:
    """What a session may take its time over."""

    heartbeat_s: float = 0.5
    standby_s: float = 2.0
    """The same for a server that stands by: often enough for its word on its load, and for it not to hang up."""
    silence_s: float = 3.0
    """A server that owes us something and says nothing for so long is counted as lost: longer than any stall of a link that
    was worth waiting for, six heartbeats."""
    busy_s: float = 5.0
    """A server that is busy is asked again after so long at most, whatever it says: its queue holds milliseconds."""
    drain_s: float = 60.0
    """A server that drains and is still there after so long at most, whatever it says, is left."""
    late_s: float = 1.0
    """A tracker waits for what comes back so long after its frame's deadline: as long as it remembers pictures at 30 a second."""


@dataclass(frozen=True)
class GuardConfig:
    """How the guard grows and shrinks."""

    least_s: float = 0.004
    """Answers are due at least so long before the deadline: the host needs a moment to hand them over."""
    most_share: float = 0.25
    """A host that wakes up late lengthens the guard, up to this share of the time from capture to deadline."""
    step_s: float = 0.002
    """Growth at each timer that went off later than that."""
    missed: float = 0.01
    """The share of timers that may, and so of the answers given at their deadline that may be late, in the long run."""


class Guard:
    """The guard of one host, learnt by adaptive conformal inference (Gibbs and Candès 2021)."""

    def __init__(self, config: GuardConfig = GuardConfig()) -> None:
        self._config, self._guard_s = config, config.least_s

    def due_s(self, frame: Frame) -> float:
        """When the answer to `frame` is due."""
        longest_s = self._config.most_share * (frame.deadline_s - frame.captured_s)
        return frame.deadline_s - min(self._guard_s, longest_s)

    def woken(self, late_s: float) -> None:
        """A timer went off so late: more than the guard, and it grows; else it shrinks a little.

        Any timer tells how late the next deadline's may be: heartbeats do, long before there is an answer to be late with.
        """
        share = self._config.missed
        step_s = 1.0 if late_s > self._guard_s else -share / (1 - share)
        self._guard_s = max(self._config.least_s, self._guard_s + self._config.step_s * step_s)
