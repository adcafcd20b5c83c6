"""The shipped policy where things are tracked: how often to detect, how wide, and what to send, as one choice.

The rule is the scheduler's own, summed over the frames that one detection serves: it answers its own frame if it is ready
by then, and the frames after it as long as it is carried on, worth less the older it is (the bundle's table of ageing).
So a late answer is worth what it is worth to the frames after it, a wide head what it is worth though it is ready late,
and a detection what it is better than the last one carried on. All times are those measured now: where heat or other work
slows the head, intervals grow or heads get narrower. Pure: no clock, no IO, no randomness.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct

from isthmus.device.catalogue import Catalogue
from isthmus.device.deciding import outside
from isthmus.device.link_estimator import Outlook
from isthmus.device.scheduler import (
    INDIFFERENCE,
    STOP,
    Decision,
    ExpectedUtility,
    Offload,
    Policy,
    Situation,
)
from isthmus.models.bundle import Ageing
from isthmus.proto.vocabulary import StageResult

WAYS = 4
"""Ways to offload that are looked at before the head, the most accurate first."""


class _Served(Struct, frozen=True):
    """The frames that one detection serves, and where it stands itself."""

    first_s: float
    """How much older than the detection's is the first frame that it answers: 0 where that is its own."""
    period_s: float
    count: int

    @property
    def ages_s(self) -> tuple[float, ...]:
        """Of three of its frames, the first, the middle and the last: what lies between is nearly straight."""
        last = self.count - 1
        steps = (0, last // 2, last) if last > 1 else range(self.count)
        return tuple(self.first_s + step * self.period_s for step in steps)


class TrackedUtility(ExpectedUtility):
    """Needs a catalogue that knows how answers age."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue)
        assert catalogue.ageing is not None, "the bundle has no table of ageing"
        self._ageing = catalogue.ageing
        self._best = tuple(
            sorted(((k.accuracy, k.mean_bytes, k.point.layers) for step in width for k in step), reverse=True)[:WAYS]
            for width in catalogue.offloads
        )
        """[width]: accuracy, mean bytes and layers of the ways to offload that are looked at before the head."""
        self._interval = 1
        """Frames that the detection now being made is to serve."""

    def width(self, situation: Situation) -> int | None:
        """The width whose detections are worth most to all the frames that they serve until the next is ready.

        The head runs again as soon as it is free: every detection is a vote, of which the table of ageing does not know.
        """
        if not situation.whole_s:  # nothing is tracked
            return super().width(situation)
        period_s = situation.period_s or situation.whole_s
        best, chosen, shortest = -math.inf, 0, _Served(0.0, period_s, 1)
        for w in range(len(self._catalogue.widths)):
            head_s = situation.times.ahead_s(0, w)
            served = _Served(self._late_s(head_s, situation), period_s, max(1, math.ceil(head_s / period_s)))
            worth = self._foreseen_served(w, served, situation, head_s)
            if worth > best + INDIFFERENCE * (w > 0):
                best, chosen, shortest = worth, w, served
        self._interval = shortest.count
        return chosen

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Stop, go on, or send, by what it is worth to all the frames that this detection serves."""
        if not situation.whole_s or result.stage < self._last:
            return super().after_exit(result, situation)
        outlook, w = situation.outlook, self._catalogue.width_index(result.width)
        if outlook is None or result.layer_bytes is None:
            return STOP
        stop, given = self._alone(w, result), self._catalogue.bin(result.confidence)
        period_s = situation.period_s or situation.whole_s
        served = _Served(period_s * math.ceil(situation.late_s / period_s - 1e-6), period_s, self._interval)
        left_s = -situation.late_s if situation.late_s else situation.budget_s
        best = self._mean(self._ageing.exit[w], stop, served.ages_s) + INDIFFERENCE
        decision: Decision = STOP
        for step, sizes in enumerate(result.layer_bytes):
            sent = 0
            for layers, size in enumerate(sizes, start=1):
                sent += size
                right = self._catalogue.offloads[w][step][layers - 1].given[self._last][given]
                worth = self._sent_worth(w, stop, right, sent, served, left_s, outlook)
                worth -= self._cost(sent, layers, situation, outlook, served)
                if worth > best:
                    best, decision = worth, Offload(step, layers)
        return decision

    @staticmethod
    def _late_s(head_s: float, situation: Situation) -> float:
        """How much older than its own frame's is the first due time that a head begun now keeps."""
        period_s = situation.period_s or situation.whole_s
        return max(0, math.ceil((head_s - situation.budget_s) / period_s)) * period_s

    def _foreseen_served(self, w: int, served: _Served, situation: Situation, head_s: float) -> float:
        """What the best way to offload, or none, is worth to the frames that a detection at this width serves."""
        alone = self._catalogue.exits[w][self._last].accuracy
        best, outlook = self._mean(self._ageing.exit[w], alone, served.ages_s), situation.outlook
        energy, times = situation.energy, situation.times
        spent = 0.0 if energy is None else energy.head(times, w, 0, self._last) / served.count
        if outlook is None:
            return best - spent
        for accuracy, mean_bytes, layers in self._best[w]:
            left_s = situation.budget_s - head_s
            worth = self._sent_worth(w, alone, accuracy, mean_bytes, served, left_s, outlook)
            best = max(best, worth - self._cost(mean_bytes, layers, situation, outlook, served))
        return best - spent

    def _cost(self, size_bytes: float, layers: int, situation: Situation, outlook: Outlook, served: _Served) -> float:
        """What sending costs each of the frames that it serves."""
        cost = self.price(size_bytes, situation, outlook)
        if situation.energy is not None:
            cost += situation.energy.sending(layers, size_bytes, served.count * served.period_s)
        return cost / served.count

    def _sent_worth(
        self, w: int, alone: float, right: float, size_bytes: float, served: _Served, left_s: float, outlook: Outlook
    ) -> float:
        """What `alone` is worth to the frames served where this many bytes may bring something that is `right` so often.

        `left_s`: until the detection's own frame is due.
        """
        total, ages_s = 0.0, served.ages_s
        for age_s in ages_s:
            p = outlook.p_back(size_bytes, left_s + age_s) if left_s + age_s > 0 else 0.0
            here, there = (
                self._aged(self._ageing.exit[w], alone, age_s),
                self._aged(self._ageing.server[w], right, age_s),
            )
            total += here + p * max(0.0, there - here)
        return total / len(ages_s)

    def _mean(self, row: Sequence[float], fresh: float, ages_s: Sequence[float]) -> float:
        return sum(self._aged(row, fresh, age_s) for age_s in ages_s) / len(ages_s)

    def _aged(self, row: Sequence[float], fresh: float, age_s: float) -> float:
        """What an answer that is right so often when `fresh` is worth at an age."""
        return fresh * share_left(self._ageing, row, age_s)


def share_left(ageing: Ageing, row: Sequence[float], age_s: float) -> float:
    """The share of a fresh answer's worth that one of this age has, by the row of a table; beyond its end, as at its end."""
    ages_s = ageing.ages_s
    i = bisect_right(ages_s, age_s) - 1
    if row[0] <= 0:
        return 1.0
    if i + 1 >= len(ages_s):
        return row[-1] / row[0]
    over = (age_s - ages_s[i]) / (ages_s[i + 1] - ages_s[i])
    return (row[i] + over * (row[i + 1] - row[i])) / row[0]


def policy_called(name: str, catalogue: Catalogue) -> Policy:
    """The policy of this name; the shipped one minds how answers age where the bundle tells. ConfigError for an unknown name."""
    if name == "expected-utility" and catalogue.ageing is not None:
        return TrackedUtility(catalogue)
    return outside.factory(name)(catalogue)
