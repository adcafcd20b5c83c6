"""Load shedding for the loop that carries all streams. Pure: no clock, no IO, no randomness.

A loop that has fallen behind finds messages that have waited for it, and nobody tells it for how long. `LoopLag` says when
they can have come at the earliest; `Shedder` turns frames away at their first layer, before anything is computed from
them, so that the messages which are read next have not waited.
"""

from __future__ import annotations

import math
from collections import deque

ROUNDS = 3
"""What a round of the loop handles was seen by the round before, and came after the one before that had looked."""
LAG_S = 0.04
"""The loop keeps up while some message of every interval has waited less than this: a quarter of a budget of 150 ms, and
little more than a small server's batch takes."""
STRETCH = 1.5
"""A tail that takes so many times what the processor time it got would take lacks processor time, and so does the loop."""
STRETCH_GAIN = 0.2
"""The weight of the newest batch: about five of them decide."""
REFUSED = 0.25
"""Taking on more frames than are let in is well while the engine alone is short, and wasteful beyond this share of them
where the processor is: a frame that is refused behind its last layer costs a third of one that is answered."""
FEW = 2
"""So few refusals say nothing of a share."""
INTERVAL_S = 0.2
"""How long is looked before the share changes: a dozen frames of a small server, longer than a stall of the machine."""
LESS, MORE = 0.93, 0.03
"""What the share is multiplied by after an interval that fell behind, and what is added after one that kept up (as TCP
does): down to a sixth in five seconds, up again in six. Larger steps leave the loop idle after each of them."""
RISE, FALL = 0.3, 0.03
"""Ten to one, so that about nine of ten replies take less than what is believed."""
TOLD_S = (0.5, 4.0)
"""The least and the most that a device is asked to wait while frames are shed. It is not told again before: to say it
costs as much as to hear it. With eight seconds the whole fleet came and went in waves."""
ENOUGH = 0.8
"""While less than this share is taken on, too many still ask: what they send is read for nothing, so they wait longer."""
LONGER = 1.1
"""By how much, after each interval: from the least to the most in under five seconds."""
GOLDEN = 0.618034
"""Its multiples spread evenly over 0 to 1: devices that are told to wait must not all come back together."""
MEMORY_S = 1.0
"""A server that once took too long to be in time, and is therefore asked for nothing, must find out that it is over."""
LEAST_SHARE = 0.02
"""Some frames are taken on whatever happens, or nobody would find out that the load is gone."""


class LoopLag:
    """When what an event loop finds can have come, from when its rounds began."""

    def __init__(self) -> None:
        self._looks: deque[float] = deque(maxlen=ROUNDS)

    def look(self, now: float) -> None:
        """A round begins that did not wait for anything."""
        self._looks.append(now)

    def rest(self) -> None:
        """Nothing is left to do: what comes next is seen as it comes."""
        self._looks.clear()

    def came_s(self, now: float) -> float:
        """The earliest time at which a message that is handled at `now` can have come."""
        return self._looks[0] if self._looks else now


class SendingTime:
    """How long the server's answers take from the tail to the transport: what a budget must still hold at the end."""

    def __init__(self) -> None:
        self._usual_s = 0.0
        self._noted_s = -math.inf

    def usual_s(self, now: float) -> float:
        """Nine of ten answers take less; nothing is known after a while without any."""
        return self._usual_s if now < self._noted_s + MEMORY_S else 0.0

    def note(self, took_s: float, *, now: float) -> None:
        """An answer was handed over after `took_s`: up by much where that is more than usual, down by little else."""
        before_s, self._noted_s = self.usual_s(now), now
        self._usual_s = before_s + (RISE if took_s > before_s else FALL) * (took_s - before_s)


class Shedder:
    """Which share of the frames the loop can take on."""

    def __init__(self) -> None:
        self.share = 1.0
        self._interval_ends_s = 0.0
        self._least_s = math.inf
        self._taken = self._refused = 0
        self._due = 0.0
        self._told = 0
        self._wait_s = TOLD_S[0]
        self._stretch = 1.0

    @property
    def shedding(self) -> bool:
        """Whether some frames are turned away."""
        return self.share < 1.0

    def on_batch(self, stretch: float) -> None:
        """The tail took `stretch` times what it would have, had it had the processor to itself."""
        self._stretch += STRETCH_GAIN * (stretch - self._stretch)

    def note(self, lag_s: float, *, now: float) -> None:
        """A message has waited `lag_s` for the loop."""
        self._least_s = min(self._least_s, lag_s)
        if now < self._interval_ends_s:
            return
        starved = self._stretch > STRETCH and self._refused > max(FEW, REFUSED * self._taken)
        behind = self._least_s > LAG_S or starved
        self.share = max(LEAST_SHARE, self.share * LESS) if behind else min(1.0, self.share + MORE)
        self._wait_s *= LONGER if self.share < ENOUGH else 1 / LONGER
        self._wait_s = min(max(self._wait_s, TOLD_S[0]), TOLD_S[1])
        self._interval_ends_s = now + INTERVAL_S
        self._least_s, self._taken, self._refused = math.inf, 0, 0

    def refused(self) -> None:
        """A frame that was taken on was refused after all."""
        self._refused += 1

    def retry_s(self) -> float:
        """How long a device whose frame is shed is asked to wait."""
        self._told += 1
        return self._wait_s * (0.5 + GOLDEN * self._told % 1)

    def takes(self) -> bool:
        """Whether the frame that begins now is taken on: `share` of all, evenly spread."""
        self._due += self.share
        if self._due < 1.0:
            return False
        self._due -= 1.0
        self._taken += 1
        return True
