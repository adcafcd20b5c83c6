"""A share of the frames that are sent that is to be answered in time, kept in the long run whatever the link does. Pure.

Adaptive conformal control (Gibbs & Candès 2021): the least probability that a frame is sent with rises with every one that
was not back in time, and falls with one that was, by as much less as the share asks. So over many frames the share is kept,
however wrong the probabilities are.
"""

from __future__ import annotations

GAIN = 0.05
"""What one answer moves the least probability by at most: twenty of them take it from one end to the other."""
BEGIN = 0.5
"""Where it begins: before anything is known of a link, probabilities are modest, and what is likelier lost is not sent anyway."""
PATIENCE, STEP = 200, 0.02
"""After so many frames of which none was sent it falls by so much: or else a link that got better is never tried again."""


class KeptShare:
    """One device's. Without a share, everything may be sent."""

    def __init__(self, share: float | None = None) -> None:
        """`share` in (0, 1): of the frames that are sent, so many are to be answered in time."""
        self._share, self._withheld = share, 0
        self._least = 0.0 if share is None else BEGIN

    @property
    def least(self) -> float:
        """The least probability of being answered in time that a frame may be sent with."""
        return self._least

    def learn(self, promised: float | None, came: bool) -> None:
        """What became of a frame: sent with the probability `promised`, or not (None); whether it came back in time."""
        if self._share is None:
            return
        if promised is not None:
            self._least += GAIN * (self._share - came)
            self._withheld = 0
        elif (withheld := self._withheld + 1) < PATIENCE:
            self._withheld = withheld
        else:
            self._least, self._withheld = self._least - STEP, 0
        self._least = min(max(self._least, 0.0), 1.0)
