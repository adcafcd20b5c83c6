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

from msgspec import Struct, structs

from isthmus.device.catalogue import Catalogue
from isthmus.device.deciding import outside
from isthmus.device.link_estimator import MESSAGE_BYTES, Outlook
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
LATE_S = (0.0, 0.1, 0.25, 0.5, 1.0)
"""How much later than its frame is due an answer may be there, as far as it is told apart; later ones are not waited for."""
APART = 3
"""The server's word on so many frames apart is worth nearly as much as its word on each, since words are averaged along a
track: so much of a narrow link may one message take."""
UNSURE = 0.01
"""The wider head runs unless a narrower one promises so much more: less is within what validation tells apart, and what is
mixed of several widths is worth less than what is of one."""


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
    """Needs a catalogue that knows how answers age.

    What a fresh answer is worth is the beginning of its row of ageing: counted frame by frame on clips, as all here is.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue)
        assert catalogue.ageing is not None, "the bundle has no table of ageing"
        self._ageing = catalogue.ageing
        self._best_sent = tuple(
            max((known.accuracy for step in width for known in step), default=1.0) or 1.0
            for width in catalogue.offloads
        )
        """[width]: the accuracy of the way to offload whose answers' ageing is known."""
        self._best = tuple(
            sorted(((k.accuracy, k.mean_bytes, k.point.layers) for step in width for k in step), reverse=True)[:WAYS]
            for width in catalogue.offloads
        )
        """[width]: accuracy, mean bytes and layers of the ways to offload that are looked at before the head."""
        rows = zip(self._ageing.exit, self._ageing.server, strict=True)
        self._late = tuple(
            tuple(
                (age_s, share_left(self._ageing, here, age_s), share_left(self._ageing, there, age_s))
                for age_s in LATE_S
            )
            for here, there in rows
        )
        """[width]: each of `LATE_S`, and the shares that exit and server have left by then."""
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
            if worth > best - UNSURE:
                best, chosen, shortest = worth, w, served
        self._interval = shortest.count
        return chosen

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Stop, go on, or send, by what the server's word is worth beyond the exit's, whenever it comes."""
        if not situation.whole_s or result.stage < self._last:
            return super().after_exit(result, situation)
        outlook, w = situation.outlook, self._catalogue.width_index(result.width)
        if outlook is None or result.layer_bytes is None:
            return STOP
        here, there = self._word(w, result)
        left_s = -situation.late_s if situation.late_s else situation.budget_s
        best: float = INDIFFERENCE
        decision: Decision = STOP
        for step, sizes in enumerate(result.layer_bytes):
            sent = -MESSAGE_BYTES
            for layers, size in enumerate(sizes, start=1):
                sent += MESSAGE_BYTES + size  # each layer is a message, and the link knows of one
                promised = outlook.p_back(sent, left_s) if left_s > 0 else 0.0
                if promised < situation.least:
                    break  # more layers are no likelier to be in time
                worth = self._sent_worth(w, here, there[step][layers - 1], sent, left_s, outlook)
                worth -= self._price_served(sent, layers, situation, outlook, self._interval)
                if worth > best:
                    best, decision = worth, Offload(step, layers, promised)
        return decision

    def _word(self, w: int, result: StageResult) -> tuple[float, Sequence[Sequence[float]]]:
        """How often the exit is right, and the server [step][layers - 1], in this frame.

        Where no predictor was fitted, as often as in any: counts by confidence are of single answers, and few.
        """
        here, there = self._ageing.exit[w][0], self._ageing.server[w][0] / self._best_sent[w]
        known = self._catalogue.offloads[w]
        if not self._catalogue.predictors:
            return here, [[there * point.accuracy for point in step] for step in known]
        chances = self._expectation.chances(w, result.stage, result.guess)
        usual = self._catalogue.exits[w][self._last].accuracy or 1.0
        return here * chances.exit / usual, [[there * right for right in step] for step in chances.sent]

    @staticmethod
    def _late_s(head_s: float, situation: Situation) -> float:
        """How much older than its own frame's is the first due time that a head begun now keeps."""
        period_s = situation.period_s or situation.whole_s
        return max(0, math.ceil((head_s - situation.budget_s) / period_s)) * period_s

    def _foreseen_served(self, w: int, served: _Served, situation: Situation, head_s: float) -> float:
        """What the best way to offload, or none, is worth to the frames that a detection at this width serves."""
        row, outlook = self._ageing.exit[w], situation.outlook
        alone = sum(row[0] * share_left(self._ageing, row, age_s) for age_s in served.ages_s) / len(served.ages_s)
        if situation.energy is not None:
            alone -= situation.energy.head(situation.times, w, 0, self._last) / served.count
        if outlook is None:
            return alone
        gain, there = 0.0, self._ageing.server[w][0] / self._best_sent[w]
        for accuracy, mean_bytes, layers in self._best[w]:
            size_bytes = mean_bytes * situation.share
            worth = self._sent_worth(w, row[0], there * accuracy, size_bytes, situation.budget_s - head_s, outlook)
            gain = max(gain, worth - self._price_served(size_bytes, layers, situation, outlook, served.count))
        return alone + gain

    def _sent_worth(
        self, w: int, here: float, there: float, size_bytes: float, left_s: float, outlook: Outlook
    ) -> float:
        """What so many bytes bring beyond the exit's answer, which is right so often `here` as theirs is `there`.

        Both have their word on the thing's track until it ends, so an answer that comes late is worth its gain at that age.
        `left_s`: until the frame is due.
        """
        worth, before = 0.0, 0.0
        for age_s, ours, theirs in self._late[w]:
            p = outlook.p_back(size_bytes, left_s + age_s) if left_s + age_s > 0 else 0.0
            worth, before = worth + (p - before) * (there * theirs - here * ours), p
            if p == 1.0:
                break
        return worth

    def _price_served(
        self, size_bytes: float, layers: int, situation: Situation, outlook: Outlook, count: int
    ) -> float:
        """The price of a message and its energy, shared by the frames that it serves; what is late may wait so much longer.

        The link is asked for one message in so many frames, not for one in each: see `APART`.
        """
        period_s = APART * (situation.period_s or situation.whole_s)
        patient = structs.replace(situation, budget_s=situation.budget_s + LATE_S[-1], period_s=period_s)
        price = self.price(size_bytes, patient, outlook)
        if situation.energy is not None:
            price += situation.energy.sending(layers, size_bytes, count * (situation.period_s or situation.whole_s))
        return price / count


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
