"""What the clairvoyant knows of a setting: when each frame comes, every answer to it, and what the links will carry.

Its operating points are those of all contestants together, pictures too where they were measured, since none of them
may beat it. `runs` gives what it reaches as records, in the form of everybody else's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.device.guard import GuardConfig
from isthmus.emulation import policies
from isthmus.emulation.clairvoyant.bound import Foreseen, Played, RightWay, head_bound, links_bound, play, solve
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.replay import Content, Head, Tail
from isthmus.emulation.virtual.connection import FRAMING_BYTES
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.proto.record import FrameRecord, Run
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    Frame,
    Guess,
    OperatingPoint,
    Reason,
    ServerTimings,
    Timings,
)

Plan = Sequence[RightWay | None]
GUARD_S = GuardConfig().least_s
"""Sessions answer so long before the deadline; what comes back later has come too late."""
GRACE_BYTES = 1e-6
"""Sums of floats may be off by so much; it is given to the clairvoyant."""


@dataclass(frozen=True)
class _Way:
    """A way to be right about a sample, before anything is known of time."""

    width: int
    """The index of the width."""
    stages: int
    """How many stages of the head it needs."""
    size_bytes: float
    point: OperatingPoint
    picture: bool = False
    """Whether it is the picture that crosses."""


def runs(setting: OpenedScenario) -> list[Run]:
    """The clairvoyant's run of each device; together, as many frames right and in time as the bound says.

    `setting.scenario.policy` is ignored.
    """
    scenario = setting.scenario
    ways = right_ways(policies.contents(setting.bundle))
    foreseen = [foresee(setting, device, ways) for device in range(scenario.sessions)]
    if scenario.share == "cell":
        plans = _shared(setting, foreseen)
    else:
        links = [setting.links(device) for device in range(scenario.sessions)]
        plans = [
            solve(frames, up.carried, down.carried).plan for frames, (up, down) in zip(foreseen, links, strict=True)
        ]
    return [_run(setting, device, *each) for device, each in enumerate(zip(foreseen, plans, strict=True))]


def right_ways(contents: Sequence[Content]) -> list[list[_Way]]:
    """[sample]: each exit that is right and, for each width, the fewest bytes that bring back a right answer: of those that
    the whole head must run for, and of pictures that are there before.

    The contents show the same samples through the same exits.
    """
    first = contents[0]
    right = first.outcomes.label == first.outcomes.truth[:, None]  # (N, P)
    exits = [
        (c, p, p.exit, first.catalogue.width_index(p.width)) for c, p in enumerate(first.points) if p.exit is not None
    ]
    ways = [[_Way(w, exit_ + 1, 0.0, point) for c, point, exit_, w in exits if row[c]] for row in right]
    for pictures in (False, True):
        _add_offloads(ways, contents, pictures=pictures)
    return ways


def _add_offloads(ways: Sequence[list[_Way]], contents: Sequence[Content], *, pictures: bool) -> None:
    """The best of all contents' ways to send features, or the picture of a bundle that sends both."""
    offers = [(content, *_fewest_bytes(content, steps)) for content in contents if (steps := _steps(content, pictures))]
    if not offers:
        return
    size_bytes = np.stack([size for _, size, _ in offers])  # (contents, N, W)
    cheapest = size_bytes.argmin(axis=0).tolist()  # [sample][width]
    for n, here in enumerate(ways):
        fewest = math.inf
        for w, c in enumerate(cheapest[n]):
            size = float(size_bytes[c, n, w])
            if size < fewest:  # a wider head takes longer, and must save something for it
                fewest = size
                content, _, chosen = offers[c]
                point = content.catalogue.offloads[w][chosen[n, w][0]][chosen[n, w][1]].point
                stages = content.catalogue.sent_after(int(chosen[n, w][0])) + 1
                here.append(_Way(w, stages, size, point, pictures))


def _steps(content: Content, pictures: bool) -> range:
    """The steps of a content's ladder that are features, or pictures."""
    every = len(content.catalogue.offloads[0])
    features = every if content.catalogue.feature_steps is None else content.catalogue.feature_steps
    return range(features, every) if pictures else range(features)


def _fewest_bytes(content: Content, steps: range) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N, W) bytes with framing, infinite where no answer is right, and (N, W, 2) which step and layer takes so few."""
    column = {point: c for c, point in enumerate(content.points)}
    truth, label = content.outcomes.truth, content.outcomes.label
    carried = content.outcomes.layer_bytes.cumsum(axis=3)
    places = [(step, n) for step in steps for n in range(len(content.catalogue.offloads[0][step]))]
    costs = []
    for step, n in places:
        at = [column[width[step][n].point] for width in content.catalogue.offloads]
        costs.append(np.where(label[:, at] == truth[:, None], carried[:, :, step, n] + FRAMING_BYTES * (n + 1), np.inf))
    cost = np.stack(costs, axis=2)  # (N, W, places)
    return cost.min(axis=2), np.array(places)[cost.argmin(axis=2)]


def foresee(setting: OpenedScenario, device: int, ways: Sequence[Sequence[_Way]]) -> list[Foreseen]:
    """Every frame of a device."""
    feed, head = setting.feed(device), setting.head(device)
    up, down = setting.links(device)
    tails = [setting.tail(server) for server in range(setting.scenario.servers)]
    foreseen = []
    for frame_id in range(feed.frames):
        captured_s = feed.captured_s(frame_id)
        due_s = captured_s + feed.deadline_s - GUARD_S
        up_s, down_s = (link.least_delay_s(captured_s, due_s) for link in (up, down))
        sample = ways[feed.sample(frame_id)]
        kinds = {way.picture for way in sample if way.size_bytes} or {False}
        on_server_s = tail_s(setting, tails, frame_id, captured_s, due_s, kinds)
        ways_here = tuple(
            RightWay(
                way.point,
                head_s(setting, head, frame_id, (way.width, way.stages), captured_s, due_s),
                way.size_bytes,
                head.coding_s(way.point.step or 0) if way.picture else 0.0,
            )
            for way in sample
        )
        keeps_s = _downlink_s(down, due_s - down_s, on_server_s)
        foreseen.append(Foreseen(captured_s, due_s, ways_here, on_server_s, up_s + down_s, down_s, keeps_s))
    return foreseen


def head_s(
    setting: OpenedScenario, head: Head, frame_id: int, run: tuple[int, int], begin_s: float, end_s: float
) -> float:
    """What the head takes at least for `run` (the index of its width, its stages) of a frame that lives so long."""
    width, stages = run
    quick_s = sum(head.stage_s(frame_id, stage, width) for stage in range(stages))
    return quick_s * setting.least_slowdown("device", begin_s, end_s)


def tail_s(
    setting: OpenedScenario,
    tails: Sequence[Tail],
    frame_id: int,
    begin_s: float,
    end_s: float,
    kinds: Iterable[bool] = (False,),
) -> float:
    """What the quickest server takes at least for a frame that lives so long; `kinds` says whether its picture may cross."""
    quickest_s = min(tail.tail_s([frame_id], pictures=int(picture)) for tail in tails for picture in kinds)
    return quickest_s * setting.least_slowdown("server", begin_s, end_s)


def _downlink_s(down: ShapedLink, depart_s: float, tail_s: float) -> float:
    """How long before `depart_s` less `tail_s` a frame must arrive, so that its acknowledgement and answer can have left."""
    if depart_s <= 0:
        return 0.0
    left = down.carried(depart_s) + GRACE_BYTES
    answer_s, both_s = (down.when(left - n * FRAMING_BYTES) for n in (1, 2))
    return max(0.0, depart_s - tail_s - min(answer_s - tail_s, both_s))


def _shared(setting: OpenedScenario, foreseen: Sequence[Sequence[Foreseen]]) -> Sequence[Plan]:
    """The plans of devices that share one uplink: all their frames on it, or all their heads, whichever bounds more."""
    order = sorted(
        ((frame.captured_s, device, i) for device, frames in enumerate(foreseen) for i, frame in enumerate(frames))
    )
    merged = [foreseen[device][i] for _, device, i in order]
    link = links_bound(merged, *(link.carried for link in setting.links(0)))
    heads = [head_bound(frames) for frames in foreseen]
    if sum(bound.count for bound in heads) < link.count:
        return [bound.plan for bound in heads]
    plans: list[list[RightWay | None]] = [[] for _ in foreseen]
    for (_, device, _), way in zip(order, link.plan, strict=True):
        plans[device].append(way)
    return plans


def _run(setting: OpenedScenario, device: int, frames: Sequence[Foreseen], plan: Plan) -> Run:
    """The records of a plan: at the times at which it plays over the links, or when due where it is late there."""
    up, down = setting.links(device)

    played = play(frames, plan, over(up, down))
    count, reached = sum(way is not None for way in plan), sum(p is not None for p in played)
    how = "exact" if reached == count else f"an upper bound, {count} frames, of which its plan reached {reached}"
    header = setting.header(device)
    header = msgspec.structs.replace(header, policy=policies.CLAIRVOYANT, notes=(*header.notes, f"clairvoyant: {how}"))
    feed, replay, catalogue = setting.feed(device), setting.replay, setting.contestant.content.catalogue
    records = []
    for frame_id, (foreseen, way, p) in enumerate(zip(frames, plan, played, strict=True)):
        sample = feed.sample(frame_id)
        local = replay.guess(sample, len(catalogue.widths) - 1, catalogue.stages - 1)
        frame = Frame(frame_id, foreseen.captured_s, foreseen.captured_s + feed.deadline_s, replay.truth[sample])
        answer = _answer(frame, foreseen, way, p) if way else _lost(frame, foreseen, local)
        # Of the plan: it runs no head for a frame that it gives up, and picks ways by their bytes, not by their joules.
        energy_J = setting.energy_J(answer, way.point.layers if way else 0)
        records.append(FrameRecord.from_answer(frame, answer, local, energy_J=energy_J))
    return Run(header, records, 0)


def over(up: ShapedLink, down: ShapedLink) -> Callable[[Foreseen, RightWay, float], float | None]:
    """The way of a frame over real links: its messages in one, their acknowledgements and the answer back."""

    def back_s(frame: Foreseen, way: RightWay, sent_s: float) -> float | None:
        arrived_s = up.send(round(way.size_bytes), sent_s)
        if arrived_s is None or arrived_s == math.inf:
            return None
        for _ in range(way.point.layers):
            down.send(FRAMING_BYTES, arrived_s)
        return down.send(FRAMING_BYTES, arrived_s + frame.tail_s)

    return back_s


def _answer(frame: Frame, foreseen: Foreseen, way: RightWay, played: Played | None) -> Answer:
    """A right answer in time."""
    sends = way.size_bytes > 0
    began_s, answered_s = (played.began_s, played.answered_s) if played else (foreseen.captured_s, foreseen.due_s)
    network_s = answered_s - began_s - way.head_s - foreseen.tail_s if sends else 0.0
    return Answer(
        frame_id=frame.id,
        label=frame.label,
        confidence=1.0,
        source=AnswerSource.SERVER if sends else AnswerSource.EXIT,
        reason=Reason.RETURNED if sends else Reason.CONFIDENT,
        point=way.point,
        answered_s=answered_s,
        latency_s=answered_s - frame.captured_s,
        on_time=True,
        bytes_up=max(0, round(way.size_bytes) - FRAMING_BYTES * way.point.layers),
        timings=Timings(
            wait_s=began_s - frame.captured_s,
            head_s=way.head_s,
            network_s=max(0.0, network_s),
            server=ServerTimings(tail_s=foreseen.tail_s if sends else 0.0),
        ),
    )


def _lost(frame: Frame, foreseen: Foreseen, local: Guess | None) -> Answer:
    """The exit's answer where that is wrong, and otherwise none: the head had no time for this frame."""
    wrong = local if local and local.label != frame.label else None
    return Answer(
        frame_id=frame.id,
        label=wrong.label if wrong else None,
        confidence=wrong.confidence if wrong else 0.0,
        source=AnswerSource.EXIT if wrong else AnswerSource.NONE,
        reason=Reason.CONFIDENT if wrong else Reason.OVERLOADED,
        point=None,
        answered_s=foreseen.due_s,
        latency_s=foreseen.due_s - frame.captured_s,
        on_time=True,
        bytes_up=0,
    )
