"""Any `.tflite` cut in two without training: which cut is best, what each operating point of it answers, and its bundle.

Accuracy here means agreement with the uncut model. Half of the sample pictures fit the quantiser and the temperatures,
the other half, which they never saw, measures.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import SCHEMA, Bundle, Input, Manifest, Outcomes, Point, Stage, TailPart
from isthmus.models.bundling import calibration, writer
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.crossing import joined, parted
from isthmus.models.flatbuffer import Graph, written
from isthmus.models.litert import Signature, signature_of
from isthmus.models.profiles import Profile
from isthmus.models.progress import Report
from isthmus.models.splitting import quantiser_fit
from isthmus.models.splitting.cuts import HEAD, TAIL, Cut, cut_files, cuts, halves, names, whole
from isthmus.models.splitting.outputs import Reading
from isthmus.models.splitting.quantiser_fit import Coding
from isthmus.models.splitting.uncut import Activations, Uncut, check_sizes
from isthmus.proto.codec import Codec
from isthmus.proto.errors import ModelError
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Guess

FALLBACK = "fallback"
WIDTH = 1.0
"""The one width of a cut model."""
LISTED_PICTURES = 12
LISTED_VALUES = 1_000_000
"""Coded sizes in a list are of so many pictures, fewer where features are large."""
TRIES = 8
"""Cuts whose agreement is measured in search of the best."""
COLDEST = 0.25
"""A cut model that never disagreed on these pictures may on others: no temperature says more than this."""


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
class Answered:
    """One operating point over the measured pictures."""

    point: Point
    guesses: tuple[Guess, ...]
    score: NDArray[np.float32]
    """(N,) agreement with the uncut model, 0 to 1."""


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

    def best(self, agreement: float, max_bytes: float = float("inf")) -> Point | None:
        """The smallest point that agrees so well in so many bytes."""
        good = [
            a.point
            for a in self.answered
            if a.point.exit is None and a.point.accuracy >= agreement and a.point.bytes <= max_bytes
        ]
        return min(good, key=lambda point: point.bytes, default=None)


def listed(uncut: Uncut) -> tuple[Place, ...]:
    """Every place to cut, with what it would send, measured on a few pictures."""
    found = cuts(uncut.graph)
    usable = [cut for cut in found if not cut.obstacle]
    activations = Activations(uncut, usable, most=LISTED_PICTURES, values=LISTED_VALUES)
    return tuple(_place(uncut, cut, activations) for cut in found)


def _place(uncut: Uncut, cut: Cut, activations: Activations) -> Place:
    if cut.obstacle:
        return Place(cut, None)
    features = activations.at(cut)
    if not quantiser_fit.is_finite(features):
        return Place(replace(cut, obstacle="values that are not finite would have to cross"), None)
    return Place(cut, quantiser_fit.nominal_bytes(uncut.graph, cut, features))


def best(
    uncut: Uncut, places: Sequence[Place], conditions: Conditions, report: Report, fallback: Uncut | None = None
) -> Split:
    """The quickest cut that agrees well enough in time and in size; raises ModelError saying how close the tried ones came."""
    ranked = sorted(_promising(places, conditions), key=lambda place: place[0])
    tried = []
    for _, cut in ranked[:TRIES]:
        split = measured(uncut, cut, fallback)
        points = [a.point for a in split.answered if a.point.exit is None and a.point.bytes <= conditions.max_bytes]
        in_time = [p for p in points if conditions.seconds(cut, p.bytes) <= conditions.deadline_s]
        closest = max(in_time, key=lambda p: p.accuracy, default=None)
        if closest is not None and closest.accuracy >= conditions.agreement:
            return split
        outcome = "nothing in time" if closest is None else f"{closest.accuracy:.1%} at {closest.bytes:.0f} bytes"
        tried.append(f"after {cut.after}: {outcome}")
        report(f"cut {tried[-1]}")
    raise ModelError(
        f"{uncut.graph.path}: no cut agrees in {conditions.agreement:.1%} within {conditions.deadline_s * 1000:.0f} ms; "
        + ("; ".join(tried) or "none is quick enough before its agreement is measured")
    )


def _promising(places: Sequence[Place], conditions: Conditions) -> Iterator[tuple[float, Cut]]:
    """Cuts that may be quick enough, with their time at the nominal step."""
    for place in places:
        if place.coded_bytes is None or place.coded_bytes > 1.5 * conditions.max_bytes:
            continue
        seconds = conditions.seconds(place.cut, place.coded_bytes)
        if seconds <= conditions.deadline_s:
            yield seconds, place.cut


def measured(uncut: Uncut, cut: Cut, fallback: Uncut | None = None) -> Split:
    """Fit the coding of `cut` on the pictures for fitting, and measure every operating point on the others."""
    head_file, tail_file = cut_files(uncut.graph, cut)
    whose = uncut.graph.path
    head, tail = signature_of(head_file, HEAD, whose=whose), signature_of(tail_file, TAIL, whose=whose)
    features = [head(image=image) for image in uncut.images]
    check_sizes(uncut.graph, dict(zip(names(cut), cut.crossing, strict=True)), features[0])
    coding = quantiser_fit.coded(uncut.graph, cut, [features[i] for i in uncut.fitting])
    bottleneck = coding.bottleneck
    x = np.stack([joined(outputs, bottleneck) for outputs in features])
    guesses = uncut.guesses()
    bench = _Bench(uncut, coding, tail, guesses)
    exits = [from_fallback(fallback, guesses)] if fallback is not None else []
    steps = [bench.at(step, x) for step in range(len(coding.codec.steps))]
    sent = [by_confidence(told, exits) for told_at, _ in steps for told in told_at]
    layer_bytes = np.stack([sizes[uncut.measuring] for _, sizes in steps], axis=1)[:, None]
    truth = tuple(guesses[i] for i in uncut.measuring)
    return Split(uncut, cut, coding, (*exits, *sent), truth, layer_bytes, fallback)


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


def answered(
    uncut: Uncut, point: Point, outputs: Sequence[NDArray[np.float32]], packed: Sequence[Packed], truth: Sequence[Guess]
) -> Answered:
    """What was answered at `point` to every picture, against the truth: calibrated on some pictures, reported for the others."""
    task = uncut.task
    score = np.array([task.agreement(a, b) for a, b in zip(uncut.read(packed), truth, strict=True)], np.float32)
    accuracy = round(float(score[uncut.measuring].mean()), 5)
    temperature = 1.0
    if isinstance(task, Classification):
        logits = np.stack([task.logits([outputs[i]]) for i in uncut.fitting])
        labels = np.array([truth[i].label for i in uncut.fitting])
        temperature = max(COLDEST, round(calibration.fitted_temperature(logits, labels), 5))
    guesses = tuple(task.guess(packed[i], temperature=temperature, accuracy=accuracy) for i in uncut.measuring)
    point = msgspec.structs.replace(point, accuracy=accuracy, temperature=temperature)
    return Answered(point, guesses, score[uncut.measuring])


def from_fallback(fallback: Uncut, truth: Sequence[Guess]) -> Answered:
    """What a small model answers on the device, by its own confidence."""
    point = Point(width=WIDTH, exit=0)
    return by_confidence(found := answered(fallback, point, fallback.outputs, fallback.packed, truth), [found])


def by_confidence(answers: Answered, exits: Sequence[Answered]) -> Answered:
    """The answers with their agreement by each exit's confidence."""
    rows = tuple(
        calibration.accuracy_by_confidence(
            np.array([guess.confidence for guess in e.guesses]), answers.score, CONFIDENCE_EDGES
        )
        for e in exits
    )
    return replace(answers, point=msgspec.structs.replace(answers.point, accuracy_given=rows))


def write(target: Path, split: Split, *, labels: Sequence[str] = (), made_by: str = "") -> Bundle:
    """The bundle of a measured split at `target`: head, tail, outcome table and model card, or nothing at all."""
    manifest = _manifest(target.name, split, tuple(labels), made_by)
    head, tail = halves(split.uncut.graph, split.cut)
    parts = [head] if split.fallback is None else [whole(split.fallback.graph, FALLBACK), head]

    def fill(folder: Path) -> None:
        (folder / "head.tflite").write_bytes(written(parts))
        (folder / "tail.tflite").write_bytes(written([tail]))
        table = outcomes_of(split.answered, split.truth, split.layer_bytes, split.uncut.reading.task)
        kept = {name: value for name in Outcomes.__dataclass_fields__ if (value := getattr(table, name)) is not None}
        np.savez_compressed(folder / "outcomes.npz", **kept)
        (folder / "MODEL_CARD.md").write_text(_card(manifest, split))

    return writer.write(target, manifest, fill)


def _manifest(name: str, split: Split, labels: tuple[str, ...], made_by: str) -> Manifest:
    graph, cut, fallback = split.uncut.graph, split.cut, split.fallback
    stages = [(Stage(WIDTH, HEAD, cut.head_flops, exit=()),)]
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
    )


def _schema(split: Split) -> int:
    """The least that its bundle must name."""
    if split.uncut.reading.boxes is not None:
        return SCHEMA
    pictures = [split.uncut.input] if split.fallback is None else [split.uncut.input, split.fallback.input]
    return max(split.coding.bottleneck.schema, *(picture.schema for picture in pictures))


def outcomes_of(
    answered: Sequence[Answered], truth: Sequence[Guess], layer_bytes: NDArray[np.uint32], task: str
) -> Outcomes:
    """The outcome table of measured operating points, with the agreement of each answer where answers are no classes."""
    classes = task.startswith("classification")
    return Outcomes(
        truth=np.array([guess.label for guess in truth], np.uint16),
        label=np.array([[guess.label for guess in a.guesses] for a in answered], np.uint16).T,
        confidence=np.array([[guess.confidence for guess in a.guesses] for a in answered], np.float16).T,
        layer_bytes=layer_bytes,
        score=None if classes else np.array([a.score for a in answered], np.float16).T,
    )


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
        "| step | layers | bytes | agreement % |",
        "|---|---|---|---|",
    ]
    for point in m.points:
        step = "fallback" if point.step is None else f"{m.bottleneck.steps[point.step]:.4g}"
        lines.append(f"| {step} | {point.layers} | {point.bytes:.0f} | {100 * point.accuracy:.2f} |")
    return "\n".join([*lines, ""])


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
