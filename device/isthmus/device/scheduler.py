"""Deadline-aware choice of how a frame is answered. Pure: no clock, no IO, no randomness; a few table look-ups.

Always one rule: take the option with the greatest expected utility, E[u] = Σ_j P(prefix j is back in time) · its accuracy
+ (otherwise) the exit's accuracy - price of the bytes - cost of the energy still to be spent, where that weighs anything. All
accuracies are what validation counted where the exit was so confident, or what the bundle's predictor makes of what the exits
said (`deciding.expectation`); a confidence itself is a probability over all pictures together only, and no match for theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import Struct, structs

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.deciding.energy import EnergyCost
from isthmus.device.deciding.expectation import Chances, Expectation
from isthmus.device.link_estimator import MESSAGE_BYTES, Outlook
from isthmus.device.stage_times import StageTimes
from isthmus.proto.vocabulary import Frame, Guess, StageResult

PRICE_OF_LINK = 0.002
"""Utility that an idle link costs, times 1 / (1 - use): the nearer to all of it, the longer what swings must wait."""
FULL_USE = 0.95
"""The use of a link at which its price grows no further."""
PRICE_AT_LEISURE = 0.003
"""The same where no period is known, and so no use: what takes the link for the whole budget must win so much."""
LEAST_S = 0.001
"""The budget of a frame that has its answer, for policies that know of no tracker: nothing is back so soon."""
MOST_WAIT = 0.5
"""Of the time between frames: so long a frame may wait for a head that takes longer than that, since of two that wait only the
newest is sure to be begun. The rest is for heads that take longer than was thought."""
INDIFFERENCE = 0.001
"""Going on must promise so much more than stopping: less is within what validation can tell apart."""


class Stop(Struct, frozen=True):
    """Answer from this exit."""


class GoOn(Struct, frozen=True):
    """Run the next stage."""


class Offload(Struct, frozen=True):
    """Send `layers` layers at this quantiser step."""

    step: int
    layers: int
    promised: float | None = None
    """The probability that all of them are answered in time, as far as the policy asked for it."""


Decision = Stop | GoOn | Offload
Way = tuple[float, float, bool, int]
"""Mean bytes and accuracy of a way to offload, whether the picture crosses, and its layers. The bytes hold the framing between
layers."""
Ways = tuple[Way, ...]
"""The most accurate first."""
Left = tuple[float, float]
"""Seconds left once features could be sent, and once the picture could; not above 0 where that is no way."""
Spent = tuple[float, float]
"""The utility that computing costs until features could be sent, and until the picture could."""
STOP, GO_ON = Stop(), GoOn()
FREE: Spent = 0.0, 0.0


class Situation(Struct, frozen=True):
    """What a decision may look at. `outlook` is None when nothing can be sent; `period_s` is the time between frames."""

    budget_s: float
    outlook: Outlook | None
    times: StageTimes
    period_s: float | None = None
    share: float = 1.0
    """What frames lately took of the bytes that they would have taken whole: time in the codec."""
    waited_s: float = 0.0
    """How long ago the frame was captured."""
    least: float = 0.0
    """The least probability of being answered in time that it may be sent with."""
    energy: EnergyCost | None = None
    """What joules cost; None where they weigh nothing."""
    crowding: float = 0.0
    """What each second in flight costs for want of the server's credits."""
    whole_s: float = 0.0
    """What the frame had from its capture until it was due. This and what follows is told where things are tracked."""
    late_s: float = 0.0
    """How long ago it was due."""
    detected_s: float | None = None
    """How much older the newest picture is that a detection of is known; None where nothing is tracked."""

    def tracked(self, frame: Frame, due_s: float, detected_s: float | None) -> Situation:
        """The same, of a frame that what is tracked may answer; the newest picture with a detection is of `detected_s`."""
        return structs.replace(
            self,
            budget_s=max(self.budget_s, LEAST_S),
            whole_s=due_s - frame.captured_s,
            late_s=max(0.0, -self.budget_s),
            detected_s=None if detected_s is None else max(0.0, frame.captured_s - detected_s),
        )


class Policy(Protocol):
    """Chooses a width before the head and what to do after each exit."""

    def width(self, situation: Situation) -> int | None:
        """The index of the width to run the head at; None where what is tracked is answer enough."""

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """What to do now that an exit has spoken; never GoOn after the last stage."""


class ExpectedUtility:
    """The shipped policy."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._last = catalogue.stages - 1
        self._ways = tuple(
            _best_first((_carried_bytes(k), k.accuracy, self._is_picture(k), k.point.layers) for k in known)
            for known in _known(catalogue)
        )
        """[width]: every way to offload."""
        alone = (exits[self._last].accuracy for exits in catalogue.exits)
        self._most = tuple(
            max([exit_, *(way[1] for way in ways)]) for exit_, ways in zip(alone, self._ways, strict=True)
        )
        """[width]: what it is worth if the link costs nothing."""
        self._ways_given = tuple(
            tuple(
                tuple(
                    _best_first(
                        (_carried_bytes(k), k.given[stage][b], self._is_picture(k), k.point.layers) for k in known
                    )
                    for b in range(len(catalogue.confidence_edges) + 1)
                )
                for stage in range(catalogue.stages)
            )
            for known in _known(catalogue)
        )
        """[width][stage][confidence bin]: the same where the exit after that stage was so confident."""
        self._expectation = Expectation(catalogue)
        self._said: tuple[int, Guess | None] = -1, None
        """The frame whose head ran last, and what its exit before the last said."""

    def width(self, situation: Situation) -> int | None:
        """The width whose best way, alone or with the server, is worth most; the narrowest if none can finish in time."""
        best, chosen, within = -math.inf, 0, 0
        for w in range(len(self._catalogue.widths)):
            if w and self._most[w] <= best + INDIFFERENCE:
                continue
            head_s = situation.times.ahead_s(0, w)
            if w and head_s > situation.budget_s:
                break  # wider ones take longer still
            worth = self._at(w, situation)
            if w and situation.period_s and head_s > situation.period_s:
                worth -= self._overrun(head_s, within, situation, situation.period_s)
            else:
                within = chosen if worth <= best + INDIFFERENCE * (w > 0) else w
            if worth > best + INDIFFERENCE * (w > 0):
                best, chosen = worth, w
        return chosen

    def _at(self, w: int, situation: Situation) -> float:
        """What the whole head at this width promises; nothing where it cannot end in time."""
        exits = self._catalogue.exits[w]
        worth = self._foreseen(exits[self._last].accuracy, self._ways[w], w, 0, situation)
        if situation.energy is None:
            return worth
        return max(worth, self._stopping([known.accuracy for known in exits], w, 0, situation, situation.energy))

    def _overrun(self, head_s: float, within: int, situation: Situation, period_s: float) -> float:
        """What a head that takes longer than there is between frames costs the frames that follow.

        They wait for it, until heads at the width `within`, which take less, have made up for it: their loss is what the
        first of them loses, times how many that takes.
        """
        narrow_s = situation.times.ahead_s(0, within)
        spare_s, wait_s = period_s - narrow_s, situation.waited_s + head_s - period_s
        whole_s = situation.budget_s + situation.waited_s
        if spare_s <= 0 or wait_s > min(MOST_WAIT * period_s, whole_s - narrow_s):
            return math.inf
        otherwise_s = max(0.0, situation.waited_s - spare_s)
        before, after = (
            self._at(within, structs.replace(situation, budget_s=whole_s - s)) for s in (otherwise_s, wait_s)
        )
        return max(1.0, (head_s - period_s) / spare_s) * (before - after)

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Stop, go on, or send: whatever promises most."""
        w = self._catalogue.width_index(result.width)
        before = self._said[1] if self._said[0] == result.frame_id else None
        chances = self._expectation.chances(w, result.stage, result.guess, before)
        worth, decision = self._sending(chances, result, situation)
        if result.stage < self._last:
            self._said = result.frame_id, result.guess
            further = self._further(w, result, situation)
            if further > max(worth, chances.exit + INDIFFERENCE):
                return GO_ON
        return decision if worth > chances.exit + INDIFFERENCE else STOP

    def _alone(self, w: int, result: StageResult) -> float:
        """How often this exit was right where it was so confident."""
        return self._catalogue.exits[w][result.stage].given[result.stage][self._catalogue.bin(result.confidence)]

    def price(self, size_bytes: float, situation: Situation, outlook: Outlook) -> float:
        """What sending costs the frames after this one.

        Drift plus penalty (Neely 2010): the length of the queue, as a share of what a frame may wait, times the share of
        the link's capacity that one such message a frame would take. Queue that is gone before the next frame comes is
        in nobody's way. An idle link is almost free, until what is sent for each frame takes most of it: the queue of a
        link whose rate swings goes with 1 / (1 - use). A sender that fills its own queue stops while the queue is still
        short enough for what is in it to be in time. And a frame in flight has one of the server's credits: `crowding`.
        """
        period_s = situation.period_s or situation.budget_s
        service_s = (size_bytes + MESSAGE_BYTES) * outlook.slowness  # `service_s`, asked a dozen times a frame
        use = service_s / period_s
        idle = PRICE_OF_LINK / (1 - min(use, FULL_USE)) if situation.period_s else PRICE_AT_LEISURE
        queue_s, beyond_s = outlook.queue_s, outlook.queue_s + service_s - period_s
        left_s = 0.0 if beyond_s <= 0 else beyond_s if beyond_s < queue_s else queue_s
        credit = situation.crowding * (outlook.ahead_s + service_s + outlook.server_s)
        return (left_s / situation.budget_s + idle) * use + credit

    def _is_picture(self, known: Known) -> bool:
        return known.point.step is not None and self._catalogue.is_picture(known.point.step)

    def _left_s(self, w: int, stage: int, situation: Situation) -> Left:
        """What is left of the budget when the head runs on from the beginning of `stage`."""
        catalogue, times = self._catalogue, situation.times
        features_s = situation.budget_s - times.ahead_s(stage, w)
        if catalogue.feature_steps is None or stage > catalogue.picture_stage:
            return features_s, 0.0
        ready_s = times.ahead_s(stage, w, catalogue.picture_stage + 1)
        return features_s, situation.budget_s - ready_s - times.coding_s()

    def _further(self, w: int, result: StageResult, situation: Situation) -> float:
        """What running on promises, judged by this exit's confidence; less than nothing where there is no time for it."""
        begin, exits = result.stage + 1, self._catalogue.exits[w]
        left_s = self._left_s(w, begin, situation)
        if max(left_s) <= 0:
            return -1.0
        given = self._catalogue.bin(result.confidence)
        alone = exits[self._last if left_s[0] > 0 else result.stage].given[result.stage][given]
        worth = self._foreseen(alone, self._ways_given[w][result.stage][given], w, begin, situation, left_s)
        if situation.energy is None:
            return worth
        rights = [known.given[result.stage][given] for known in exits]
        return max(worth, self._stopping(rights, w, begin, situation, situation.energy))

    def _spent(self, w: int, stage: int, times: StageTimes, energy: EnergyCost) -> Spent:
        """What it costs to run the head from the beginning of `stage` to where what crosses is there to be sent."""
        picture = energy.head(times, w, stage, self._catalogue.picture_stage) + energy.computing(times.coding_s())
        return energy.head(times, w, stage, self._last), picture

    def _stopping(self, rights: Sequence[float], w: int, begin: int, situation: Situation, energy: EnergyCost) -> float:
        """What stopping before the last exit promises, at the best stage from `begin` on: it saves the stages after it.

        `rights[stage]`: how often the exit there is right.
        """
        return max(
            (
                rights[stage] - energy.head(situation.times, w, begin, stage)
                for stage in range(begin, self._last)
                if situation.times.ahead_s(begin, w, stage + 1) <= situation.budget_s
            ),
            default=-math.inf,
        )

    def _foreseen(
        self, alone: float, ways: Ways, w: int, begin: int, situation: Situation, left_s: Left | None = None
    ) -> float:
        """What the best of these ways, or none of them, is worth where the head runs on from the beginning of a stage.

        `left_s`: what is left once it can be sent, where that is known already.
        """
        outlook, energy = situation.outlook, situation.energy
        spent = FREE if energy is None else self._spent(w, begin, situation.times, energy)
        worth = alone - spent[0]
        if outlook is None:
            return worth
        left_s = left_s or self._left_s(w, begin, situation)
        for mean_bytes, accuracy, picture, layers in ways:
            if accuracy <= worth:
                break  # nor are the ways after it worth more than their accuracy
            if left_s[picture] <= 0:
                continue
            size_bytes = mean_bytes if picture else mean_bytes * situation.share
            p, price = outlook.p_back(size_bytes, left_s[picture]), self.price(size_bytes, situation, outlook)
            if energy is not None:
                price += spent[picture] + energy.sending(layers, size_bytes, _span_s(situation))
            if p >= situation.least:
                worth = max(worth, p * accuracy + (1 - p) * alone - price)
        return worth

    def _sending(self, chances: Chances, result: StageResult, situation: Situation) -> tuple[float, Decision]:
        """The best (step, layers) by the sizes predicted for this very frame, of what there is to be sent of it."""
        best: float = -1.0
        decision: Decision = STOP
        outlook, energy = situation.outlook, situation.energy
        if outlook is None or result.layer_bytes is None:
            return best, decision
        alone, features_s = chances.exit, situation.budget_s
        picture_s = features_s - situation.times.coding_s()
        for step, (right, sizes) in enumerate(zip(chances.sent, result.layer_bytes, strict=False)):
            sent, p_before, gain_before = -MESSAGE_BYTES, 0.0, 0.0
            picture = self._catalogue.is_picture(step)
            left_s = picture_s if picture else features_s
            for layers, size in enumerate(sizes, start=1):
                sent += MESSAGE_BYTES + size  # each layer is a message, and the link knows of one
                p = outlook.p_back(sent, left_s)
                if p < situation.least:
                    break  # more layers are no likelier to be in time
                gain = right[layers - 1] - alone
                # The server starts on what has arrived: if this prefix is too late, the one before it may not be.
                before = (p_before - p) * gain_before if layers > 1 else 0.0
                if result.delta_bytes and result.as_delta(step, layers):
                    before = 0.0  # one message: all of it arrives, or nothing
                worth = alone + p * gain + before - self.price(sent, situation, outlook)
                if energy is not None:
                    worth -= energy.sending(layers, sent, _span_s(situation))
                    worth -= energy.computing(situation.times.coding_s()) if picture else 0.0
                p_before, gain_before = p, gain
                if worth > best:
                    best, decision = worth, Offload(step, layers, p)
        return best, decision


def _known(catalogue: Catalogue) -> list[list[Known]]:
    """[width]: every operating point that offloads."""
    return [[known for step in width for known in step] for width in catalogue.offloads]


def _carried_bytes(known: Known) -> float:
    """Its mean bytes with the framing of every layer but one, which the link counts itself."""
    return known.mean_bytes + MESSAGE_BYTES * (known.point.layers - 1)


def _span_s(situation: Situation) -> float:
    """The time that a frame pays its radio for."""
    return situation.period_s or situation.budget_s


def _best_first(ways: Iterable[Way]) -> Ways:
    return tuple(sorted(ways, key=lambda way: -way[1]))


class AlwaysOffload:
    """Full width, everything sent at the finest step, whatever the link: the naive rival."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._widest, self._last = len(catalogue.widths) - 1, catalogue.stages - 1

    def width(self, situation: Situation) -> int:
        """The index of the widest head."""
        return self._widest

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the end of the head, then send every layer at the finest step."""
        if result.stage < self._last:
            return GO_ON
        if situation.outlook is None or result.layer_bytes is None:
            return STOP
        return Offload(0, len(result.layer_bytes[0]))


class LocalOnly:
    """The last exit at the widest width that fits: what the device can do alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._widths, self._last = len(catalogue.widths), catalogue.stages - 1

    def width(self, situation: Situation) -> int:
        """The index of the widest head that finishes in time, and before the next frame comes."""
        limit_s = min(situation.budget_s, situation.period_s or situation.budget_s)
        for w in range(self._widths - 1, 0, -1):
            if situation.times.ahead_s(0, w) <= limit_s:
                return w
        return 0

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """Go on to the last exit, and answer from it."""
        return GO_ON if result.stage < self._last else STOP


POLICIES: dict[str, Callable[[Catalogue], Policy]] = {
    "expected-utility": ExpectedUtility,
    "always-offload": AlwaysOffload,
    "local-only": LocalOnly,
}
