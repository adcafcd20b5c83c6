"""One server as a device sees it: its stream, its link, what it holds, how busy it says it is. Pure: time is an argument.

It is down until its welcome, then up, then perhaps draining; lost, silent or hung up it is down again.
"""

from __future__ import annotations

import math
import random

from isthmus.device.guard import SessionConfig
from isthmus.device.link_estimator import LinkEstimator
from isthmus.device.servers.pauses import Pauses
from isthmus.device.temporal.acknowledged import Acknowledged
from isthmus.proto import messages
from isthmus.proto.machine import earliest
from isthmus.proto.messages import ServerMessage, Welcome
from isthmus.proto.vocabulary import LinkState

LOAD_GAIN = 0.3
"""Weight of a server's newest word on its load: one full queue is no reason to leave."""

PROOFS = 2
"""Frames that a server has taken and another has answered, with no word of the first between: one may be bad luck."""


class Server:
    """What is known of one server. Acknowledgements, references, credits and load are its own, and end with its stream."""

    def __init__(self, name: str, config: SessionConfig, chance: random.Random) -> None:
        self.name, self._config, self.pauses = name, config, Pauses(chance)
        self.link, self.acknowledged = LinkEstimator(), Acknowledged()
        self.state = LinkState.DOWN
        self.dialled = False
        """A stream to it has been asked for, and its end not yet been told."""
        self.leaving = False
        """That stream is being hung up."""
        self.free_at_s = -math.inf
        """When it may be tried again."""
        self.server_id, self.twin = "", False
        """What it called itself when it took us on last, and whether we have that server by another name."""
        self.vanished = False
        """It was found, and has said goodbye since."""
        self.standby = False
        """Another server gets the frames: this one is asked for proof of life less often."""
        self.suspected = False
        """It owed an answer while another server gave one; until it speaks again it gets nothing new."""
        self.shunned_until_s: float | None = None
        """It takes frames and answers none: until then it gets nothing that another would take."""
        self.answered_s, self.proofs = -math.inf, 0
        """When it last said what became of a frame, and how many frames another has answered in its place since."""
        self.load_s = 0.0
        """How long its queue and tail lately took, by its own word, smoothed."""
        self.up_since_s: float | None = None
        """When its stream came about; None without one."""
        self.lasted_s: float | None = None
        """How long its last stream was of use; None where it never came about."""
        self._credits, self._beats, self.heard_s = 0, 0, -math.inf
        self._busy_until_s, self._drained_s = -math.inf, math.inf
        self._beat_at_s: float | None = None

    @property
    def credits(self) -> int:
        """How many of our frames it lets be in flight."""
        return self._credits

    @property
    def useful(self) -> bool:
        """Whether its stream is, or may become, one that frames can be sent on."""
        doubtful = self.leaving or self.doubted or self.state is LinkState.DRAINING
        return self.dialled and not doubtful

    @property
    def doubted(self) -> bool:
        """Whether there is reason to give frames to any other server rather than to this one."""
        return self.suspected or self.shunned_until_s is not None

    def usable(self, away: int, now: float) -> bool:
        """Whether it would take a frame at `now`, with so many of ours in flight already."""
        waits = self.suspected or now < self._busy_until_s or away >= self._credits
        return self.state is LinkState.UP and not waits

    @property
    def expected_s(self) -> float:
        """What a small frame should take there and back, its tail included."""
        return self.link.round_trip_s + self.load_s

    def on_connected(self, welcome: Welcome, *, now: float) -> None:
        """It took us on."""
        self.state, self.dialled, self.leaving, self.suspected = LinkState.UP, True, False, False
        self.server_id = welcome.server_id
        self._credits, self._busy_until_s, self._drained_s = welcome.credits, -math.inf, math.inf
        self.link.reset(now)
        self.link.on_load(welcome.load)
        self.load_s = welcome.load.wait_s + welcome.load.tail_s
        self.acknowledged.on_connected(welcome.references)
        self.heard_s, self.up_since_s = now, now
        # The round trip of a standby is not shown by frames: it is asked for at once.
        self._beat_at_s = now if self.standby else now + self._config.heartbeat_s

    def dial(self) -> None:
        """A stream to it is asked for."""
        self.dialled, self.lasted_s, self.twin = True, None, False

    def on_ended(self, *, now: float) -> None:
        """Its stream is over, or of no use any more: what was under way is lost."""
        if self.up_since_s is not None:
            self.lasted_s = now - self.up_since_s
        self.state, self._beat_at_s, self.up_since_s = LinkState.DOWN, None, None
        self.link.reset(now)
        self.acknowledged.on_disconnected()

    def on_message(self, message: ServerMessage, *, now: float) -> None:
        """It said something; what that means for a frame is the session's to say."""
        self.heard_s, self.suspected = now, False
        self.link.on_load(message.load)
        self.load_s += LOAD_GAIN * (message.load.wait_s + message.load.tail_s - self.load_s)
        if isinstance(message, messages.Result | messages.Late | messages.Busy | messages.Invalid):
            self.answered_s, self.proofs = now, 0
        match message:
            case messages.Ack():
                self.link.on_ack(message.frame_id, message.layer, now)
            case messages.Result():
                self.link.on_result(message.frame_id, message.layers_used, message.timings, now)
                self.acknowledged.on_result(message.frame_id, message.layers_used)
                self.pauses.answers()
            case messages.Busy():
                self._busy_until_s = max(self._busy_until_s, now + min(message.retry_s, self._config.busy_s))
            case messages.Invalid():
                self.acknowledged.on_refused(message.frame_id)
            case messages.Drain():
                self.state = LinkState.DRAINING
                self._drained_s = now + min(message.grace_s, self._config.drain_s) + self._config.silence_s
            case messages.ServerHeartbeat():
                self.link.on_beat(message.sequence, now)
            case messages.Welcome():
                self._credits = message.credits

    def prove(self, now: float) -> None:
        """Another has answered a frame that this one had taken; the second time it is shunned, the longer the more often."""
        self.proofs += 1
        if self.proofs >= PROOFS:
            self.proofs, self.shunned_until_s = 0, now + self.pauses.shun_s()

    @property
    def lost_at_s(self) -> float | None:
        """When it is given up: its silence is too long, or it should have ended; None while all is well."""
        if self.state is LinkState.DOWN:
            return None
        lost_s, since_s = self._drained_s, self.link.waiting_since_s
        if since_s is not None:
            lost_s = min(lost_s, max(since_s, self.heard_s) + self._config.silence_s)
        return lost_s if lost_s < math.inf else None

    @property
    def beat_at_s(self) -> float | None:
        """When it is next asked for proof of life."""
        return self._beat_at_s

    @property
    def due_at(self) -> float | None:
        """The earliest of its timers."""
        return earliest(self.lost_at_s, self._beat_at_s, self.shunned_until_s)

    def beat(self, now: float) -> int:
        """The number of the heartbeat that goes out now."""
        self._beats += 1
        self._beat_at_s = now + (self._config.standby_s if self.standby else self._config.heartbeat_s)
        self.link.on_beat_sent(self._beats, now)
        return self._beats

    def take_up(self, now: float) -> None:
        """It gets the frames from now on, and is asked for proof of life as often as those need."""
        self.standby = False
        if self._beat_at_s is not None:
            self._beat_at_s = min(self._beat_at_s, now + self._config.heartbeat_s)
