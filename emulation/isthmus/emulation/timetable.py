"""One direction of a link as tables: what it can have carried by when, and how long what leaves then takes. numpy, pure.

The same numbers as `ShapedLink`'s, for many times at once; who plans a whole run asks for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BEFORE_BYTES = 1e-6
"""Bytes are complete this much before a plateau's end is reached: at its beginning, that is."""


@dataclass(frozen=True)
class Timetable:
    """Times are seconds since the link began; bytes are positions, as `ShapedLink.carried` counts them."""

    time_s: Floats
    """(N,) when the rate changes, ascending."""
    carried_bytes: Floats
    """(N,) what can have been carried by then."""
    delay_from_s: Floats
    """(M,) when the one-way delay changes, ascending."""
    delay_s: Floats
    """(M,) the one-way delay from then on."""

    def carried(self, time_s: Floats) -> Floats:
        """Positions of what is sent to the idle link at these times."""
        return np.interp(time_s, self.time_s, self.carried_bytes)

    def when(self, position: Floats) -> Floats:
        """The earliest times by which so much can have left; infinity beyond the table."""
        return np.interp(position - BEFORE_BYTES, self.carried_bytes, self.time_s, right=np.inf)

    def arrival(self, departed_s: Floats) -> Floats:
        """The earliest times at which anything that leaves then or later can arrive: a delay may fall faster than time passes."""
        if len(self.delay_s) == 1:
            return np.asarray(departed_s + self.delay_s[0], np.float64)
        row = np.maximum(np.searchsorted(self.delay_from_s, departed_s, "right") - 1, 0)
        return np.asarray(np.minimum(departed_s + self.delay_s[row], self._later_s[row + 1]), np.float64)

    @cached_property
    def _later_s(self) -> Floats:
        """[row]: the earliest arrival of what leaves when the delay of this row, or of a later one, begins."""
        arrivals = (self.delay_from_s + self.delay_s)[::-1]
        return np.append(np.minimum.accumulate(arrivals)[::-1], np.inf)
