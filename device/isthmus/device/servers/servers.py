"""Which servers a device has streams to, and which one gets its frames. Pure: no clock, no IO, chance is an argument.

One server is served by: frames go there. Another one stands by: its stream is open and warm, and only heartbeats pass. Both
were drawn at random from all that are known, and of the two the one that answers sooner by its own word and its link is
used: the power of two choices (Mitzenmacher 2001), which spreads many devices over many servers without anybody in charge.
Where more than two are known, another standby is drawn now and then, so that each pair is not for ever.

A server that drains, ends its stream, is suspected, or takes frames and answers none is left at once for the standby; one
that could not be reached is left alone for a pause that grows (`pauses`), and its place goes to another.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from isthmus.device.actions import Action, Beat, Dial, HangUp
from isthmus.device.guard import SessionConfig
from isthmus.device.servers.pauses import STEADY_S
from isthmus.device.servers.server import Server
from isthmus.proto.machine import earliest
from isthmus.proto.messages import ServerMessage, Welcome
from isthmus.proto.vocabulary import LinkState

STREAMS = 2
"""The server that is used and one that stands by."""
CLEARLY = 1.25
CLEARLY_S = 0.005
"""A standby must be so many times and so many seconds sooner to be used instead: a switch costs what was coded against."""
TWIN_S = 600.0
"""How long a name is left alone that leads to a server which has a stream by another name."""
TOGETHER_S = 1.0
"""Streams that came about within so long began together: nothing has been learnt yet that a switch would cost."""
FIRST_LOOK_S = (1.0, 3.0)
LOOK_S = (10.0, 20.0)
"""How long after its standby came, and then how often, a device compares the two, at random between these: all devices of a
server that is busy must not leave it in one moment."""
DRAWN = 0.25
"""How often that ends in another standby, where more servers are known: once a minute, since a stream begins with TLS."""


class Servers:
    """All servers that one device knows."""

    def __init__(
        self, names: Iterable[str] = ("",), *, config: SessionConfig | None = None, chance: random.Random | None = None
    ) -> None:
        """`names` are whatever the host dials; `chance` is that of draws and pauses."""
        self._config, self._chance = config or SessionConfig(), chance or random.Random(0)
        self._known: dict[str, Server] = {}
        for name in names:
            self._known.setdefault(name, self._new(name))
        self._listed = frozenset(self._known)
        self.used = next(iter(self._known.values()), self._new(""))
        """The server that gets the frames, as soon as it is up."""
        self._started = False
        self._dial_at_s: float | None = None
        self._look_at_s: float | None = None
        self._drawing = False
        """Another standby is on trial beside the two."""
        self._actions: list[Action] = []

    @property
    def names(self) -> tuple[str, ...]:
        """All that are known, in the order in which they became known."""
        return tuple(self._known)

    @property
    def state(self) -> LinkState:
        """What is known of the server that gets the frames."""
        return self.used.state

    def is_up(self, name: str) -> bool:
        """Whether there is a stream to a server that frames can be sent on."""
        return name in self._known and self._known[name].state is LinkState.UP

    def actions(self) -> list[Action]:
        """What the host must do now, in order; empties the list."""
        asked, self._actions = self._actions, []
        return asked

    @property
    def due_at(self) -> float | None:
        """The earliest of all timers."""
        first_s = earliest(self._dial_at_s, self._look_at_s)
        for server in self._known.values():
            if (due_s := server.due_at) is not None and (first_s is None or due_s < first_s):
                first_s = due_s
        return first_s

    def step(self, now: float) -> None:
        """Do whatever is due at `now`."""
        for server in self._known.values():
            if server.lost_at_s is not None and server.lost_at_s <= now:
                self._hang_up(server, now)
            if server.beat_at_s is not None and server.beat_at_s <= now:
                self._actions.append(Beat(server.beat(now), server.name))
            if server.shunned_until_s is not None and server.shunned_until_s <= now:
                server.shunned_until_s = None
        if self._look_at_s is not None and self._look_at_s <= now:
            self._look_at_s = now + self._chance.uniform(*LOOK_S)
            self._compare(now)
            self._drawing = bool(self._ready(now)) and self._chance.random() < DRAWN
        self._settle(now)

    def connect(self, *, now: float) -> None:
        """Begin to dial."""
        self._started = True
        self._settle(now)

    def on_found(self, names: Iterable[str], *, now: float) -> None:
        """These servers are there, or still there."""
        for name in names:
            self._known.setdefault(name, self._new(name)).vanished = False
        if self.used.name not in self._known:
            self.used = next(iter(self._known.values()), self.used)
        self._settle(now)

    def on_vanished(self, name: str, *, now: float) -> None:
        """A server has said goodbye where it was found. It is forgotten, once it has ended its stream; not if it was listed."""
        server = self._known.get(name)
        if server is None or name in self._listed:
            return
        server.vanished = True
        if not server.dialled:
            del self._known[name]
            self._settle(now)

    def on_connected(self, name: str, welcome: Welcome, *, now: float) -> None:
        """A server took us on."""
        server = self._known[name]
        self._drop_twins(server, welcome.server_id, now)
        server.standby = self.used is not server and self.used in self._fit
        server.on_connected(welcome, now=now)
        self._drawing = False
        if server.standby:
            self._look_at_s = now + self._chance.uniform(*FIRST_LOOK_S)
            self._toss(server, now)
            self._compare(now)
        else:
            self._use(server, now)
        self._settle(now)

    def on_disconnected(self, name: str, *, now: float) -> None:
        """A stream ended, or never came about."""
        server = self._known.get(name)
        if server is None:
            return
        server.on_ended(now=now)
        server.dialled = server.leaving = server.suspected = self._drawing = False
        if not server.twin:
            server.free_at_s = now + server.pauses.next_s(server.lasted_s, served=bool(self._up))
        if server.vanished:
            del self._known[name]
        if server.lasted_s is not None and server.lasted_s >= STEADY_S:
            self._hurry(server, now)
        self._settle(now)

    def on_sent(self, name: str, frame_id: int, layer: int, size_bytes: int, *, now: float) -> None:
        """A layer was written to a server; one that is lost meanwhile owes nothing for it."""
        server = self._known.get(name)
        if server is not None and server.state is not LinkState.DOWN:
            server.link.on_sent(frame_id, layer, size_bytes, now)

    def on_message(self, name: str, message: ServerMessage, *, now: float) -> Server | None:
        """A server said something; that server, or None where it is one that we have given up."""
        server = self._known.get(name)
        if server is None or server.state is LinkState.DOWN:
            return None
        before = server.state, server.suspected
        server.on_message(message, now=now)
        if (server.state, server.suspected) != before:
            if server.state is LinkState.DRAINING:
                self._hurry(server, now)
            self._settle(now)
        return server

    def suspect(self, server: Server, now: float) -> None:
        """It owes an answer while another gave one."""
        server.suspected = True
        self._settle(now)

    def prove_mute(self, server: Server, now: float) -> None:
        """Another has answered a frame that this one has acknowledged, while it said nothing of any."""
        server.prove(now)
        self._settle(now)

    def others(self, than: Server) -> list[Server]:
        """All that are up but this one, and whom nobody suspects."""
        return [s for s in self._known.values() if s is not than and s.state is LinkState.UP and not s.doubted]

    def other(self, than: Server, away: dict[str, int], now: float) -> Server | None:
        """The best server but this one that would take a frame; None: there is none."""
        fit = [s for s in self._fit if s is not than and s.usable(away.get(s.name, 0), now)]
        return min(fit, key=lambda s: s.expected_s, default=None)

    def for_a_frame(self, away: dict[str, int], now: float) -> Server | None:
        """Who gets a frame at `now`, by how many each has in flight: the one that is used, unless it takes none."""
        if self.used.usable(away.get(self.used.name, 0), now):
            return self.used
        return self.other(self.used, away, now)

    @property
    def _fit(self) -> list[Server]:
        return [s for s in self._up if not s.doubted]

    @property
    def _up(self) -> list[Server]:
        return [s for s in self._known.values() if s.state is LinkState.UP]

    def _new(self, name: str) -> Server:
        return Server(name, self._config, self._chance)

    def _use(self, server: Server, now: float) -> None:
        before, self.used = self.used, server
        if before is not server:
            before.standby = True
            server.link.take_after(before.link)
        server.take_up(now)

    def _hurry(self, lost: Server, now: float) -> None:
        """The last server is lost: those that rest may have come back long since, and are needed now."""
        if not self._up:
            for resting in self._known.values():
                if resting is not lost and not resting.dialled and resting.free_at_s > now:
                    resting.free_at_s = min(resting.free_at_s, now + resting.pauses.soon_s())

    def _drop_twins(self, newcomer: Server, server_id: str, now: float) -> None:
        """Leave alone the other names of a server that took us on by this one.

        Where there are certificates it has ended their streams already: a device's newest replaces those before.
        """
        for other in self._known.values():
            if other is not newcomer and other.server_id == server_id:
                other.twin, other.free_at_s = True, now + TWIN_S
                if other.state is not LinkState.DOWN:
                    self._hang_up(other, now)

    def _toss(self, newcomer: Server, now: float) -> None:
        """Of two that came about together, either may be used: the quicker to say welcome would get every device."""
        together = now - (self.used.up_since_s or 0.0) < TOGETHER_S
        if together and self._chance.random() < 1 / STREAMS:
            self._use(newcomer, now)

    def _compare(self, now: float) -> None:
        """Use the server that is clearly sooner."""
        best = min(self._fit, key=lambda s: s.expected_s, default=self.used)
        if self.used.state is LinkState.UP and self.used.expected_s > CLEARLY * best.expected_s + CLEARLY_S:
            self._use(best, now)

    def _hang_up(self, server: Server, now: float) -> None:
        server.on_ended(now=now)
        server.leaving = True
        self._actions.append(HangUp(server.name))

    def _settle(self, now: float) -> None:
        """Use what can be used; dial as many as are wanted, drawn from those that are not to be left alone."""
        fit = self._fit
        if fit and self.used not in fit:
            self._use(min(fit, key=lambda s: s.expected_s), now)
        self._dial_at_s = None
        if not self._started:
            return
        wanted = STREAMS + self._drawing - sum(s.useful for s in self._known.values())
        ready = self._ready(now)
        while wanted > 0 and ready:
            server = ready.pop(self._chance.randrange(len(ready)) if len(ready) > 1 else 0)
            server.dial()
            self._actions.append(Dial(server.name))
            wanted -= 1
        if wanted > 0:
            resting_s = [s.free_at_s for s in self._known.values() if not s.dialled]
            self._dial_at_s = min(resting_s, default=None)
        elif len(spare := [s for s in self._up if s is not self.used]) >= STREAMS:
            self._hang_up(min(spare, key=lambda s: s.up_since_s or 0.0), now)  # the one that stood by before

    def _ready(self, now: float) -> list[Server]:
        """Those that could be dialled now."""
        return [s for s in self._known.values() if not s.dialled and s.free_at_s <= now]
