r"""One stream's state machine: frames in, stages run, layers sent, replies in, one answer out for each by its deadline.

Sans-IO. Every input carries `now`; what the host must do is appended as data and drained with `actions`. A frame is
open from `on_frame` until its `Emit`, which its `Forget` follows at once:

    waiting --RunFilter--> running --dismissed--> answered
       |                 |
       +---RunStage------+--> running --Stop--> answered
                             |  \\--GoOn--> running
                             \\--Offload--> away --Result, Late, Busy, Invalid, lost--> answered
    any of them --deadline--> answered, from the best exit that has spoken
        away --lost, silent, drained--> away at another server, where that one can still answer

A frame that the gate finds unchanged is answered as it comes, and is never open at all. With a tracker, a frame that has
no answer of its own is answered from what is tracked; what then still comes back of it is carried on to now, and only then
it is forgotten.
"""

from __future__ import annotations

from isthmus.device.actions import Action, Emit, Forget, RunFilter, RunStage, sends
from isthmus.device.capture.gate import Gate, Kept, Sketch
from isthmus.device.catalogue import Catalogue
from isthmus.device.deciding.energy import EnergyCost
from isthmus.device.deciding.kept_share import KeptShare
from isthmus.device.guard import Guard, SessionConfig
from isthmus.device.link_estimator import LinkEstimator
from isthmus.device.open_frame import NOWHERE, OpenFrame, Phase
from isthmus.device.scheduler import GoOn, Offload, Policy, Situation
from isthmus.device.servers.away import Away
from isthmus.device.servers.server import Server
from isthmus.device.servers.servers import Servers
from isthmus.device.stage_times import StageTimes
from isthmus.device.temporal.acknowledged import whole
from isthmus.device.tracking.tracker import Tracker
from isthmus.device.tracking.tracks import Place
from isthmus.proto import messages
from isthmus.proto.machine import earliest
from isthmus.proto.messages import ServerMessage, Welcome
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    FilterResult,
    Frame,
    Guess,
    LinkState,
    OperatingPoint,
    Reason,
    Reference,
    ServerTimings,
    StageResult,
)

AWAITED = {(Phase.RUNNING, Reason.OVERLOADED), (Phase.AWAY, Reason.DEADLINE), (Phase.AWAY, Reason.LINK)}
"""Where a frame is when its answer is given, and why: after these its own may still come."""
MOST_UNDER_WAY = 0.5
"""The share of what is left until a frame is due that the way to the server and back is given at most: a link that swings
must not make an idle server refuse what it could still answer in time."""


class Session:
    """One stream of frames, one head, and the servers that it may turn to."""

    def __init__(
        self,
        catalogue: Catalogue,
        policy: Policy,
        times: StageTimes,
        *,
        servers: Servers | None = None,
        config: SessionConfig | None = None,
        gate: Gate | None = None,
        filtered: bool = False,
        tracker: Tracker | None = None,
        kept: KeptShare | None = None,
        energy: EnergyCost | None = None,
    ) -> None:
        """`filtered`: the host has a neural filter to show frames to before the head. `tracker`: what answers are is boxes."""
        self._catalogue, self._policy, self._times, self._config = catalogue, policy, times, config or SessionConfig()
        self._gate, self._filtered = gate, filtered
        self.servers = Servers(config=self._config) if servers is None else servers
        self._open: dict[int, OpenFrame] = {}
        self._away = Away(self._open, self.servers)
        self._running: int | None = None
        """The frame whose stage the executor has; it may have been answered meanwhile."""
        self._actions: list[Action] = []
        self._last_frame_s: float | None = None
        self._period_s: float | None = None
        self._guard, self._tracker, self._kept, self._energy = Guard(), tracker, kept or KeptShare(), energy

    @property
    def state(self) -> LinkState:
        """What is known of the server that gets the frames."""
        return self.servers.state

    @property
    def link(self) -> LinkEstimator:
        """The way to that server."""
        return self.servers.used.link

    @property
    def gated(self) -> bool:
        """Whether frames should come with their sketches."""
        return self._gate is not None

    @property
    def tracking(self) -> bool:
        """Whether the host must keep pictures to follow things in."""
        return self._tracker is not None

    @property
    def free(self) -> bool:
        """Whether a picture that came now would be begun at once."""
        return self._running is None and all(o.phase is not Phase.WAITING for o in self._open.values())

    def actions(self) -> list[Action]:
        """What the host must do now, in order; empties the list."""
        if self._tracker is not None and (follow := self._tracker.asks()) is not None:
            self._actions.append(follow)
        asked, self._actions = [*self._actions, *self.servers.actions()], []
        return asked

    @property
    def due_at(self) -> float | None:
        """When to call `step` next, unless something happens before."""
        return earliest(self.servers.due_at, *[o.wakes_s for o in self._open.values()])

    def step(self, now: float) -> None:
        """Do whatever is due at `now`."""
        if (due_s := self.due_at) is not None and due_s <= now:
            self._guard.woken(now - due_s)
        for o in [o for o in self._open.values() if o.wakes_s <= now]:
            if o.let_go_s is None and now < o.due_s:
                self._moved(o, self._away.doubted(o, now), now)
                continue
            self._at_deadline(o, now)
        self.servers.step(now)
        self._rescue(now)

    def connect(self, *, now: float) -> None:
        """Begin to turn to servers."""
        self.servers.connect(now=now)

    def on_frame(self, frame: Frame, *, now: float, sketch: Sketch | None = None) -> None:
        """A picture was captured. Frames that can no longer be begun in time are answered for at once."""
        if self._last_frame_s is not None:
            period_s = now - self._last_frame_s
            self._period_s = period_s if self._period_s is None else self._period_s + 0.2 * (period_s - self._period_s)
        self._last_frame_s = now
        self._open[frame.id] = OpenFrame(frame, self._guard.due_s(frame), sketch)
        if self._gate is not None and sketch is not None and (kept := self._gate.repeated(sketch, now=now)):
            self._close(kept.over_again(frame, now=now), kept.local)
            return
        if self._tracker is not None:
            self._tracker.on_frame(frame)
        self._start_next(now)

    def on_filter(self, result: FilterResult, *, now: float) -> None:
        """The neural filter has seen a frame."""
        self._running = None
        if (o := self._open.get(result.frame_id)) is not None:
            o.head_s += result.compute_s
            if result.dismissed:
                o.guess = result.guess
                self._answer(o, result.guess, AnswerSource.FILTER, Reason.NOTHING, None, now)
            else:
                self._begin(o, now)
        self._start_next(now)

    def on_stage(self, result: StageResult, *, now: float) -> None:
        """The executor finished a stage."""
        self._running = None
        width = self._catalogue.width_index(result.width)
        self._times.observe(result.stage, width, result.compute_s)
        o = self._open.get(result.frame_id)
        if o is not None:
            o.guess, o.exit = result.guess, self._catalogue.exits[width][result.stage].point
            o.head_s, o.placings = o.head_s + result.compute_s, result.placings
            o.voted = self._detected(o, result.guess)
            self._decide(o, result, now)
        self._start_next(now)

    def on_stage_failed(self, frame_id: int, *, now: float) -> None:
        """The executor could not run a stage: the frame is answered from the exit before it, if there is one."""
        self._running = None
        if (o := self._open.get(frame_id)) is not None:
            self._from_exit(o, Reason.INVALID, now)
        self._start_next(now)

    def on_followed(self, places: tuple[Place | None, ...], *, now: float) -> None:
        """What was to be followed has been: where each place is, None for one that was lost."""
        if self._tracker is not None:
            self._tracker.on_followed(places)
            self._tell_tracked(now)

    def on_sent(
        self, frame_id: int, layer: int, size_bytes: int, *, now: float, encode_s: float = 0.0, server: str = ""
    ) -> None:
        """A layer was encoded and written to `server`."""
        self.servers.on_sent(server, frame_id, layer, size_bytes, now=now)
        if (o := self._open.get(frame_id)) is not None:
            o.on_sent(size_bytes, encode_s)
            if self._tracker is not None and o.hardly_back:
                self._from_exit(o, Reason.LINK, now)

    def on_connected(self, welcome: Welcome, *, now: float, server: str = "") -> None:
        """A server took us on."""
        self.servers.on_connected(server, welcome, now=now)

    def on_disconnected(self, *, now: float, server: str = "") -> None:
        """A stream ended: what was away on it goes elsewhere, or is answered from the exits, now."""
        self.servers.on_disconnected(server, now=now)
        self._rescue(now)

    def on_message(self, message: ServerMessage, *, now: float, server: str = "") -> None:
        """A server said something."""
        if (heard := self.servers.on_message(server, message, now=now)) is None:
            return  # of a stream that we have given up
        match message:
            case messages.Ack():
                self._away.speaks(message.frame_id, heard, now)
                self._rescue(now)
            case messages.Result():
                self._away.speaks(message.frame_id, heard, now)
                self._on_result(message, heard, now)
                self._rescue(now)
            case messages.Late():
                self._refused(message.frame_id, heard, Reason.LATE, now)
            case messages.Busy():
                self._refused(message.frame_id, heard, Reason.BUSY, now)
            case messages.Invalid() if message.layer == 0:
                # A damaged refinement leaves the base, which the server then uses; a damaged base leaves nothing.
                self._refused(message.frame_id, heard, Reason.INVALID, now)

    def _rescue(self, now: float) -> None:
        """Give what is at servers that are lost or silent to another; what no other can answer in time ends, or waits."""
        for o, lost in self._away.stranded():
            if not self._moved(o, self._away.elsewhere(o, now), now) and lost:
                self._from_exit(o, Reason.DISCONNECTED, now)

    def _moved(self, o: OpenFrame, server: Server | None, now: float) -> bool:
        """Send a frame that is away to another server too, if there is one."""
        if server is None or o.offload is None:
            return False
        self._away.leave(o)
        self._send(o, o.offload, None, server, now)
        return True

    def _situation(self, o: OpenFrame, server: Server | None, now: float) -> Situation:
        outlook, share = (None, 1.0) if server is None else (server.link.outlook(now), server.acknowledged.share)
        budget_s, waited_s, least = o.due_s - now, now - o.frame.captured_s, self._kept.least
        crowded = 0.0 if server is None else self._away.crowding(server, self._period_s)
        situation = Situation(
            budget_s, outlook, self._times, self._period_s, share, waited_s, least, self._energy, crowded
        )
        return situation if self._tracker is None else situation.tracked(o.frame, o.due_s, self._tracker.serving_s)

    def _detected(self, o: OpenFrame, guess: Guess | None) -> Guess | None:
        """What a detection is together with those before it, which the tracker is told of; itself where there is none."""
        return guess if self._tracker is None or guess is None else self._tracker.detected(o.frame, guess)

    def _start_next(self, now: float) -> None:
        """Give the executor the newest frame that waits; older ones that cannot be begun in time are answered for."""
        if self._running is not None:
            return
        waiting = [o for o in self._open.values() if o.phase is Phase.WAITING]
        if not waiting:
            return
        *older, o = waiting
        quickest_s = self._times.expected_s(0, 0)
        for late in older:
            if late.due_s - now < quickest_s:
                self._answer(late, None, AnswerSource.NONE, Reason.OVERLOADED, None, now)
        o.started_s = now
        if self._filtered:
            o.phase, self._running = Phase.RUNNING, o.frame.id
            self._actions.append(RunFilter(o.frame.id))
        else:
            self._begin(o, now)

    def _begin(self, o: OpenFrame, now: float) -> None:
        width = self._policy.width(self._situation(o, self._away.for_a_frame(now), now))
        if width is not None:
            o.width = width
            self._run(o, 0)
            return
        o.phase = Phase.TRACKED
        self._tell_tracked(now)

    def _tell_tracked(self, now: float) -> None:
        """Answer the frames that things have been moved to and that no detector is to see."""
        for o in [o for o in self._open.values() if o.phase is Phase.TRACKED]:
            if self._tracker is None or self._tracker.at == o.frame.id:
                self._answer(o, None, AnswerSource.NONE, Reason.TRACKED, None, now)

    def _run(self, o: OpenFrame, stage: int) -> None:
        o.phase, self._running, o.referred = Phase.RUNNING, o.frame.id, self.servers.used
        newest = o.referred.acknowledged.newest
        self._actions.append(RunStage(o.frame.id, stage, self._catalogue.widths[o.width], newest))

    def _decide(self, o: OpenFrame, result: StageResult, now: float) -> None:
        server = self._away.for_a_frame(now)
        situation = self._situation(o, server, now)
        priced = server.acknowledged.priced(result) if server is not None and server is o.referred else whole(result)
        match self._policy.after_exit(priced, situation):
            case GoOn():
                self._run(o, result.stage + 1)
            case Offload() as offload if server is not None:
                as_delta = priced.as_delta(offload.step, offload.layers)
                self._send(o, offload, priced.reference if as_delta else None, server, now)
            case _:
                self._from_exit(o, self._why_here(o, situation), now)

    def _why_here(self, o: OpenFrame, situation: Situation) -> Reason:
        """Why a frame stayed on the device."""
        if situation.outlook is not None:
            return Reason.CONFIDENT if o.guess is not None else Reason.LINK
        return Reason.DISCONNECTED if self.state is not LinkState.UP else Reason.BUSY

    def _send(self, o: OpenFrame, offload: Offload, reference: Reference | None, server: Server, now: float) -> None:
        o.phase, o.offload, o.sent_s, o.server = Phase.AWAY, offload, now, server
        o.doubt_s = self._away.doubted_s(o, server, now)
        left_s = o.due_s - now + (0.0 if self._tracker is None else self._config.late_s)
        budget_s = left_s - min(server.link.usual_way_s(), MOST_UNDER_WAY * left_s)
        if offload.step < self._catalogue.delta_steps:
            server.acknowledged.on_sent(o.frame.id, offload.layers, delta=reference is not None)
        to_write = sends(o.frame.id, offload.step, offload.layers, budget_s, reference, server.name)
        o.unsent = len(to_write)
        self._actions += to_write

    def _on_result(self, result: messages.Result, server: Server, now: float) -> None:
        o = self._open.get(result.frame_id)
        if o is None or o.offload is None:
            return  # too late: it was answered from its exit
        point = OperatingPoint(self._catalogue.widths[o.width], None, o.offload.step, result.layers_used)
        try:
            if result.layers_used > o.offload.layers:
                raise ValueError(f"layers: {result.layers_used} used, {o.offload.layers} sent")
            known = self._catalogue.known(point)
            told = self._catalogue.task.guess(result.outputs, temperature=known.temperature, accuracy=known.accuracy)
        except (ValueError, IndexError):
            self._from_exit(o, Reason.INVALID, now)
            return
        o.answered_by = server.name or None
        if o.placings:
            told = o.placings[o.offload.step].outward(told)
        self._answer(o, self._detected(o, told), AnswerSource.SERVER, Reason.RETURNED, point, now, result.timings)

    def _refused(self, frame_id: int, server: Server, reason: Reason, now: float) -> None:
        o = self._open.get(frame_id)
        if o is None or o.phase is not Phase.AWAY or o.server is not server:
            return
        if server.state is not LinkState.DRAINING or not self._moved(o, self._away.elsewhere(o, now), now):
            self._from_exit(o, reason, now)

    def _at_deadline(self, o: OpenFrame, now: float) -> None:
        # No word to the server about what is away: it drops by the same budget.
        self._from_exit(o, Reason.DEADLINE if o.phase is Phase.AWAY else Reason.OVERLOADED, now)

    def _from_exit(self, o: OpenFrame, reason: Reason, now: float) -> None:
        """The last exit's answer; where no exit has spoken, none, said honestly."""
        if o.guess is None:
            self._answer(o, None, AnswerSource.NONE, reason, None, now)
        else:
            self._answer(o, o.voted, AnswerSource.EXIT, reason, o.exit, now)

    def _answer(
        self,
        o: OpenFrame,
        told: Guess | None,
        source: AnswerSource,
        reason: Reason,
        point: OperatingPoint | None,
        now: float,
        server: ServerTimings = NOWHERE,
    ) -> None:
        """The frame's one answer, from what was made of the frame itself, or of what is tracked where nothing was."""
        if o.let_go_s is not None:  # it has its answer
            self._forget(o)
            return
        age_s = 0.0
        if told is None and self._tracker is not None and (told := self._tracker.guess(o.frame.id)) is not None:
            source, age_s = AnswerSource.TRACK, o.frame.captured_s - (self._tracker.detected_s or o.frame.captured_s)
        answer = o.answer(told, source, reason, point, server, max(age_s, 0.0), now=now)
        if self._gate is not None and o.sketch is not None and source is not AnswerSource.NONE:
            self._gate.keep(Kept(o.sketch, o.frame.captured_s, answer, o.guess))
        self._kept.learn(answer.promised, source is AnswerSource.SERVER and answer.on_time)
        self._close(answer, o.guess)

    def _close(self, answer: Answer, local: Guess | None) -> None:
        self._actions.append(Emit(answer, local))
        o = self._open[answer.frame_id]
        if self._tracker is not None and (o.phase, answer.reason) in AWAITED:
            o.let_go_s = o.frame.deadline_s + self._config.late_s
        else:
            self._forget(o)

    def _forget(self, o: OpenFrame) -> None:
        del self._open[o.frame.id]
        self._actions.append(Forget(o.frame.id))
