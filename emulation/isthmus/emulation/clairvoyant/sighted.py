"""The trace-clairvoyant: knows the network both ways, and of a picture only what the device can see. The fair yardstick.

It knows when each frame comes, what links, heads and servers will do, how long each message is, and how likely each answer is
to be right given what the exits said: the shipped scheduler's own `Expectation`. It does not know which answer is right.
How wide the head runs, and how far, is settled before a picture is seen, as on a device: by the plan of greatest mean value
(`_blind`), or one width throughout, whichever then promises more. Given that, no policy that deals with frames in order, on
these operating points and with these probabilities, expects more right answers than `schedule.best` does: what is left out
(`bound`) can only cost. The count of a run varies about what was expected as everybody's does, on the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from isthmus.device.catalogue import Catalogue
from isthmus.device.deciding.expectation import Expectation
from isthmus.emulation import policies
from isthmus.emulation.clairvoyant.bound import Foreseen, Played, RightWay, play
from isthmus.emulation.clairvoyant.runs import GUARD_S, head_s, over, tail_s
from isthmus.emulation.clairvoyant.schedule import Course, PlannedFrame, Schedule, best
from isthmus.emulation.virtual.connection import FRAMING_BYTES
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.proto.record import FrameRecord, Run
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Frame,
    Guess,
    Reason,
    ServerTimings,
    Timings,
)

HeadRun = tuple[int, int]
"""How a head runs: the index of its width, and how many stages."""
TIGHT = 0.5
"""Heads that take less than such a share of period and budget at full width leave no reason to run a narrower one."""


class _Sight:
    """What one device's frames are worth, in each of their ways."""

    def __init__(self, setting: OpenedScenario, device: int) -> None:
        self.setting, self.feed, self._head = setting, setting.feed(device), setting.head(device)
        self._tails = [setting.tail(server) for server in range(setting.scenario.servers)]
        self._catalogue = setting.contestant.content.catalogue
        self._expectation = Expectation(self._catalogue)

    def frame(self, frame_id: int, ways: Sequence[tuple[RightWay, float]]) -> PlannedFrame:
        """A frame that may be dealt with in these ways, each with what it is worth."""
        captured_s = self.feed.captured_s(frame_id)
        due_s = captured_s + self.feed.deadline_s - GUARD_S
        courses = tuple(_course(way, value) for way, value in ways)
        features = self._catalogue.feature_steps
        kinds = (False,) if features is None else (False, True) if features else (True,)
        on_server_s = tail_s(self.setting, self._tails, frame_id, captured_s, due_s, kinds)
        return PlannedFrame(captured_s, due_s, courses, on_server_s)

    def seen(self, frame_id: int, run: HeadRun) -> list[tuple[RightWay, float]]:
        """Each way after such a run of the head, by what its exits say of the picture."""
        w, stages = run
        catalogue, replay, sample = self._catalogue, self.setting.replay, self.feed.sample(frame_id)
        took_s = self.took_s(frame_id, run)
        known = catalogue.exits[w][stages - 1]
        guess = replay.guess(sample, w, stages - 1)
        before = replay.guess(sample, w, stages - 2) if stages > 1 else None
        chances = self._expectation.chances(w, stages - 1, guess, before)
        ways = [(RightWay(known.point, took_s), chances.exit)]
        rows = zip(catalogue.offloads[w], replay.sizes(sample, w)[0], chances.sent, strict=True)
        for step, (row, sizes, rights) in enumerate(rows):
            if not self._sendable(step, stages):
                continue
            sent, coding_s = 0.0, self._coding_s(step)
            for offload, size, right in zip(row, sizes, rights, strict=False):
                sent += size + FRAMING_BYTES
                ways.append((RightWay(offload.point, took_s, sent, coding_s), right))
        return ways

    def _sendable(self, step: int, stages: int) -> bool:
        """Whether a step can be sent after so many stages: features after all of them, a picture maybe earlier."""
        return stages > self._catalogue.sent_after(step)

    def _coding_s(self, step: int) -> float:
        return self._head.coding_s(step) if self._catalogue.is_picture(step) else 0.0

    def unseen(self, frame_id: int, runs: Sequence[HeadRun]) -> list[tuple[RightWay, float]]:
        """Each way after any of these runs, by how often it is right over all pictures."""
        ways: list[tuple[RightWay, float]] = []
        for w, stages in runs:
            took_s, known = self.took_s(frame_id, (w, stages)), self._catalogue.exits[w][stages - 1]
            ways.append((RightWay(known.point, took_s), known.accuracy))
            rows = enumerate(self._catalogue.offloads[w])
            points = [k for step, row in rows if self._sendable(step, stages) for k in row]
            most = known.accuracy
            for k in sorted(points, key=lambda k: k.mean_bytes + FRAMING_BYTES * k.point.layers):
                if k.accuracy > most:  # else a smaller message is worth as much
                    most = k.accuracy
                    sent = k.mean_bytes + FRAMING_BYTES * k.point.layers
                    coding_s = self._coding_s(k.point.step or 0)
                    ways.append((RightWay(k.point, took_s, sent, coding_s), k.accuracy))
        return ways

    def foreseen(self, frame_id: int) -> Foreseen:
        """A frame as `play` takes it."""
        frame = self.frame(frame_id, ())
        return Foreseen(frame.captured_s, frame.due_s, (), frame.tail_s)

    def local(self, sample: int, width: float) -> Guess | None:
        """What the last exit says at a width."""
        return self.setting.replay.guess(sample, self._catalogue.width_index(width), self._catalogue.stages - 1)

    def took_s(self, frame_id: int, run: HeadRun) -> float:
        """What the head takes for a run."""
        captured_s = self.feed.captured_s(frame_id)
        return head_s(self.setting, self._head, frame_id, run, captured_s, captured_s + self.feed.deadline_s)


def _course(way: RightWay, value: float) -> Course:
    if not way.size_bytes:
        return Course(way.head_s, value)
    return Course(way.head_s, value, way.size_bytes, FRAMING_BYTES * way.point.layers, FRAMING_BYTES, way.coding_s)


def runs(setting: OpenedScenario) -> list[Run]:
    """The run of each device. `setting.scenario.policy` is ignored; every policy's frames are the same."""
    sights = [_Sight(setting, device) for device in range(setting.scenario.sessions)]
    if setting.scenario.share == "cell":
        plans = _shared(setting, sights)
    else:
        plans = [_planned(setting, device, sight) for device, sight in enumerate(sights)]
    return [_run(setting, device, sight, plan) for device, (sight, plan) in enumerate(zip(sights, plans, strict=True))]


Plan = Sequence[RightWay | None]


def _planned(setting: OpenedScenario, device: int, sight: _Sight) -> Plan:
    """The best plan of the best way to run heads."""
    up, down = (link.timetable(setting.duration_s + setting.scenario.deadline_s) for link in setting.links(device))
    catalogue, frames = setting.contestant.content.catalogue, range(sight.feed.frames)
    widest = len(catalogue.widths) - 1
    limit_s = min(1 / setting.scenario.fps, setting.scenario.deadline_s)
    tight = any(sight.took_s(i, (widest, catalogue.stages)) > TIGHT * limit_s for i in frames)
    heads: list[list[HeadRun | None]] = [
        [(w, catalogue.stages)] * len(frames) for w in (range(widest + 1) if tight else [widest])
    ]
    if tight:
        any_run = [(w, stages + 1) for w in range(widest + 1) for stages in range(catalogue.stages)]
        unseen = [sight.unseen(i, any_run) for i in frames]
        blind = best([sight.frame(i, ways) for i, ways in enumerate(unseen)], up, down)
        heads.append([None if c is None else _head_run(catalogue, unseen[i][c][0]) for i, c in enumerate(blind.chosen)])
    found: tuple[Schedule, list[list[tuple[RightWay, float]]]] | None = None
    for chosen in heads:
        seen = [[] if run is None else sight.seen(i, run) for i, run in enumerate(chosen)]
        schedule = best([sight.frame(i, ways) for i, ways in enumerate(seen)], up, down)
        if found is None or schedule.value > found[0].value:
            found = schedule, seen
    assert found is not None
    return [None if c is None else ways[c][0] for c, ways in zip(found[0].chosen, found[1], strict=True)]


def _head_run(catalogue: Catalogue, way: RightWay) -> HeadRun:
    w = catalogue.width_index(way.point.width)
    if way.size_bytes:
        return w, catalogue.stages
    return w, 1 + next(stage for stage, known in enumerate(catalogue.exits[w]) if known.point == way.point)


def _shared(setting: OpenedScenario, sights: Sequence[_Sight]) -> Sequence[Plan]:
    """The plans of devices that share one link, each frame with a head of its own at full width."""
    up, down = (link.timetable(setting.duration_s + setting.scenario.deadline_s) for link in setting.links(0))
    catalogue = setting.contestant.content.catalogue
    run = len(catalogue.widths) - 1, catalogue.stages
    order = sorted((s.feed.captured_s(i), device, i) for device, s in enumerate(sights) for i in range(s.feed.frames))
    seen = [sights[device].seen(i, run) for _, device, i in order]
    frames = [sights[device].frame(i, ways) for (_, device, i), ways in zip(order, seen, strict=True)]
    plans: list[list[RightWay | None]] = [[] for _ in sights]
    for (_, device, _), ways, c in zip(order, seen, best(frames, up, down, one_head=False).chosen, strict=True):
        plans[device].append(None if c is None else ways[c][0])
    return plans


def _run(setting: OpenedScenario, device: int, sight: _Sight, plan: Plan) -> Run:
    """The records of a plan: at the times at which it plays over the links, or when due where it is late there."""
    frames = [sight.foreseen(i) for i in range(sight.feed.frames)]
    played = play(frames, plan, over(*setting.links(device)))
    count, reached = sum(way is not None for way in plan), sum(p is not None for p in played)
    how = (
        "reached"
        if reached == count
        else f"an upper bound, {count} answers in time, of which its plan reached {reached}"
    )
    header = setting.header(device)
    notes = (*header.notes, f"{policies.TRACE_CLAIRVOYANT}: {how}")
    header = msgspec.structs.replace(header, policy=policies.TRACE_CLAIRVOYANT, notes=notes)
    records = [
        _record(setting, sight, frame_id, foreseen, way, p)
        for frame_id, (foreseen, way, p) in enumerate(zip(frames, plan, played, strict=True))
    ]
    return Run(header, records, 0)


def _record(
    setting: OpenedScenario, sight: _Sight, frame_id: int, foreseen: Foreseen, way: RightWay | None, p: Played | None
) -> FrameRecord:
    feed, replay = sight.feed, setting.replay
    sample = feed.sample(frame_id)
    frame = Frame(frame_id, foreseen.captured_s, foreseen.captured_s + feed.deadline_s, replay.truth[sample])
    told = None if way is None else replay.answer(sample, way.point)
    local = None if way is None else sight.local(sample, way.point.width)
    sends = way is not None and way.size_bytes > 0
    answered_s = p.answered_s if p else foreseen.due_s
    began_s = p.began_s if p else foreseen.captured_s
    head_s = 0.0 if way is None else way.head_s
    network_s = max(0.0, answered_s - began_s - head_s - foreseen.tail_s) if sends else 0.0
    answer = Answer(
        frame_id=frame_id,
        label=told.label if told else None,
        confidence=told.confidence if told else 0.0,
        source=AnswerSource.NONE if told is None else AnswerSource.SERVER if sends else AnswerSource.EXIT,
        reason=Reason.OVERLOADED if told is None else Reason.RETURNED if sends else Reason.CONFIDENT,
        point=way.point if way else None,
        answered_s=answered_s,
        latency_s=answered_s - frame.captured_s,
        on_time=True,
        bytes_up=max(0, round(way.size_bytes) - FRAMING_BYTES * way.point.layers) if way and sends else 0,
        timings=Timings(
            wait_s=began_s - frame.captured_s,
            head_s=head_s,
            network_s=network_s,
            server=ServerTimings(tail_s=foreseen.tail_s if sends else 0.0),
        ),
    )
    energy_J = setting.energy_J(answer, way.point.layers if way and sends else 0)
    return FrameRecord.from_answer(frame, answer, local, energy_J=energy_J)
