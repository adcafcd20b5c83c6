"""Whether the keys of a `bundle.toml` fit each other; their types alone say nothing of lengths, indices and places. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from isthmus.proto.codec import Codec
from isthmus.proto.errors import CodecError
from isthmus.proto.frame_codec import deltas_of

if TYPE_CHECKING:
    from isthmus.models.bundle import Bottleneck, Manifest, Point
    from isthmus.models.picture_ladder import Input, PictureLadder

MOST_VALUES = 1 << 24
"""Values that may cross; more would not be a bottleneck."""
MOST_STEPS = 256
"""A payload says its step in one byte."""
FINEST = 100
"""The highest quality that the picture coders know."""
MOST_PIXELS = 1 << 14
"""Of a picture's side."""


def fault(manifest: Manifest) -> str | None:
    """The first key that does not fit the others, and why; None when all do."""
    return next(_faults(manifest), None)


def _faults(m: Manifest) -> Iterator[str]:
    yield from _file_faults(m)
    sent = () if m.picture is None else (m.picture.input, *map(m.picture.taken, m.picture.views))
    for taken in (m.input, *sent, *(s.input for stage in m.stages for s in stage if s.input is not None)):
        yield from picture_faults(taken)
    yield from _stage_faults(m)
    if m.confidence_edges != tuple(sorted(m.confidence_edges)) or not _finite(m.confidence_edges):
        yield "confidence_edges: must ascend"
    if m.picture is not None:
        yield from _ladder_faults(m.picture, len(m.bottleneck.steps))
    if m.bottleneck.steps or m.picture is None:
        yield from _bottleneck_faults(m.bottleneck)
    elif m.bottleneck.tables or m.bottleneck.size_fit:
        yield "bottleneck: has tables or size_fit, but no steps"
    exits = sum(1 for stage in m.stages if stage and stage[0].exit)
    for i, point in enumerate(m.points):
        yield from (f"points[{i}]: {why}" for why in _point_faults(m, point, exits))
    if m.predictors:
        yield from _predictor_faults(m)


def _file_faults(m: Manifest) -> Iterator[str]:
    parts = m.tail if m.picture is None else (*m.tail, *m.picture.tail)
    for name in (*m.files, *(part.file for part in parts)):
        if PurePath(name).name != name or "\\" in name or "\0" in name or name in ("", ".", ".."):
            yield f"files: '{name}' is no name of a file in the bundle's folder"
    for name, digest in m.files.items():
        if not re.fullmatch("[0-9a-f]{64}", digest):
            yield f"files: '{name}': not a sha256 of 64 hex digits"
    if not m.tail and (m.picture is None or m.bottleneck.steps):
        yield "tail: names no file"


def picture_faults(taken: Input) -> Iterator[str]:
    """What is wrong with the picture that a stage or a filter takes."""
    if not all(0 < side <= MOST_PIXELS for side in taken.shape):
        yield f"input: {taken.shape} pixels, 1 to {MOST_PIXELS} expected"
    if not _finite(taken.mean) or not _finite(taken.std) or min(taken.std) <= 0:
        yield "input: mean and std must be finite, std above 0"


def _stage_faults(m: Manifest) -> Iterator[str]:
    if not m.widths or len(set(m.widths)) != len(m.widths):
        yield "widths: must be there, each once"
    if not m.stages:
        yield "stages: none"
    for i, stage in enumerate(m.stages):
        if sorted(s.width for s in stage) != sorted(m.widths):
            yield f"stages[{i}]: must have each of the widths once"
        if any(not (0 < s.temperature < math.inf) or s.flops < 0 for s in stage):
            yield f"stages[{i}]: temperature must be above 0, flops not below"
        if any(not s.signature and (s.exit or m.picture is None) for s in stage):
            yield f"stages[{i}]: needs a signature; only a stage without an exit, where the picture can cross, has none"
    if m.bottleneck.steps and any(not s.signature for stage in m.stages[-1:] for s in stage):
        yield f"stages[{len(m.stages) - 1}]: needs a signature, which gives the features"


def _bottleneck_faults(b: Bottleneck) -> Iterator[str]:
    if min(b.height, b.width, b.channels) < 1 or b.height * b.width * b.channels > MOST_VALUES:
        yield f"bottleneck: {b.height} x {b.width} x {b.channels} values, 1 to {MOST_VALUES} expected"
        return
    if any(len(table) != 256 or not re.fullmatch("[0-9a-f]+", table) for row in b.tables for table in row):
        yield "bottleneck.tables: each must be 256 hex digits"
        return
    if (
        not b.steps
        or not _finite((*b.steps, *b.zero_point))
        or not _finite(c for row in b.size_fit for fit in row for c in fit)
    ):
        yield "bottleneck: zero_point, steps and size_fit must be there and finite"
        return
    if b.tensors and sum(math.prod(t.shape) for t in b.tensors) != b.height * b.width * b.channels:
        yield "bottleneck.tensors: must hold as many values as cross"
    if any(not t.shape or min(t.shape) < 1 or not 0 < t.gain < math.inf for t in b.tensors):
        yield "bottleneck.tensors: sizes and gain must be above 0"
    if b.contest is not None and not (_finite((b.contest.top,)) and 0 < b.contest.reach < math.inf):
        yield "bottleneck.contest: must be finite, reach above 0"
    try:
        deltas_of(Codec(b.codec))
    except (CodecError, ArithmeticError, ValueError) as error:
        yield f"bottleneck: {error}"


def _ladder_faults(p: PictureLadder, before: int) -> Iterator[str]:
    if not p.tail:
        yield "picture.tail: names no file"
    for view in p.views:
        if not view.qualities or not all(0 <= q <= FINEST for q in view.qualities):
            yield f"picture.qualities: must be there, each 0 to {FINEST}"
        if len(view.size_fit) != len(view.qualities) or not _finite(c for fit in view.size_fit for c in fit):
            yield "picture.size_fit: must have three finite values for each quality"
        if view.region is not None and not (0 <= view.region.margin < 1 and 0 < view.region.least <= 1):
            yield "picture.more.region: margin must be 0 to 1, least above 0 and at most 1"
    if before + len(p.steps) > MOST_STEPS:
        yield f"picture.qualities: with the features' steps more than {MOST_STEPS}"
    if p.flops < 0:
        yield "picture.flops: must not be below 0"


def _layers_at(m: Manifest) -> list[int]:
    """The layers of each step: those of the features, then one for each quality of the picture."""
    features = [len(row) for row in m.bottleneck.tables[: len(m.bottleneck.steps)]]
    return features if m.picture is None else [*features, *(1 for _ in m.picture.steps)]


def _point_faults(m: Manifest, point: Point, exits: int) -> Iterator[str]:
    layers_at = _layers_at(m)
    if point.width not in m.widths:
        yield f"width {point.width}, the bundle has {m.widths}"
    if point.exit is not None and not 0 <= point.exit < len(m.stages):
        yield f"exit {point.exit}, there are {len(m.stages)} stages"
    if point.step is not None:
        known = 0 <= point.step < len(layers_at)
        layers = layers_at[point.step] if known else max(layers_at, default=0)
        if not known or not 1 <= point.layers <= layers:
            yield f"step {point.step} and {point.layers} layers, there are {len(layers_at)} and {layers}"
    if not (_finite((point.accuracy, point.bytes)) and 0 < point.temperature < math.inf):
        yield "accuracy, bytes and temperature must be finite, temperature above 0"
    bins = len(m.confidence_edges) + 1
    if [len(row) for row in point.accuracy_given] != [bins] * exits:
        yield f"accuracy_given: must have {exits} rows, one an early exit, of {bins} values"
    elif not all(map(_finite, point.accuracy_given)):
        yield "accuracy_given: must be finite"


def _predictor_faults(m: Manifest) -> Iterator[str]:
    if [p.width for p in m.predictors] != sorted(m.widths):
        yield "predictors: must be one for each width, widths ascending"
    for i, predictor in enumerate(m.predictors):
        if [len(row) for row in predictor.points] != _layers_at(m):
            yield f"predictors[{i}].points: must have a pair for each step and number of layers"
        chances = (predictor.exit, predictor.server)
        if any(chance.classes and len(chance.classes) != len(m.labels) for chance in chances):
            yield f"predictors[{i}]: must have a pair for each class, or none"
        numbers = [x for row in predictor.points for pair in row for x in pair]
        for chance in chances:
            numbers += [chance.intercept, chance.slope, *chance.before, *(x for pair in chance.classes for x in pair)]
        if not _finite(numbers):
            yield f"predictors[{i}]: must be finite"


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))
