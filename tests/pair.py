"""A world of one device and one server, with the real codec: what a lab protocol needs of `isthmus.emulation`.

Only the networks are stood in for: stages and tails take a fixed time, exits are as confident as a script says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from isthmus.device.capture.gate import Gate, Sketch
from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.scheduler import POLICIES, Policy
from isthmus.device.session import Session
from isthmus.device.stage_times import StageTimes
from isthmus.device.temporal.coder import Coder
from isthmus.device.tracking.tracker import Tracker
from isthmus.device.tracking.tracks import Place
from isthmus.edge_server import streams
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.batcher import Batcher, RunBatch
from isthmus.edge_server.tail_times import TailTimes
from isthmus.emulation.link import ShapedLink
from isthmus.emulation.synthetic import steps
from isthmus.emulation.virtual.nodes import DeviceNode, ServerNode, Way
from isthmus.emulation.virtual.timeline import Timeline
from isthmus.proto.codec import CODEC_VERSION, CodecConfig, fit
from isthmus.proto.machine import run_virtual
from isthmus.proto.messages import Hello
from isthmus.proto.tasks.task import Packed
from isthmus.proto.temporal.reconstruction import Reconstruction
from isthmus.proto.vocabulary import Answer, Detail, FilterResult, Frame, Guess, OperatingPoint, Reference, StageResult

WIDTHS = (0.5, 1.0)
CLASSES = 4
LABEL_LOCAL, LABEL_SERVER = 0, 1
TAIL_S = 0.005
HASH = b"\x01" * 32


@cache
def coding() -> tuple[CodecConfig, np.ndarray]:
    """A fitted configuration and features to send: about 0.4 kB."""
    x = np.random.default_rng(0).laplace(0, 0.7, (40, 8, 8, 12)).astype(np.float32)
    return fit(x, (0.0,) * 12, (0.5, 1.0)), x[0]


def catalogue(exit_accuracy: float = 0.7, tail_accuracy: float = 0.95, steps: int = 2) -> Catalogue:
    """Two widths, two stages, two layers; confidence tells nothing but itself."""
    edges = (0.5, 0.9)
    last = (0.4, exit_accuracy, 0.97)

    def exit_at(width: float, index: int) -> Known:
        return Known(OperatingPoint(width, index), exit_accuracy - 0.1 * (1 - index), 1.0, (last, last))

    def offload(width: float, step: int, layers: int) -> Known:
        accuracy = tail_accuracy - 0.05 * (layers == 1) - 0.02 * step - 0.02 * (width < 1)
        size = {(0, 1): 150.0, (0, 2): 330.0, (1, 1): 80.0, (1, 2): 240.0}[min(step, 1), layers]
        return Known(OperatingPoint(width, None, step, layers), accuracy, 1.0, ((accuracy,) * 3,) * 2, size)

    return Catalogue(
        widths=WIDTHS,
        confidence_edges=edges,
        stage_flops=((1, 4), (1, 4)),
        exits=tuple(tuple(exit_at(w, i) for i in range(2)) for w in WIDTHS),
        offloads=tuple(tuple(tuple(offload(w, s, n) for n in (1, 2)) for s in range(steps)) for w in WIDTHS),
    )


def silent() -> Catalogue:
    """The same without early exits."""
    known = catalogue()
    nothing = ((0.0,) * 3,) * 2
    exits = tuple((Known(OperatingPoint(w), 0.0, 1.0, nothing),) * 2 for w in WIDTHS)
    return replace(known, exits=exits)


class Head:
    """Stages that take a fixed time and are as confident as a script says; features that are always the same, or a clip's."""

    def __init__(
        self,
        stages_s: tuple[tuple[float, float], ...],
        confidence: Callable[[int], float | None],
        *,
        seen: Callable[[int], Detail | None] = lambda _: None,
        flow_s: float = 0.0,
        config: CodecConfig | None = None,
        features: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """`features` gives what crosses of each frame, coded as `config` says; `seen` is what exits find in it."""
        self._seen, self._flow_s = seen, flow_s
        self.followed: list[tuple[int, ...]] = []
        """The frames of every job of the followers."""
        usual, still = coding()
        self.coder, self.features = Coder(config or usual), features or (lambda _: still)
        self._stages_s, self._confidence = stages_s, confidence
        self._references: dict[int, Reference] = {}
        self.sent: list[tuple[int, int, int]] = []
        """(frame, step, layer) of every payload."""
        self.deltas: dict[int, int] = {}
        """The reference of every frame that was sent as a delta."""
        self.believed: dict[int, Reconstruction] = {}
        """What the server has of every frame that arrived whole, as the device knows it."""

    def run(self, frame_id: int, stage: int, width: float) -> StageResult:
        confidence = self._confidence(frame_id)
        told = None if confidence is None else Guess(LABEL_LOCAL, confidence, self._seen(frame_id))
        took_s = self._stages_s[stage][WIDTHS.index(width)]
        if stage != 1:
            return StageResult(frame_id, stage, width, told, took_s)
        reference = self._references.get(frame_id)
        sizes, deltas = self.coder.sizes(self.features(frame_id), (), reference)
        return StageResult(
            frame_id, stage, width, told, took_s, sizes, reference=reference if deltas else None, delta_bytes=deltas
        )

    def refer(self, frame_id: int, reference: Reference) -> None:
        self._references[frame_id] = reference

    def coding_s(self, _: int) -> float:
        return 0.0

    def encode(self, frame_id: int, step: int, layer: int) -> bytes:
        self.sent.append((frame_id, step, layer))
        payload = self.coder.whole(frame_id, self.features(frame_id), (), step)[layer]
        self._note(frame_id)
        return payload

    def delta(self, frame_id: int, step: int, layers: int, reference: Reference) -> tuple[bytes, int]:
        self.sent.append((frame_id, step, 0))
        self.deltas[frame_id] = reference.frame_id
        payload = self.coder.delta(frame_id, self.features(frame_id), step, layers, reference)
        self._note(frame_id)
        return payload

    def _note(self, frame_id: int) -> None:
        if (held := self.coder.held(Reference(frame_id, 2))) is not None:
            self.believed[frame_id] = held

    def follow(self, frame_ids: Sequence[int], places: Sequence[Place]) -> tuple[tuple[Place | None, ...], float]:
        self.followed.append(tuple(frame_ids))
        return tuple(places), self._flow_s * (len(frame_ids) - 1)

    def forget(self, frame_id: int) -> None:
        self._references.pop(frame_id, None)


class Tail:
    """Always the same class, in a fixed time; it remembers what it was given."""

    def __init__(self) -> None:
        self.given: dict[int, tuple[np.ndarray, int]] = {}
        """Features and layers by frame."""

    def run(self, batch: RunBatch[streams.Ready]) -> tuple[list[Packed], float]:
        for item in batch.items:
            self.given[item.frame_id] = item.payload.features, item.payload.layers_used
        logits = tuple(6.0 * (k == LABEL_SERVER) for k in range(CLASSES))
        return [logits] * len(batch.items), TAIL_S


class Pair(Timeline):
    """One device, one server, one link; `run` moves time on. `stages_s[stage][width]` is what stages really take."""

    def __init__(
        self,
        *rows: tuple[float, float, float, float],
        policy: str | Policy = "expected-utility",
        confidence: Callable[[int], float | None] = lambda _: 0.6,
        fps: float = 15.0,
        deadline_s: float = 0.15,
        stages_s: tuple[tuple[float, float], ...] = ((0.004, 0.010), (0.003, 0.008)),
        stream_credits: int = 8,
        known: Catalogue | None = None,
        gate: Gate | None = None,
        sketch: Callable[[int], Sketch | None] = lambda _: None,
        filter_frame: Callable[[int], FilterResult] | None = None,
        tracker: Tracker | None = None,
        seen: Callable[[int], Detail | None] = lambda _: None,
        flow_s: float = 0.002,
        config: CodecConfig | None = None,
        features: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """`rows` of (seconds, up Mbit/s, down Mbit/s, round trip ms) shape the link; `confidence` None: no exit speaks.

        `sketch` is what the gate sees of a frame, `filter_frame` what the neural filter makes of it.
        `seen` is what exits find
        in a frame; what is tracked stays where it is, each step takes `flow_s`. `features` are what crosses of it, coded
        as `config` says.
        """
        super().__init__()
        known, config = known or catalogue(), config or coding()[0]
        chosen = POLICIES[policy](known) if isinstance(policy, str) else policy
        times = TailTimes({b: TAIL_S * (0.8 + 0.2 * b) for b in range(1, 9)}, max_batch=8)
        batcher: Batcher[streams.Ready] = Batcher(times, max_batch=8, stream_credits=stream_credits)
        limits = Limits(stream_credits=stream_credits)
        self.tail = Tail()
        self.server = ServerNode(
            self,
            streams.Streams(streams.Served("pair", HASH, config), batcher, server_id="edge", limits=limits),
            self.tail,
        )
        self.head = Head(stages_s, confidence, seen=seen, flow_s=flow_s, config=config, features=features)
        trace = steps(rows or ((3600.0, 8.0, 8.0, 20.0),))
        self.device = DeviceNode(
            self,
            Session(known, chosen, StageTimes(stages_s), gate=gate, filtered=filter_frame is not None, tracker=tracker),
            self.head,
            {"": Way(self.server, ShapedLink(trace, "up"), ShapedLink(trace, "down"))},
            lambda frame, answer, *_: self.answers.append((frame, answer)),
            hello=Hello("pair", HASH, CODEC_VERSION, "device"),
            filter_frame=filter_frame,
        )
        self._sketch = sketch
        self.answers: list[tuple[Frame, Answer]] = []
        self._deadline_s, self._period_s = deadline_s, 1 / fps
        self.at(0.05, self._capture, 0)

    def connected(self) -> Pair:
        """Itself, with a stream on its way."""
        self.device.connect(self.now)
        return self

    def cut(self) -> None:
        """The server dies, and the device is told."""
        self.server.die(self.now)
        self.device.hang_up("", self.now)

    def run(self, seconds: float) -> Pair:
        """Let so much time pass."""
        until_s = self.now + seconds
        run_virtual(self, until_s=until_s)
        self.now = until_s
        return self

    def between(self, start_s: float, end_s: float) -> list[Answer]:
        """Answers to the frames captured then."""
        return [a for f, a in self.answers if start_s <= f.captured_s < end_s]

    def _capture(self, now: float, frame_id: int) -> None:
        self.at(now + self._period_s, self._capture, frame_id + 1)
        self.device.take(now, Frame(frame_id, now, now + self._deadline_s), self._sketch(frame_id))
