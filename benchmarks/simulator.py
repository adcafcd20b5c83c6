"""A fleet in virtual time: 1,000 devices, 10 frames a second each, one batching server; frames of a core-second.

    python benchmarks/simulator.py [--devices N] [--seconds S] [--out FILE]

The same scenario twice: with Isthmus's own session, link estimator, streams, batcher and shaped link, every one the object
that runs live; and the same with the shipped bundle, its two stages and its scheduler deciding on every frame. Then what one
frame costs in each room, and in the shipped policy alone: a decision may cost 60 us. The head takes 5 ms, the link 10 ms each
way, the server batches up to 32 frames and takes 1 + 0.05 n ms for n. As in `simulate`, the cyclic collector rests.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.scheduler import AlwaysOffload, Decision, ExpectedUtility, Situation
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher
from isthmus.edge_server.streams import Ready, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.replay import Content, Feed, Head, Replay, Tail
from isthmus.emulation.simulate import uncollected
from isthmus.emulation.synthetic import constant
from isthmus.emulation.virtual.nodes import DeviceNode, ServerNode, Way
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Outcomes
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.machine import run_virtual
from isthmus.proto.messages import Hello
from isthmus.proto.vocabulary import Answer, AnswerSource, Frame, OperatingPoint, StageResult

FPS, DEADLINE_S, HEAD_S, DELAY_S, MAX_BATCH = 10.0, 0.2, 0.005, 0.01, 32
ROOMS = {
    "device/session.py": "session",
    "device/link_estimator.py": "link estimator",
    "device/scheduler.py": "scheduler",
    "device/stage_times.py": "scheduler",
    "device/catalogue.py": "session",
    "edge_server/": "streams, assembly, batcher",
    "emulation/link.py": "shaped link",
    "emulation/capacity.py": "shaped link",
    "emulation/replay.py": "replay of head and tail",
    "emulation/": "world (timeline, nodes, connections)",
}


def batch_s(n: int) -> float:
    """The tail's time for n frames."""
    return 1e-3 + 5e-5 * n


def one_point() -> Content:
    """The smallest bundle there can be: one stage, one way to send 150 bytes."""
    local, sent = OperatingPoint(1.0, exit=0), OperatingPoint(1.0, None, 0, 1)
    outcomes = Outcomes(
        truth=np.zeros(100, np.uint8),
        label=np.zeros((100, 2), np.uint8),
        confidence=np.full((100, 2), 0.9, np.float16),
        layer_bytes=np.full((100, 1, 1, 1), 150, np.uint16),
    )
    catalogue = Catalogue(
        widths=(1.0,),
        confidence_edges=(),
        stage_flops=((1,),),
        exits=((Known(local, 0.5, 1.0, ((0.5,),)),),),
        offloads=((((Known(sent, 0.9, 1.0, ((0.9,),), 150.0)),),),),
    )
    return Content(catalogue, outcomes, (local, sent), 1)


class Fleet(Timeline):
    """The scenario with everything real but the networks."""

    def __init__(self, devices: int, seconds: float, content: Content, policy: Callable[[Catalogue], object]) -> None:
        super().__init__()
        replay, catalogue = Replay(content, seed=1), content.catalogue
        stages_s = [[HEAD_S / catalogue.stages] * len(catalogue.widths)] * catalogue.stages
        self.sources: Counter[AnswerSource] = Counter()
        self.latency_s = 0.0
        times = TailTimes({b: batch_s(b) for b in range(1, MAX_BATCH + 1)}, max_batch=MAX_BATCH)
        batcher: Batcher[Ready] = Batcher(times, max_batch=MAX_BATCH)
        served = Served("fleet", b"", bundles.load("cifar10").codec)
        streams = Streams(served, batcher, server_id="edge", limits=Limits(streams=devices), codec=replay)
        server = ServerNode(self, streams, Tail(replay, batch_s, seed=1, server=0))
        trace = constant(up_mbps=100, down_mbps=100, rtt_ms=2e3 * DELAY_S)
        for number in range(devices):
            feed = Feed.seeded(1, number, 100, fps=FPS, duration_s=seconds, deadline_s=DEADLINE_S)
            device = DeviceNode(
                self,
                Session(catalogue, policy(catalogue), StageTimes(stages_s)),
                Head(replay, feed, stages_s, seed=1, device=number),
                {"": Way(server, ShapedLink(trace, "up"), ShapedLink(trace, "down"))},
                self._told,
                hello=Hello("fleet", b"", CODEC_VERSION, f"device-{number}"),
            )
            self.at(0.0, device.connect)
            self.at(feed.captured_s(0), self._capture, device, feed, 0)

    def _capture(self, now: float, device: DeviceNode, feed: Feed, frame_id: int) -> None:
        if frame_id + 1 < feed.frames:
            self.at(feed.captured_s(frame_id + 1), self._capture, device, feed, frame_id + 1)
        device.take(now, Frame(frame_id, now, now + feed.deadline_s))

    def _told(self, frame: Frame, answer: Answer, *_: object) -> None:
        self.sources[answer.source] += 1
        self.latency_s += answer.latency_s


def isthmus(devices: int, seconds: float, content: Content, policy: Callable[[Catalogue], object]) -> dict[str, float]:
    """Figures of one run."""
    fleet = Fleet(devices, seconds, content, policy)
    with uncollected():
        began = time.process_time()
        events = run_virtual(fleet, until_s=seconds + 1.0)
        took = time.process_time() - began
    frames = sum(fleet.sources.values())
    return {
        "frames": frames,
        "cpu_s": round(took, 2),
        "frames_per_core_s": round(frames / took),
        "sessions_in_real_time": round(frames / took / FPS),
        "us_per_frame": round(took / frames * 1e6, 1),
        "events_per_s": round(events / took),
        "mean_latency_ms": round(fleet.latency_s / frames * 1e3, 3),
        "answered_by_server": round(fleet.sources[AnswerSource.SERVER] / frames, 4),
    }


class Recorded:
    """A policy, and everything that it was asked."""

    def __init__(self, policy: ExpectedUtility, asked: list[Callable[[], object]]) -> None:
        self._policy, self._asked = policy, asked

    def width(self, situation: Situation) -> int | None:
        """See `Policy`."""
        self._asked.append(partial(self._policy.width, situation))
        return self._policy.width(situation)

    def after_exit(self, result: StageResult, situation: Situation) -> Decision:
        """See `Policy`."""
        self._asked.append(partial(self._policy.after_exit, result, situation))
        return self._policy.after_exit(result, situation)


def decision_us(content: Content) -> float:
    """Microseconds of a frame in the shipped policy: all that a small fleet asked it, asked again; the best of five times."""
    asked: list[Callable[[], object]] = []
    fleet = Fleet(20, 10.0, content, lambda catalogue: Recorded(ExpectedUtility(catalogue), asked))
    run_virtual(fleet, until_s=11.0)
    took_s = []
    for _ in range(5):
        began = time.process_time()
        for ask in asked:
            ask()
        took_s.append(time.process_time() - began)
    return min(took_s) / sum(fleet.sources.values()) * 1e6


def by_room(content: Content, policy: Callable[[Catalogue], object], us_per_frame: float) -> dict[str, float]:
    """Microseconds of a frame in each room: the profiler's shares of a small fleet, of what a frame really costs."""
    fleet, profile = Fleet(100, 10.0, content, policy), cProfile.Profile()
    profile.runcall(run_virtual, fleet, until_s=11.0)
    seconds: Counter[str] = Counter()
    for (path, _, _), (_, _, own_s, _, callers) in pstats.Stats(profile).stats.items():
        if path.startswith(("~", "<")):  # built-ins and generated constructors: the caller's cost
            for (caller, _, _), (_, _, share_s, _) in callers.items():
                seconds[room(caller)] += share_s
        else:
            seconds[room(path)] += own_s
    total = sum(seconds.values())
    return {name: round(us_per_frame * own / total, 1) for name, own in seconds.most_common()}


def room(path: str) -> str:
    """Whose file it is."""
    return next((name for part, name in ROOMS.items() if f"isthmus/{part}" in path), "vocabulary and driver")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    small, shipped = one_point(), Content.of(bundles.load("cifar10"))
    found: dict[str, object] = {"machine": os.uname().machine, "cpus": os.cpu_count()}
    for name, content, policy in (
        ("real session, link, batcher", small, AlwaysOffload),
        ("shipped bundle and scheduler", shipped, ExpectedUtility),
    ):
        figures = isthmus(args.devices, args.seconds, content, policy)
        rooms = by_room(content, policy, figures["us_per_frame"])
        found[name] = {**figures, "us_by_room": rooms}
        print(f"Isthmus, {name}: {figures}")
        for where, us in rooms.items():
            print(f"    {us:6.1f} us  {where}")
    found["decision_us"] = round(decision_us(shipped), 1)
    print(f"The shipped policy alone: {found['decision_us']} us a frame")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
