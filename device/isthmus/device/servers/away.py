"""The frames that are at servers: how many at each, which nothing is heard of, and who else could still answer them. Pure.

A frame is at one server, until that one is lost, drains without taking it, or says nothing of it for so long that another
server can just still answer it in time. Then it is sent there too, whole. Where one way leads to both, both are silent; so
no more than one frame is sent twice before the other server has shown that it is the first one which is silent.

A server whose tail hangs acknowledges frames and says no more of them. Such a frame is sent to another at the last moment, and
only while the first says nothing of any frame: one that is slow, and answers others, is left in peace. The next is, once the
other has answered this one; where it has not, both are busy, and frames that are sent twice are the last thing that helps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from isthmus.device.deciding.crowding import crowding
from isthmus.device.open_frame import OpenFrame, Phase
from isthmus.device.servers.server import Server
from isthmus.device.servers.servers import Servers
from isthmus.proto.vocabulary import LinkState

PATIENCE_S = 0.25
"""A server that says nothing of a frame for so long beyond what is usual is doubted, however much time there still is."""
EVEN = 0.5
"""A frame is given to another server where it will rather come back in time than not."""
DOUBT_S = 0.01
"""It is given to another server so much sooner than that one should need."""

SENT_TWICE_S = 5.0
"""A frame that its server has acknowledged is sent to another too at most so often, until another has answered one."""


class Away:
    """What a session has at its servers."""

    def __init__(self, frames: Mapping[int, OpenFrame], servers: Servers) -> None:
        """`frames` are all open ones, by their ids; the session's own, and always up to date."""
        self._frames, self._servers = frames, servers
        self._not_before_s = -math.inf
        """When the next frame that is acknowledged may be sent elsewhere too."""

    @property
    def counts(self) -> dict[str, int]:
        """How many frames each server has in flight."""
        counts: dict[str, int] = {}
        for o in self._frames.values():
            if o.phase is Phase.AWAY and o.server is not None:
                counts[o.server.name] = counts.get(o.server.name, 0) + 1
        return counts

    def for_a_frame(self, now: float) -> Server | None:
        """Who gets a frame at `now`; None: nobody takes one."""
        return self._servers.for_a_frame(self.counts, now)

    def crowding(self, server: Server, period_s: float | None) -> float:
        """What a second in flight at `server` costs a frame, of which one comes every `period_s`."""
        return crowding(self.counts.get(server.name, 0), server.credits, period_s)

    def doubted_s(self, o: OpenFrame, server: Server, now: float) -> float:
        """When to ask whether `server` has a frame that it is sent now: as late as another could still answer it."""
        other = self._servers.other(server, self.counts, now)
        if other is None:
            return math.inf
        latest_s = o.due_s - DOUBT_S - _usual_s(other)
        usual_s = now + _usual_s(server)
        return max(usual_s, min(latest_s, usual_s + PATIENCE_S))

    def doubted(self, o: OpenFrame, now: float) -> Server | None:
        """Who else gets a frame, of which it is time to ask; sets the time to ask again."""
        o.doubt_s = math.inf
        if o.server is None:
            return None
        if not o.server.link.owes(o.frame.id):
            return self._unanswered(o, o.server, now)
        other = self._servers.other(o.server, self.counts, now)
        if other is not None and other.link.waiting_since_s is not None:
            o.doubt_s = now + DOUBT_S  # it has not shown yet that it is there
            return None
        return self.elsewhere(o, now)

    def _unanswered(self, o: OpenFrame, server: Server, now: float) -> Server | None:
        """Who else gets a frame that `server` has acknowledged and says no more of."""
        other = self._servers.other(server, self.counts, now)
        if other is None:
            return None
        latest_s = o.due_s - DOUBT_S - _usual_s(other)
        if now < latest_s:
            o.doubt_s = latest_s
            return None
        answers = now < max(o.sent_s, server.answered_s) + _usual_s(server)
        if answers or now < self._not_before_s or self.elsewhere(o, now) is None:
            return None
        self._not_before_s = now + SENT_TWICE_S
        return other

    def elsewhere(self, o: OpenFrame, now: float) -> Server | None:
        """Another server that will probably answer a frame in time; None: there is none."""
        if o.server is None or o.let_go_s is not None:
            return None
        other = self._servers.other(o.server, self.counts, now)
        if other is None or other.link.outlook(now).p_back(o.bytes_up, o.due_s - now) < EVEN:
            return None
        return other

    def leave(self, o: OpenFrame) -> None:
        """A frame is sent elsewhere too; whole, so that what its server holds of it is not what we hold."""
        if o.server is not None:
            o.server.acknowledged.forget(o.frame.id)
        o.before = o.server if o.server is not None and not o.server.link.owes(o.frame.id) else None

    def speaks(self, frame_id: int, server: Server, now: float) -> None:
        """A server has a frame: one that says nothing of what it was sent well before that is silent."""
        o = self._frames.get(frame_id)
        if o is None or o.server is not server:
            return
        if o.before is not None and o.before.answered_s < o.sent_s and server.answered_s >= now:
            self._servers.prove_mute(o.before, now)
            o.before, self._not_before_s = None, -math.inf
        for other in self._servers.others(server):
            since_s = other.link.waiting_since_s
            if since_s is not None and since_s + DOUBT_S + _usual_s(other) <= o.sent_s:
                self._servers.suspect(other, now)

    def stranded(self) -> list[tuple[OpenFrame, bool]]:
        """The frames at servers that are lost, silent or shunned, and whether lost."""
        left: list[tuple[OpenFrame, bool]] = []
        for o in self._frames.values():
            if o.phase is Phase.AWAY and (server := o.server) is not None:
                lost = server.state is LinkState.DOWN
                if lost or server.doubted:
                    left.append((o, lost))
        return left


def _usual_s(server: Server) -> float:
    """What a frame usually takes at a server, there and back."""
    return server.link.usual_way_s() + server.load_s
