"""A head and a tail that replay an outcome table: what the real network answered, in the time that a profile says.

Accuracy is therefore counted, never assumed: frame by frame, an answer is the one that the bundle's network gave for a
validation picture at that operating point. Pure and seeded; whatever one frame meets does not depend on what became of
the others, so that every policy, the clairvoyant too, plays the same frames.
"""

from __future__ import annotations

import math
import random
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.device.catalogue import Catalogue
from isthmus.device.tracking.tracks import Place
from isthmus.edge_server.batcher import RunBatch
from isthmus.edge_server.streams import Ready
from isthmus.models.bundle import Bundle, Outcomes
from isthmus.proto.errors import BundleError
from isthmus.proto.frame_codec import Crossed
from isthmus.proto.record import FrameRecord
from isthmus.proto.tasks.classification import FEW, TOP, Classification
from isthmus.proto.tasks.task import Packed
from isthmus.proto.temporal.reconstruction import Reconstruction, References
from isthmus.proto.vocabulary import Guess, OperatingPoint, Reference, StageResult

SIZE_ERROR = 0.03
"""Median relative error of a predicted size: the codec's predictor is 1.3 to 4.6 % off on CIFAR-10's test pictures,
10 % at a base of 30 bytes. The errors of one picture's layers go together (correlation 0.4 to 0.8): one draw serves all."""
STAGE_NOISE = 0.05
"""Standard deviation of the logarithm of a stage's time."""
TAIL_NOISE = 0.05
"""The same of a batch's time."""
GRADES = 20
"""How finely the agreement of masks and boxes is kept, which are seldom quite right or quite wrong."""
_MEDIAN = 0.6745  # of |x| for a standard normal x
_ADDRESS = struct.Struct("=3f")  # sample, width and step
_DELTA_ADDRESS = struct.Struct("=IBBB")  # and layers
_NOISES = 4099  # prime, so that frames and stages do not fall into step with it


@dataclass(frozen=True)
class Content:
    """What frames replay: a catalogue and its outcome table, validation samples (N) by operating points (P)."""

    catalogue: Catalogue
    outcomes: Outcomes
    points: tuple[OperatingPoint, ...]
    """The columns of the outcome table."""
    tail_flops: int
    """FLOPs of the server's part of one frame."""
    picture_flops: int = 0
    """The same of a frame whose picture crosses."""

    def __post_init__(self) -> None:
        n, p = self.outcomes.label.shape
        widths, steps = len(self.catalogue.widths), len(self.catalogue.offloads[0])
        if (
            len(self.points) != p
            or self.outcomes.layer_bytes.shape[:3] != (n, widths, steps)
            or len(self.outcomes.truth) != n
        ):
            raise BundleError(
                f"outcomes: {n} samples by {p} points with sizes {self.outcomes.layer_bytes.shape}, the catalogue has "
                f"{len(self.points)} points, {widths} widths and {steps} steps; give the outcome table of this bundle"
            )
        known = {k.point for row in self.catalogue.exits for k in row if k.point.exit is not None}
        known |= {k.point for width in self.catalogue.offloads for step in width for k in step}
        if missing := known - set(self.points):
            raise BundleError(f"outcomes: no column for {next(iter(missing))}; give the outcome table of this bundle")

    def carried(self) -> NDArray[np.bool_]:
        """(N,) the samples that an earlier one's answer is right about: none where they are in no order."""
        return np.zeros(len(self.outcomes.truth), bool)

    def replay(self, seed: int) -> Replay:
        """Itself laid out for look-up."""
        return Replay(self, seed=seed)

    @classmethod
    def of(cls, bundle: Bundle) -> Content:
        """A bundle's own, of the samples that judge: what tables were counted on would flatter whoever uses them.

        All samples where the bundle does not tell them apart. Raises BundleError when its outcome table is another bundle's.
        """
        return cls.whole(bundle).judging()

    def judging(self) -> Content:
        """The same without the samples that tables were counted on; frames of clips stay together, in their order."""
        held_in = self.outcomes.calibrating
        if held_in is None or held_in.all() or self.outcomes.lags is not None:
            return self
        table, judging = self.outcomes, ~held_in
        kept = Outcomes(
            truth=table.truth[judging],
            label=table.label[judging],
            confidence=table.confidence[judging],
            layer_bytes=table.layer_bytes[judging],
            score=None if table.score is None else table.score[judging],
        )
        return replace(self, outcomes=kept)

    @classmethod
    def whole(cls, bundle: Bundle) -> Content:
        """The same of all samples."""
        manifest = bundle.manifest
        try:
            points, outcomes = tuple(point.key for point in manifest.points), bundle.outcomes()
            catalogue = replace(Catalogue.from_manifest(manifest), task=Classification())  # of classes that occur
            if outcomes.score is not None:
                outcomes = _by_score(outcomes, outcomes.score)
            whole = 0 if manifest.picture is None else manifest.picture.flops
            return cls(catalogue, outcomes, points, manifest.tail_flops, whole)
        except BundleError as error:
            raise BundleError(f"{bundle.folder.name}: {error}") from error


def _by_score(outcomes: Outcomes, score: NDArray[np.float16]) -> Outcomes:
    """Masks and boxes as classes: each sample `GRADES` times, an answer right in as many of them as its score (N, P) says.

    So what is counted right is the mean score, to within half a grade.
    """
    truth = np.repeat(outcomes.truth.astype(np.uint16), GRADES)
    grade = np.tile((np.arange(GRADES) + 0.5) / GRADES, len(outcomes.truth))
    right = np.repeat(score, GRADES, axis=0) > grade[:, None]
    other = np.where(truth > 0, truth - 1, truth + 1)
    return Outcomes(
        truth=truth,
        label=np.where(right, truth[:, None], other[:, None]),
        confidence=np.repeat(outcomes.confidence, GRADES, axis=0),
        layer_bytes=np.repeat(outcomes.layer_bytes, GRADES, axis=0),
        calibrating=None if outcomes.calibrating is None else np.repeat(outcomes.calibrating, GRADES),
    )


Sizes = tuple[tuple[int, ...], ...]


class Replay:
    """A `Content` laid out for look-up, sample first. Shared by all devices that replay it."""

    def __init__(self, content: Content, *, seed: int) -> None:
        catalogue, outcomes = content.catalogue, content.outcomes
        self._column = column = {point: i for i, point in enumerate(content.points)}
        self.catalogue = catalogue
        self.truth: list[int] = outcomes.truth.tolist()
        self._lags = [] if outcomes.lags is None else outcomes.lags.tolist()
        self._delta_bytes = outcomes.delta_bytes
        longest = 0 if outcomes.delta_bytes is None else int(outcomes.delta_bytes.max())
        self.max_layer_bytes = max(_ADDRESS.size, int(outcomes.layer_bytes.max()), longest)
        """The longest payload that `Head` makes."""
        self._classes = 1 + int(max(1, outcomes.label.max(), outcomes.truth.max()))
        self._exits = [[column.get(known.point) for known in row] for row in catalogue.exits]
        self._offloads = [[[column[k.point] for k in step] for step in row] for row in catalogue.offloads]
        self._label: list[list[int]] = outcomes.label.tolist()
        self._confidence: list[list[float]] = outcomes.confidence.tolist()
        self._layer_bytes = outcomes.layer_bytes
        rng, spread = random.Random(f"{seed}/sizes"), SIZE_ERROR / _MEDIAN
        self._errors = [[math.exp(rng.gauss(0.0, spread)) for _ in catalogue.widths] for _ in self.truth]
        self._guesses: dict[tuple[int, int, int], Guess] = {}
        self._sizes: dict[tuple[int, int], tuple[Sizes, Sizes]] = {}
        self._logits: dict[tuple[int, int, int, int], Packed] = {}

    def guess(self, sample: int, width: int, stage: int) -> Guess | None:
        """What the exit at the end of a stage says; None where the stage ends in none."""
        column, key = self._exits[width][stage], (sample, width, stage)
        if column is None:
            return None
        if key not in self._guesses:
            self._guesses[key] = Guess(self._label[sample][column], min(self._confidence[sample][column], 1.0))
        return self._guesses[key]

    def answer(self, sample: int, point: OperatingPoint) -> Guess | None:
        """What an operating point answers; None for one that answers nothing."""
        column = self._column.get(point)
        if column is None:
            return None
        return Guess(self._label[sample][column], min(self._confidence[sample][column], 1.0))

    def sizes(self, sample: int, width: int) -> tuple[Sizes, Sizes]:
        """Payload bytes [step][layer]: what is really sent, and what the device believes before it encodes."""
        key = sample, width
        if key not in self._sizes:
            known, error = self._offloads[width], self._errors[sample][width]
            rows = self._layer_bytes[sample, width].tolist()
            real = [row[: len(layers)] for row, layers in zip(rows, known, strict=True)]
            believed = tuple(tuple(round(size * error) for size in layers) for layers in real)
            self._sizes[key] = tuple(map(tuple, real)), believed
        return self._sizes[key]

    def delta_sizes(self, sample: int, width: int, lag: int) -> Sizes:
        """Payload bytes [step][layers - 1] of a sample coded against the one `lag` before it; none where the table has none.

        Between two lags of the table the longer one tells.
        """
        place = bisect_left(self._lags, lag)
        if self._delta_bytes is None or lag < 1 or place == len(self._lags):
            return ()
        rows = self._delta_bytes[sample, width, place]
        return tuple(map(tuple, rows.tolist())) if rows.all() else ()

    def logits(self, sample: int, width: int, step: int, layers: int) -> Packed:
        """Logits, packed as a tail packs them, that say the table's label at its confidence (once divided by the temperature)."""
        if (key := (sample, width, step, layers)) not in self._logits:
            column = self._offloads[width][step][layers - 1]
            temperature = self.catalogue.offloads[width][step][layers - 1].temperature
            n = self._classes
            others = n - 1.0 if n <= FEW else TOP - 1 + (n - TOP) ** (1 / temperature)  # Σ exp(logit / T) of those of 0
            p = min(max(self._confidence[sample][column], 1 / (1 + others) + 1e-3), 1 - 1e-4)
            top = temperature * math.log(p * others / (1 - p))
            said = tuple(top if k == self._label[sample][column] else 0.0 for k in range(n))
            self._logits[key] = said if n <= FEW else Classification().pack((np.array(said, np.float32),))
        return self._logits[key]

    def feed(self, seed: int, device: int, *, fps: float, duration_s: float, deadline_s: float) -> Feed:
        """The frames of device number `device`."""
        return Feed.seeded(seed, device, len(self.truth), fps=fps, duration_s=duration_s, deadline_s=deadline_s)

    def judged(self, record: FrameRecord, sample: int, local: Guess | None) -> FrameRecord:
        """The record with what is known of its sample beyond its class, and of what the device's exit said of it."""
        return record

    def followed(self, samples: Sequence[int], places: Sequence[Place]) -> tuple[Place | None, ...]:
        """Where places in the first sample are in the last: samples in no order have nothing in common, so all is lost."""
        return (None,) * len(places)

    def crossed(self, payloads: Sequence[bytes], reference: Reconstruction | None = None) -> Crossed:
        """(3,) float32: sample, width and step of what `Head` made. The world's `FrameCodec.crossed`."""
        if reference is None:
            address, layers = payloads[0][: _ADDRESS.size], len(payloads)
        else:
            *place, layers = _DELTA_ADDRESS.unpack_from(payloads[0])
            address = _ADDRESS.pack(*place)
        return Crossed(np.frombuffer(address, np.float32, 3), layers, _held(address))


def _held(address: bytes) -> Reconstruction:
    """What both halves hold of a sample: its place in the table, whatever layers were used."""
    return Reconstruction(0, np.frombuffer(address, np.int8))


@dataclass(frozen=True)
class Feed:
    """One device's frames: when each is captured, and which validation sample it shows."""

    frames: int
    period_s: float
    deadline_s: float
    first_s: float
    order: tuple[int, ...]
    """Samples in the order in which they are shown, over and over."""

    @classmethod
    def seeded(cls, seed: int, device: int, samples: int, *, fps: float, duration_s: float, deadline_s: float) -> Feed:
        """The feed of device number `device`: samples shuffled, and a start within the first period."""
        rng = random.Random(f"{seed}/{device}/feed")
        order = list(range(samples))
        rng.shuffle(order)
        return cls(max(1, round(duration_s * fps)), 1 / fps, deadline_s, rng.random() / fps, tuple(order))

    def captured_s(self, frame_id: int) -> float:
        """When frame `frame_id` (from 0) is captured."""
        return self.first_s + frame_id * self.period_s

    def sample(self, frame_id: int) -> int:
        """The validation sample that it shows."""
        return self.order[frame_id % len(self.order)]


class Head:
    """A device's executor: the table's answers, after the profile's times. The world's counterpart of `Executor`."""

    def __init__(
        self,
        replay: Replay,
        feed: Feed,
        stages_s: Sequence[Sequence[float]],
        *,
        seed: int,
        device: int,
        flow_s: float = 0.0,
        coding_s: float = 0.0,
    ) -> None:
        """On an idle, cool device, in a profile's seconds: `stages_s[stage][width]`, `flow_s` from one picture to the next, and
        `coding_s` of a picture.
        """
        self.replay, self.feed = replay, feed
        self.stages_s, self._flow_s = tuple(tuple(row) for row in stages_s), flow_s
        self._widths = replay.catalogue.widths
        self._last, self._picture_stage = len(stages_s) - 1, replay.catalogue.picture_stage
        self._feature_steps, self._coding_s = replay.catalogue.feature_steps, coding_s
        rng = random.Random(f"{seed}/{device}/stages")
        self._noise = [math.exp(rng.gauss(0.0, STAGE_NOISE)) for _ in range(_NOISES)]
        self._shown: dict[int, tuple[int, int]] = {}
        self._references: dict[int, Reference] = {}
        self._sent = References()
        self.slowdown = 1.0
        """How many times slower than its profile the device runs: heat, and whoever else works there."""

    def stage_s(self, frame_id: int, stage: int, width: int) -> float:
        """What a stage takes at the present slowdown, for the width of this index."""
        noise = self._noise[(frame_id * len(self.stages_s) + stage) % _NOISES]
        return self.stages_s[stage][width] * noise * self.slowdown

    def run(self, frame_id: int, stage: int, width: float) -> StageResult:
        """What one stage gives; it is known at once and comes after its `compute_s`."""
        w = self._widths.index(width)
        sample = self.feed.sample(frame_id)
        guess, took_s = self.replay.guess(sample, w, stage), self.stage_s(frame_id, stage, w)
        if stage != self._last and (self._feature_steps is None or stage < self._picture_stage):
            return StageResult(frame_id, stage, width, guess, took_s)
        self._shown[frame_id] = sample, w
        _, sizes = self.replay.sizes(sample, w)
        if stage != self._last and self._feature_steps:
            sizes = ((),) * self._feature_steps + sizes[self._feature_steps :]
        reference, deltas = self._references.get(frame_id), Sizes()
        if reference is not None and stage == self._last:
            deltas = self.replay.delta_sizes(sample, w, sample - self.feed.sample(reference.frame_id))
        return StageResult(
            frame_id, stage, width, guess, took_s, sizes, reference=reference if deltas else None, delta_bytes=deltas
        )

    def refer(self, frame_id: int, reference: Reference) -> None:
        """See `Executor.refer`."""
        self._references[frame_id] = reference

    def coding_s(self, step: int) -> float:
        """What coding takes before a frame can leave, at the present slowdown: that of features is part of their stage."""
        return self._coding_s * self.slowdown if self.replay.catalogue.is_picture(step) else 0.0

    def encode(self, frame_id: int, step: int, layer: int) -> bytes:
        """A payload as long as the real one; the base begins with where the answer stands in the table."""
        sample, w = self._shown[frame_id]
        size = self.replay.sizes(sample, w)[0][step][layer]
        if layer:
            return bytes(size)
        address = _ADDRESS.pack(sample, w, step)
        self._sent.keep(frame_id, _held(address))
        return address.ljust(size, b"\0")

    def delta(self, frame_id: int, step: int, layers: int, reference: Reference) -> tuple[bytes, int]:
        """A payload as long as the real delta, and its reference's seal. See `Executor.delta`."""
        sample, w = self._shown[frame_id]
        size = self.replay.delta_sizes(sample, w, sample - self.feed.sample(reference.frame_id))[step][layers - 1]
        against = self._sent.of(reference.frame_id)
        assert against is not None  # the session counts what is held
        self._sent.keep(frame_id, _held(_ADDRESS.pack(sample, w, step)))
        return _DELTA_ADDRESS.pack(sample, w, step, layers).ljust(size, b"\0"), against.seal

    def follow(self, frame_ids: Sequence[int], places: Sequence[Place]) -> tuple[tuple[Place | None, ...], float]:
        """Where places in the first frame are in the last one, and how long following them takes, picture by picture."""
        followed = self.replay.followed([self.feed.sample(frame_id) for frame_id in frame_ids], places)
        return followed, self._flow_s * (len(frame_ids) - 1) * self.slowdown

    def forget(self, frame_id: int) -> None:
        """Nothing more will be asked of this frame."""
        self._references.pop(frame_id, None)
        self._shown.pop(frame_id, None)


class Tail:
    """A server's engine: the table's logits, after the profile's time for the batch."""

    def __init__(
        self,
        replay: Replay,
        batch_s: Callable[[int], float],
        *,
        seed: int,
        server: int,
        pictures_s: Callable[[int], float] | None = None,
    ) -> None:
        """`batch_s(b)` and `pictures_s(b)`: the profile's seconds for b frames' features, and for b pictures."""
        self._replay, self._batch_s, self._pictures_s = replay, batch_s, pictures_s or batch_s
        rng = random.Random(f"{seed}/{server}/tail")
        self._noise = [math.exp(rng.gauss(0.0, TAIL_NOISE)) for _ in range(_NOISES)]
        self.slowdown = 1.0

    def tail_s(self, frame_ids: Iterable[int], pictures: int = 0) -> float:
        """What a batch of these frames takes at the present slowdown, `pictures` of them pictures: as slow as its slowest."""
        noises = [self._noise[frame_id % _NOISES] for frame_id in frame_ids]
        features = len(noises) - pictures
        batch_s = (self._batch_s(features) if features else 0.0) + (self._pictures_s(pictures) if pictures else 0.0)
        return batch_s * max(noises) * self.slowdown

    def run(self, batch: RunBatch[Ready]) -> tuple[list[Packed], float]:
        """The answers and how long they take."""
        logits: list[Packed] = []
        pictures = 0
        for item in batch.items:
            sample, width, step = item.payload.features.tolist()
            logits.append(self._replay.logits(int(sample), int(width), int(step), item.payload.layers_used))
            pictures += self._replay.catalogue.is_picture(int(step))
        return logits, self.tail_s((item.frame_id for item in batch.items), pictures)
