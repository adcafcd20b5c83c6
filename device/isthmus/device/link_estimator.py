"""What the uplink will do next, judged by what it did: goodput, delay, and how far such predictions have been off.

A layer sent now is predicted to be acknowledged after the bytes ahead of it, its own bytes and one round trip. Every
probability is the mean of two, counted over the last 50 acknowledged layers: how many times as long as predicted they took,
and how long the link took for each of their bytes. The first knows of queues and stalls; the second does not pass the last
layer's luck for news. Heartbeats show the round trip, and whether anything comes back; they are too short to say how long
layers take.
Pure: no clock, no IO, no randomness.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import accumulate

from msgspec import Struct

from isthmus.proto.vocabulary import Load, ServerTimings

RING = 50
"""Layers that are remembered: with FORGETTING, the oldest weighs an eighth of the newest."""
FORGETTING = 0.96
"""Weight of a sample against the next newer one (conformal prediction under drift: Barber et al. 2023)."""
_WEIGHTS = tuple(tuple(FORGETTING ** ((newest - slot) % RING) for slot in range(RING)) for newest in range(RING))
"""[slot of the newest][slot]: a sample's weight by its place in the ring."""
MESSAGE_BYTES = 30
"""What framing (protobuf, gRPC, HTTP/2) adds to a payload."""
NOISE_SHARE = 0.25
NOISE_S = 0.001
SWINGS = 16
SWINGS_NOISE = 2.0
"""A layer whose own service is shorter than the noise shows a lower bound of the goodput only. The noise is NOISE_S and what half
of the last SWINGS messages took beyond the shortest, SWINGS_NOISE times; but no more than NOISE_SHARE of a round trip."""
GOODPUT_GAIN = 0.5
GOODPUT_CLIP = 2.0
"""One sample moves the logarithm of the estimate by at most GOODPUT_GAIN * GOODPUT_CLIP, so no stall passes for a rate."""
SWING = 2.0
"""A service of so many round trips is half believed to be one: the delay itself may have swung by as much."""
USUAL_PAUSES = 4.0
"""A link is hoped to have become faster after so many times what there was between two layers, at the earliest."""
STALL_RATIO_CAP = 4.0
"""However bad the link has been, a layer that takes so many times what was predicted is overdue."""
RECENT = 256
"""Results are believed of so many frames that were sent last: more than are ever in flight within a deadline."""


@dataclass(frozen=True)
class LinkConfig:
    """What is believed of a link before it has shown anything: hopeful, so that it is tried."""

    goodput_Bps: float = 1e6
    round_trip_s: float = 0.05
    ageing_s: float = 8.0
    """What was learnt counts for e times less after this time without a layer's acknowledgement, and the link is hoped to
    have become so much faster: so a link that was given up is tried again, whatever its heartbeats say."""
    round_trip_window_s: float = 4.0
    """Longer than it takes the queue to empty once; cellular and satellite links change their delay within seconds."""


class _Flying(Struct):
    """A layer that was written and not yet acknowledged."""

    key: tuple[int, int]
    size_bytes: int
    sent_s: float
    predicted_s: float
    """Delay predicted when it was sent."""


class Outlook(Struct):
    """The link as it looks at one moment; every question of one decision is asked of the same outlook."""

    ahead_s: float
    """Time until a byte written now would start to be served, and the round trip."""
    queue_s: float
    """How long what was sent before will still keep the link."""
    slowness: float
    """Seconds that the link is believed to take for a byte."""
    prior_slowness: float
    """The lesser of that and what was believed before anything was learnt."""
    stall_s: float
    """How long the oldest acknowledgement is overdue beyond what is usual."""
    server_s: float
    """Expected time on the server."""
    memory: float
    """The weight of what was learnt, 0 to 1."""
    ratios: list[float]
    """Actual over predicted delay of the last layers, least first."""
    weights: list[float]
    """The weight of all ratios before each, and at the end that of all."""
    paces: list[float]
    """Seconds that the link took for a byte of each of the last layers, least first; all count alike."""

    def service_s(self, size_bytes: float) -> float:
        """How long `size_bytes` keep the link from what is sent after them."""
        return (size_bytes + MESSAGE_BYTES) * self.slowness

    def delay_s(self, size_bytes: float) -> float:
        """Expected time from writing `size_bytes` to the acknowledgement: bytes ahead, own bytes, one round trip."""
        return self.ahead_s + self.service_s(size_bytes)

    def p_back(self, size_bytes: float, budget_s: float) -> float:
        """Probability that `size_bytes` written now are answered within `budget_s`, the server's time included.

        The mean of two, by the ratios and by the paces. Each is weighted split-conformal: (mass of what would do + prior) /
        (mass + 1), within 1 / (mass + 1) of the share that is kept in the long run. The prior's one sample is log-logistic
        around the hopeful prediction. A stall of age e outlasts another x seconds with probability e / (e + x) (Pareto: the
        longer it lasts, the longer it will).
        """
        left_s = budget_s - self.server_s
        if left_s <= 0:
            return 0.0
        carried_bytes, ahead_s, memory = size_bytes + MESSAGE_BYTES, self.ahead_s, self.memory
        hopeful_s = ahead_s + carried_bytes * self.prior_slowness
        hopeful = left_s * left_s / (left_s * left_s + hopeful_s * hopeful_s)
        by_ratio = self.weights[bisect_right(self.ratios, left_s / (ahead_s + carried_bytes * self.slowness))]
        by_pace = bisect_right(self.paces, (left_s - ahead_s) / carried_bytes)
        p = (by_ratio * memory + hopeful) / (self.weights[-1] * memory + 1)
        p += (by_pace * memory + hopeful) / (len(self.paces) * memory + 1)
        return p / 2 * left_s / (left_s + self.stall_s)


class LinkEstimator:
    """One uplink. Feed it what was sent and what came back; ask it for an `Outlook`."""

    def __init__(self, config: LinkConfig = LinkConfig()) -> None:
        self._config = config
        self._prior_slowness = 1.0 / config.goodput_Bps
        self._slowness = self._prior_slowness  # s per byte
        self._round_trip = _WindowedMinimum(config.round_trip_window_s)
        self._flying: deque[_Flying] = deque()
        self._sent_s: dict[int, float] = {}
        """When the base of each of the last frames was written, oldest first."""
        self._newest = -1
        """Slot of the newest ratio; a ring of RING."""
        self._slots: list[int] = []
        """The slot of each of the ratios below."""
        self._ratios: list[float] = []
        """Actual over predicted delay, least first."""
        self._weights: list[float] = [0.0]
        self._newest_paces: deque[float] = deque(maxlen=RING)
        self._paces: list[float] = []
        """Service per byte, least first."""
        self._weighed = True
        self._usual_worst = 2.0
        self._newest_delays_s: deque[float] = deque(maxlen=SWINGS)
        self._last_ack_s = self._last_layer_s = -math.inf
        self._learnt_s, self._between_s = -math.inf, 0.0
        """When a layer was last acknowledged, by whatever stream; and how long after the one before."""
        self._load = Load()
        self._overrun_s = 0.0

    @property
    def goodput_Bps(self) -> float:
        """Bytes per second that the link is believed to deliver."""
        return 1.0 / self._slowness

    @property
    def round_trip_s(self) -> float:
        """Delay of a very small message on the idle link."""
        known = self._round_trip.value
        return self._config.round_trip_s if known is None else known

    def usual_way_s(self) -> float:
        """What a small message and the answer to it take together; nine of ten take less, as far as they are known.

        The least round trip alone is too little by the link's own swing: a server that is told to answer by then answers
        just too late under load, frame after frame.
        """
        self._weigh()
        return self.round_trip_s * self._usual_worst

    @property
    def waiting_since_s(self) -> float | None:
        """When the oldest message without an acknowledgement was written; None when there is none."""
        return self._flying[0].sent_s if self._flying else None

    def owes(self, frame_id: int) -> bool:
        """Whether a frame's base was written and has not been acknowledged."""
        return any(flying.key == (frame_id, 0) for flying in self._flying)

    def take_after(self, other: LinkEstimator) -> None:
        """Another server is left for this one, and nothing has been sent here yet: the device's own uplink is the same."""
        if not self._ratios:
            self._slowness, self._learnt_s, self._between_s = other._slowness, other._learnt_s, other._between_s

    def server_s(self, now: float) -> float:
        """Expected time on the server: what it reports, plus what it lately took beyond its report."""
        return self._load.wait_s + self._load.tail_s + self._overrun_s * self._memory(now)

    def outlook(self, now: float) -> Outlook:
        """The link as it looks at `now`."""
        self._weigh()
        ahead_s, memory, slowness = self._ahead_s(now), self._memory(now), self._believed_slowness(now)
        return Outlook(
            ahead_s=ahead_s,
            queue_s=max(0.0, ahead_s - self.round_trip_s),
            slowness=slowness,
            prior_slowness=min(slowness, self._prior_slowness),
            stall_s=self._stall_s(now),
            server_s=self._load.wait_s + self._load.tail_s + self._overrun_s * memory,
            memory=memory,
            ratios=self._ratios.copy(),
            weights=self._weights,
            paces=self._paces,
        )

    def on_sent(self, frame_id: int, layer: int, size_bytes: int, now: float) -> None:
        """A layer was written."""
        carried_bytes = size_bytes + MESSAGE_BYTES
        predicted_s = self._ahead_s(now) + carried_bytes * self._believed_slowness(now)
        self._flying.append(_Flying((frame_id, layer), carried_bytes, now, predicted_s))
        if layer == 0 and frame_id >= 0:
            self._sent_s[frame_id] = now
            if len(self._sent_s) > RECENT:
                del self._sent_s[next(iter(self._sent_s))]

    def on_ack(self, frame_id: int, layer: int, now: float) -> None:
        """A layer arrived whole at the server. Acknowledgements of unknown layers are ignored."""
        self._arrived((frame_id, layer), now)

    def on_beat_sent(self, sequence: int, now: float) -> None:
        """A heartbeat was written: a probe of the round trip."""
        self.on_sent(-1, sequence, 0, now)

    def on_beat(self, sequence: int, now: float) -> None:
        """A heartbeat came back."""
        self._arrived((-1, sequence), now)

    def on_result(self, frame_id: int, layers_used: int, timings: ServerTimings, now: float) -> None:
        """A result came back. It acknowledges the layers it used, less the time that the server took.

        A result of a frame that was never sent, or long ago, teaches nothing; no server can have taken longer than it had.
        """
        sent_s = self._sent_s.pop(frame_id, None)
        if sent_s is None:
            return
        actual_s = min(timings.queue_s + timings.tail_s + timings.send_s, now - sent_s)
        used = [f.key for f in self._flying if f.key[0] == frame_id and f.key[1] < layers_used]
        for key in used:
            self._arrived(key, now - actual_s)
        beyond_s = max(0.0, actual_s - self._load.wait_s - self._load.tail_s)
        self._overrun_s += 0.2 * (beyond_s - self._overrun_s)

    def on_load(self, load: Load) -> None:
        """The server's latest word on its load."""
        self._load = load

    def reset(self, now: float) -> None:
        """The stream is gone, and with it all that was under way; the next link may be another one entirely."""
        self._flying.clear()
        self._sent_s.clear()
        self._round_trip.clear()
        self._last_ack_s = self._last_layer_s = -math.inf
        self._overrun_s = 0.0
        self._load = Load()

    def _memory(self, now: float) -> float:
        return math.exp(min(0.0, (self._last_layer_s - now) / self._config.ageing_s))

    def _believed_slowness(self, now: float) -> float:
        """What was learnt, or less where it was learnt long ago, by the time that is usual between layers.

        Nothing but a layer would show that a link has recovered, and none is sent over one that is believed to be too slow.
        """
        if self._slowness <= self._prior_slowness:
            return self._slowness
        ages = (now - self._learnt_s) / max(self._config.ageing_s, USUAL_PAUSES * self._between_s)
        return max(self._prior_slowness, self._slowness * math.exp(-ages * ages))

    def _ahead_s(self, now: float) -> float:
        """Time before a byte written now starts to be served, and the round trip, if nothing gets worse."""
        if not self._flying:
            return self.round_trip_s
        first, last = self._flying[0], self._flying[-1]
        overdue_s = max(0.0, now - first.sent_s - first.predicted_s)
        return max(self.round_trip_s, last.sent_s + last.predicted_s + overdue_s - now)

    def _stall_s(self, now: float) -> float:
        """How long the oldest acknowledgement is overdue beyond what is usual here."""
        if not self._flying:
            return 0.0
        first = self._flying[0]
        return max(0.0, now - first.sent_s - first.predicted_s * self._usual_worst)

    def _arrived(self, key: tuple[int, int], now: float) -> None:
        if key not in [flying.key for flying in self._flying]:
            return
        while (flying := self._flying.popleft()).key != key:
            pass  # one stream, in order: whatever was written earlier has arrived, or never will
        self._learn(flying, now)

    def _learn(self, flying: _Flying, now: float) -> None:
        delay_s = max(now - flying.sent_s, 1e-6)
        self._round_trip.add(delay_s, now)
        self._newest_delays_s.append(delay_s)
        # Lindley's recursion: service began at the previous departure or the own arrival, whichever was later.
        service_s = max(0.0, now - max(self._last_ack_s, flying.sent_s + self.round_trip_s))
        self._learn_goodput(flying.size_bytes, service_s)
        self._last_ack_s = max(self._last_ack_s, now)
        if flying.size_bytes > MESSAGE_BYTES:
            self._note_ratio(delay_s / max(flying.predicted_s, 1e-6))
            self._newest_paces.append(service_s / flying.size_bytes)
            self._between_s = 0.0 if self._last_layer_s == -math.inf else self._last_ack_s - self._last_layer_s
            self._last_layer_s = self._learnt_s = self._last_ack_s

    def _learn_goodput(self, size_bytes: int, service_s: float) -> None:
        trip_s = self.round_trip_s
        delays_s = sorted(self._newest_delays_s)
        noise_s = min(NOISE_SHARE * trip_s, SWINGS_NOISE * (delays_s[len(delays_s) // 2] - delays_s[0])) + NOISE_S
        if service_s > noise_s:
            step = math.log(service_s / size_bytes / self._slowness)
            odds = (service_s / (SWING * trip_s)) ** 2  # that the link was slow, against that it was far
            trust = odds / (1 + odds) if step > 0 else 1.0
            self._slowness *= math.exp(trust * GOODPUT_GAIN * min(max(step, -GOODPUT_CLIP), GOODPUT_CLIP))
        elif size_bytes > MESSAGE_BYTES:  # a heartbeat is the measure itself; a layer was limited by the application
            self._slowness = min(self._slowness, (service_s + noise_s) / size_bytes)

    def _note_ratio(self, ratio: float) -> None:
        self._newest = (self._newest + 1) % RING
        if len(self._slots) == RING:
            oldest = self._slots.index(self._newest)
            del self._slots[oldest], self._ratios[oldest]
        place = bisect_right(self._ratios, ratio)
        self._slots.insert(place, self._newest)
        self._ratios.insert(place, ratio)
        self._weighed = False

    def _weigh(self) -> None:
        """Sort, and add up the weights, once for all questions between two acknowledgements: so each is two bisections."""
        if self._weighed:
            return
        self._weighed = True
        self._paces = sorted(self._newest_paces)
        self._weights = list(accumulate(map(_WEIGHTS[self._newest].__getitem__, self._slots), initial=0.0))
        worst = self._ratios[bisect_right(self._weights, 0.9 * self._weights[-1]) - 1]
        self._usual_worst = min(max(worst, 1.0), STALL_RATIO_CAP)


class _WindowedMinimum:
    """Minimum over the current and the previous half window. Heartbeats keep it true: they have no length of their own."""

    def __init__(self, window_s: float) -> None:
        self._half_s = window_s / 2
        self._since_s = -math.inf
        self._before = self._now = math.inf
        self.value: float | None = None
        """The minimum; None when there is no sample."""

    def add(self, value: float, now: float) -> None:
        """Take one sample at `now`."""
        if now - self._since_s >= self._half_s:
            self._before, self._now, self._since_s = self._now, math.inf, now
        self._now = min(self._now, value)
        self.value = min(self._before, self._now)

    def clear(self) -> None:
        """Forget everything."""
        self._since_s, self._before, self._now, self.value = -math.inf, math.inf, math.inf, None
