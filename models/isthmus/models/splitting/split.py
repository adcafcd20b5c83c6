"""Any `.tflite` cut in two without training: which cut is best, what each operating point of it answers, and its bundle.

Accuracy here means agreement with the uncut model. Half of the sample pictures fit the quantiser and the temperatures,
the other half, which they never saw, measures.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import SCHEMA, Bundle, Manifest, Outcomes, Point, Stage
from isthmus.models.bundling import writer
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.crossing import joined, parted
from isthmus.models.flatbuffer import Graph, written
from isthmus.models.litert import Signature, signature_of
from isthmus.models.picture_ladder import Input, TailPart
from isthmus.models.profiles import Profile
from isthmus.models.progress import Report, Tick, unheard
from isthmus.models.splitting import quantiser_fit
from isthmus.models.splitting.answered import (
    WIDTH,
    Answered,
    answered,
    by_confidence,
    card_table,
    from_fallback,
    outcomes_of,
)
from isthmus.models.splitting.cuts import HEAD, TAIL, Cut, cut_files, cuts, halves, names, whole
from isthmus.models.splitting.outputs import Reading
from isthmus.models.splitting.quantiser_fit import Coding
from isthmus.models.splitting.uncut import Activations, Uncut, check_sizes
from isthmus.proto.codec import Codec
from isthmus.proto.errors import ModelError
from isthmus.proto.vocabulary import Guess

if TYPE_CHECKING:
    from isthmus.models.splitting.ladder import Ladder

FALLBACK = "fallback"
LISTED_PICTURES = 12
LISTED_VALUES = 1_000_000
"""Coded sizes in a list are of so many pictures, fewer where features are large."""
TRIES = 8
"""Cuts whose agreement is measured in search of the best."""


@dataclass(frozen=True)
class Place:
    """A cut and what it would send: mean bytes at the nominal step; None where it is no cut."""

    cut: Cut
    coded_bytes: float | None


@dataclass(frozen=True)
class Conditions:
    """The link, machines and limits that a cut is chosen for."""

    device: Profile
    server: Profile
    rate_Bps: float
    rtt_s: float
    deadline_s: float
    agreement: float
    """The least agreement with the uncut model, 0 to 1."""
    max_bytes: float = float("inf")

    def head_s(self, cut: Cut) -> float:
        """The time of the head on the device, with one thread."""
        int8 = cut.crossing[0].dtype != "float32"
        ops = cut.after + 1
        return self.device.stage_s(cut.head_flops, cut.head_traffic_bytes, ops=ops, threads="one", int8=int8)

    def tail_s(self, cut: Cut) -> float:
        """The time of the tail on the server, alone in its batch."""
        return self.server.tail_s(cut.tail_flops, traffic_bytes=cut.tail_traffic_bytes)

    def seconds(self, cut: Cut, size_bytes: float) -> float:
        """The time from picture to answer when so many bytes are sent."""
        return self.head_s(cut) + size_bytes / self.rate_Bps + self.rtt_s + self.tail_s(cut)


@dataclass(frozen=True)
class Split:
    """A cut, its coding, and what its operating points answer."""

    uncut: Uncut
    cut: Cut
    coding: Coding
    answered: tuple[Answered, ...]
    truth: tuple[Guess, ...]
    """The uncut model's answers to the measured pictures."""
    layer_bytes: NDArray[np.uint32]
    """(N, 1, S, L)"""
    fallback: Uncut | None
    ladder: Ladder | None = None
    """How the picture crosses, where it may too."""

    def best(self, agreement: float, max_bytes: float = float("inf")) -> Point | None:
        """The smallest point that agrees so well in so many bytes, as far as its pictures can tell."""
        good = [a.point for a in self.sent if a.agrees(agreement) and a.point.bytes <= max_bytes]
        return min(good, key=lambda point: point.bytes, default=None)

    @property
    def sent(self) -> list[Answered]:
        """The operating points that send something."""
        return [a for a in self.answered if a.point.exit is None]


def listed(uncut: Uncut, tick: Tick = unheard) -> tuple[Place, ...]:
    """Every place to cut, with what it would send, measured on a few pictures."""
    found = cuts(uncut.graph)
    usable = [cut for cut in found if not cut.obstacle]
    activations = Activations(uncut, usable, most=LISTED_PICTURES, values=LISTED_VALUES)
    places = []
    for number, cut in enumerate(found):
        tick("cuts coded", number, len(found))
        places.append(_place(uncut, cut, activations))
    return tuple(places)


def _place(uncut: Uncut, cut: Cut, activations: Activations) -> Place:
    if cut.obstacle:
        return Place(cut, None)
    features = activations.at(cut)
    if not quantiser_fit.is_finite(features):
        return Place(replace(cut, obstacle="values that are not finite would have to cross"), None)
    return Place(cut, quantiser_fit.nominal_bytes(uncut.graph, cut, features))


def best(
    uncut: Uncut,
    places: Sequence[Place],
    conditions: Conditions,
    report: Report,
    fallback: Uncut | None = None,
    truth: Sequence[Guess] | None = None,
    tick: Tick = unheard,
) -> Split:
    """The quickest cut that agrees well enough in time and in size, as far as the pictures can tell.

    Where none does, the one that agrees best of those tried, and `report` is told. Raises ModelError when none is in time.
    """
    ranked = sorted(_promising(places, conditions), key=lambda place: place[0])[:TRIES]
    kept: tuple[float, Split] | None = None
    for number, (_, cut) in enumerate(ranked, 1):
        split = measured(uncut, cut, fallback, truth, tick)
        closest = max(_in_time(split, conditions), key=lambda a: a.point.accuracy, default=None)
        if closest is not None and closest.agrees(conditions.agreement):
            return split
        report(f"cut {number} of {len(ranked)} at most, after {cut.after}: {_outcome(closest)}")
        if closest is not None and (kept is None or closest.point.accuracy > kept[0]):
            kept = closest.point.accuracy, split
    wanted = f"no cut agrees in {conditions.agreement:.1%} within {conditions.deadline_s * 1000:.0f} ms"
    if kept is None:
        raise ModelError(
            f"{uncut.graph.path}: {wanted}: none is quick enough; allow more time (--deadline) or bytes (--max-bytes)"
        )
    report(f"{wanted}; the best that was found is kept, after {kept[1].cut.after}: {kept[0]:.1%}")
    return kept[1]


def _in_time(split: Split, conditions: Conditions) -> list[Answered]:
    """The operating points that are small enough, and bring the answer back in time."""
    small = [a for a in split.sent if a.point.bytes <= conditions.max_bytes]
    return [a for a in small if conditions.seconds(split.cut, a.point.bytes) <= conditions.deadline_s]


def _outcome(closest: Answered | None) -> str:
    if closest is None:
        return "nothing in time"
    return f"{closest.point.accuracy:.1%} ± {closest.error:.1%} at {closest.point.bytes:,.0f} bytes"


def _promising(places: Sequence[Place], conditions: Conditions) -> Iterator[tuple[float, Cut]]:
    """Cuts that may be quick enough, with their time at the nominal step."""
    for place in places:
        if place.coded_bytes is None or place.coded_bytes > 1.5 * conditions.max_bytes:
            continue
        seconds = conditions.seconds(place.cut, place.coded_bytes)
        if seconds <= conditions.deadline_s:
            yield seconds, place.cut


def measured(
    uncut: Uncut,
    cut: Cut,
    fallback: Uncut | None = None,
    truth: Sequence[Guess] | None = None,
    tick: Tick = unheard,
) -> Split:
    """Fit the coding of `cut` on the pictures for fitting, and measure every operating point on the others.

    Right is what the uncut model answers, or the `truth` where that is somebody else's.
    """
    head_file, tail_file = cut_files(uncut.graph, cut)
    whose = uncut.graph.path
    head, tail = signature_of(head_file, HEAD, whose=whose), signature_of(tail_file, TAIL, whose=whose)
    features = [head(image=image) for image in uncut.images]
    check_sizes(uncut.graph, dict(zip(names(cut), cut.crossing, strict=True)), features[0])
    coding = quantiser_fit.coded(uncut.graph, cut, [features[i] for i in uncut.fitting])
    bottleneck = coding.bottleneck
    x = np.stack([joined(outputs, bottleneck) for outputs in features])
    guesses = uncut.guesses() if truth is None else list(truth)
    bench = _Bench(uncut, coding, tail, guesses)
    exits = [from_fallback(fallback, guesses)] if fallback is not None else []
    steps = []
    for step in range(len(coding.codec.steps)):
        tick(f"steps measured of the cut after {cut.after}", step, len(coding.codec.steps))
        steps.append(bench.at(step, x))
    sent = [by_confidence(told, exits) for told_at, _ in steps for told in told_at]
    layer_bytes = np.stack([sizes[uncut.measuring] for _, sizes in steps], axis=1)[:, None]
    kept = tuple(guesses[i] for i in uncut.measuring)
    return Split(uncut, cut, coding, (*exits, *sent), kept, layer_bytes, fallback)


def with_pictures(split: Split, ladder: Ladder) -> Split:
    """A split whose picture may cross as well; what crosses as a picture has one layer."""
    count, _, _, layers = split.layer_bytes.shape
    pictures = np.zeros((count, 1, ladder.sizes.shape[1], layers), np.uint32)
    pictures[:, 0, :, 0] = ladder.sizes
    sizes = np.concatenate([split.layer_bytes, pictures], axis=2)
    return replace(split, answered=(*split.answered, *ladder.answered), layer_bytes=sizes, ladder=ladder)


class _Bench:
    """Codes features, runs the tail on what is left of them, and compares."""

    def __init__(self, uncut: Uncut, coding: Coding, tail: Signature, truth: list[Guess]) -> None:
        self._uncut, self._coding, self._tail, self._truth = uncut, coding, tail, truth
        self._task = uncut.task
        self._codec = Codec(coding.codec)

    def at(self, step: int, x: NDArray[np.float32]) -> tuple[list[Answered], NDArray[np.uint32]]:
        """What each number of layers answers at one step, and the payloads' bytes (N, L) of every picture."""
        payloads = [self._codec.encode(features, step) for features in x]
        sizes = np.array([list(map(len, p)) for p in payloads], np.uint32)
        return [self._answer(step, n, payloads, sizes) for n in range(1, sizes.shape[1] + 1)], sizes

    def _answer(
        self, step: int, layers: int, payloads: Sequence[tuple[bytes, ...]], sizes: NDArray[np.uint32]
    ) -> Answered:
        outputs = [self._through(p[:layers]) for p in payloads]
        size = round(float(sizes[self._uncut.measuring, :layers].sum(axis=1).mean()), 1)
        point = Point(width=WIDTH, step=step, layers=layers, bytes=size)
        packed = [self._task.pack(arrays) for arrays in outputs]
        return answered(self._uncut, point, [arrays[0] for arrays in outputs], packed, self._truth)

    def _through(self, payloads: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """The tail's outputs, without the batch, for what crossed."""
        tensors = parted(self._codec.decode(payloads)[None], self._coding.tensors)
        given = {n: t.reshape(p.shape) for (n, p), t in zip(self._tail.inputs.items(), tensors, strict=True)}
        return [array[0] for array in self._tail(**given).values()]


def write(target: Path, split: Split, *, labels: Sequence[str] = (), made_by: str = "") -> Bundle:
    """The bundle of a measured split at `target`: head, tail, outcome table and model card, or nothing at all."""
    manifest = _manifest(target.name, split, tuple(labels), made_by)
    head, tail = halves(split.uncut.graph, split.cut)
    parts = [head] if split.fallback is None else [whole(split.fallback.graph, FALLBACK), head]

    def fill(folder: Path) -> None:
        (folder / "head.tflite").write_bytes(written(parts))
        (folder / "tail.tflite").write_bytes(written([tail]))
        if split.ladder is not None:
            (folder / split.ladder.file).write_bytes(split.ladder.model)
        table = outcomes_of(split.answered, split.truth, split.layer_bytes, split.uncut.reading.task)
        kept = {name: value for name in Outcomes.__dataclass_fields__ if (value := getattr(table, name)) is not None}
        np.savez_compressed(folder / "outcomes.npz", **kept)
        (folder / "MODEL_CARD.md").write_text(_card(manifest, split))

    return writer.write(target, manifest, fill)


def _manifest(name: str, split: Split, labels: tuple[str, ...], made_by: str) -> Manifest:
    graph, cut, fallback = split.uncut.graph, split.cut, split.fallback
    stages = [(Stage(WIDTH, HEAD, cut.head_flops, exit=()),)]
    if split.ladder is not None:  # the picture needs no head, and can be sent before it
        stages.insert(0, (Stage(WIDTH, "", 0, exit=()),))
    if fallback is not None:
        outputs = tuple(f"output{i}" for i in range(len(fallback.graph.outputs)))
        temperature = split.answered[0].point.temperature
        first = Stage(
            WIDTH,
            FALLBACK,
            fallback.graph.flops,
            temperature,
            exit=outputs,
            input=fallback.input,
            boxes=fallback.reading.boxes,
        )
        stages.insert(0, (first,))
    version = importlib.metadata.version("isthmus")
    return Manifest(
        schema=_schema(split),
        name=name,
        task=split.uncut.reading.task,
        boxes=split.uncut.reading.boxes,
        labels=labels,
        input=split.uncut.input,
        widths=(WIDTH,),
        stages=tuple(stages),
        bottleneck=split.coding.bottleneck,
        tail_flops=cut.tail_flops,
        confidence_edges=CONFIDENCE_EDGES,
        points=tuple(a.point for a in split.answered),
        files={},
        made_by=f"{made_by or 'isthmus.models.split'} ({graph.path.name} cut after operator {cut.after}; isthmus {version})",
        reference="uncut",
        tail=(TailPart("tail.tflite", "litert"),),
        picture=None if split.ladder is None else split.ladder.table,
    )


def _schema(split: Split) -> int:
    """The least that its bundle must name."""
    if split.uncut.reading.boxes is not None or split.ladder is not None:
        return SCHEMA
    pictures = [split.uncut.input] if split.fallback is None else [split.uncut.input, split.fallback.input]
    return max(split.coding.bottleneck.schema, *(picture.schema for picture in pictures))


def _card(m: Manifest, split: Split) -> str:
    graph, cut = split.uncut.graph, split.cut
    shapes = " + ".join("×".join(map(str, t.shape[1:])) + f" {t.dtype}" for t in cut.crossing)
    lines = [
        f"# {m.name}",
        "",
        f"`{graph.path.name}` cut after operator {cut.after} of {len(graph.operators)}, without training: {m.task}, input "
        f"{m.input.size} × {m.input.shape[1]} RGB. What crosses: {shapes}, {cut.raw_bytes:,} bytes uncoded.",
        f"The head computes {cut.head_flops / 1e6:.1f} MFLOP, the tail {cut.tail_flops / 1e6:.1f}.",
        "",
        f"Made by `{m.made_by}`. Head after tail is the uncut model bit for bit; agreement with it is what the quantiser "
        f"leaves, on {len(split.truth)} pictures that fitted nothing.",
        "",
    ]
    steps = ["fallback" if p.step is None else m.step_name(p.step) for p in m.points]
    cells = [(step, str(point.layers)) for step, point in zip(steps, m.points, strict=True)]
    return "\n".join([*lines, *card_table(split.answered, split.truth, ("step", "layers"), cells), ""])


def fallback_of(
    uncut: Uncut, graph: Graph, input_: Input, reading: Reading | None, pictures: Sequence[NDArray[np.uint8]]
) -> Uncut:
    """A second, small model that answers where the first cannot in time. Raises ModelError when it answers otherwise."""
    small = Uncut.of(graph, input_, reading, pictures)
    if (small.reading.task, small.form) != (uncut.reading.task, uncut.form):
        raise ModelError(
            f"{graph.path}: gives {small.reading.task} {small.outputs[0].shape}, the model that it stands in for gives "
            f"{uncut.reading.task} {uncut.outputs[0].shape}"
        )
    return small
