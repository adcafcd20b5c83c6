"""What joules cost as utility: the term of the one rule that weighs a battery against right answers. Pure.

Only energy above idling counts, as a profile counts it: what computing takes on top of idling, and the radio. All of it is per
frame. So a radio that stays on for seconds after a message is paid by each frame that is sent for its own period alone.
"""

from __future__ import annotations

from msgspec import Struct

from isthmus.device.stage_times import StageTimes
from isthmus.models.profiles import Profile, Radio


class EnergyCost(Struct, frozen=True):
    """The utility that energy costs on one device."""

    weight_per_J: float
    """Utility, a share of a right answer, that a joule costs."""
    computing_W: float
    """The power of computing above idling."""
    radio: Radio

    @classmethod
    def of(cls, profile: Profile, radio: str, weight_per_J: float) -> EnergyCost | None:
        """The cost on the machine of a profile; None where energy weighs nothing.

        Raises ConfigError where the profile knows nothing of power, or there is no such radio.
        """
        return cls(weight_per_J, profile.computing_W, profile.radio(radio)) if weight_per_J else None

    def head(self, times: StageTimes, width: int, begin: int, last: int) -> float:
        """The utility that computing the stages `begin` to `last` costs, at the width of this index."""
        return self.computing(sum(times.expected_s(stage, width) for stage in range(begin, last + 1)))

    def computing(self, seconds: float) -> float:
        """The utility that so much time of computing costs."""
        return self.weight_per_J * self.computing_W * seconds

    def sending(self, messages: int, size_bytes: float, period_s: float) -> float:
        """The utility that so many messages cost, of `size_bytes` together, by a frame whose period is this long."""
        return self.weight_per_J * self.radio.energy_J(messages, size_bytes, 0.0, period_s)
