"""What frames of clips replay: boxes by operating point and by age, in the order in which they were filmed. Pure and seeded."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.tracking.tracks import Place
from isthmus.emulation.replay import Content, Feed, Replay
from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.sequences.rows import Rows, found
from isthmus.emulation.sequences.table import Sequences
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle, Outcomes
from isthmus.models.inputs import QUALITIES
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord
from isthmus.proto.tasks.detection import SAME_PLACE, overlap
from isthmus.proto.tasks.task import Packed
from isthmus.proto.vocabulary import Box, Guess, OperatingPoint


@dataclass(frozen=True, kw_only=True)
class Clips(Content):
    """A `Content` whose samples are the frames of clips; an outcome's label is the truth's where the frame is right."""

    table: Sequences
    columns: tuple[int, ...]
    """By operating point: its number in the table's rows of boxes."""

    def replay(self, seed: int) -> Replay:
        """See `Content.replay`."""
        return ClipReplay(self, seed=seed)

    def carried(self) -> NDArray[np.bool_]:
        """See `Content.carried`: places alone are asked for, since a vote may have any class."""
        table, rows = self.table, Rows(self.table)
        right = np.zeros(len(table.clip), bool)
        for born, track in zip(table.thing_frame.tolist(), table.thing_place.astype(np.float32), strict=True):
            for age, place in enumerate(track[1:].tolist(), start=1):
                if math.isnan(place[0]):
                    break
                truth = rows.truth(born + age)
                right[born + age] |= (
                    len(truth) == 1 and overlap(Box(truth[0].label, 1.0, *place), truth[0]) >= SAME_PLACE
                )
        return right

    @classmethod
    def of(cls, bundle: Bundle) -> Clips:
        """A bundle's own operating points. Raises DataError when no clips were measured with its networks."""
        return _own(bundle.folder, bundle.sha256, _written(bundle))


KEPT = 4
"""Tables that a process keeps laid out for its next runs: a sweep plays hundreds of one."""


def _written(bundle: Bundle) -> tuple[int, int] | None:
    """What tells one writing of a bundle's table from another; None where there is none."""
    path = sequences.path_of(bundle)
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None


@lru_cache(KEPT)
def _own(folder: Path, sha256: bytes, written: object) -> Clips:
    """The operating points of the bundle in a folder; it and its table are those that the other arguments say."""
    bundle = bundles.load(str(folder))
    table, manifest = sequences.load(bundle), bundle.manifest
    points = tuple(point.key for point in manifest.points)
    columns = tuple(range(len(points)))
    outcomes = replace(_outcomes(table, columns, table.layer_bytes), **_deltas(table))
    catalogue = Catalogue.from_manifest(manifest)
    return Clips(
        catalogue=catalogue,
        outcomes=outcomes,
        points=points,
        tail_flops=manifest.tail_flops,
        table=table,
        columns=columns,
    )


def as_webp(bundle: Bundle) -> Clips:
    """The bundle's exits, and the picture itself as WebP at every quality in place of its features. Raises as `Clips.of`."""
    return _webp(bundle.folder, bundle.sha256, _written(bundle))


@lru_cache(KEPT)
def _webp(folder: Path, sha256: bytes, written: object) -> Clips:
    """The same of the bundle in a folder; see `_own`."""
    own = _own(folder, sha256, written)
    if not own.table.picture_bytes.shape[1]:
        raise DataError(f"{folder.name}: its clips were measured without pictures; measure them again with pictures")
    widths, qualities = own.catalogue.widths, range(len(QUALITIES))
    exits = [point for point in own.points if point.exit is not None]
    sent = [OperatingPoint(width, None, q, 1) for width in widths for q in qualities]
    columns = (*(own.points.index(point) for point in exits), *(len(own.points) + q for _ in widths for q in qualities))
    size_bytes = own.table.picture_bytes
    layer_bytes = np.broadcast_to(size_bytes[:, None, :, None], (len(size_bytes), len(widths), len(QUALITIES), 1))
    outcomes = _outcomes(own.table, columns, layer_bytes)
    right = (outcomes.label == outcomes.truth[:, None]).mean(axis=0)
    bins = len(own.catalogue.confidence_edges) + 1

    def known(point: OperatingPoint) -> Known:
        share = float(right[len(exits) + sent.index(point)])
        return Known(
            point, share, 1.0, ((share,) * bins,) * own.catalogue.stages, float(size_bytes[:, point.step].mean())
        )

    offloads = tuple(tuple((known(OperatingPoint(width, None, q, 1)),) for q in qualities) for width in widths)
    catalogue = replace(own.catalogue, offloads=offloads)
    # The server runs the head too, at full width.
    flops = own.tail_flops + sum(row[-1] for row in own.catalogue.stage_flops)
    return replace(
        own, catalogue=catalogue, outcomes=outcomes, points=(*exits, *sent), tail_flops=flops, columns=columns
    )


def _outcomes(table: Sequences, columns: Sequence[int], layer_bytes: NDArray[np.uint32]) -> Outcomes:
    n = len(table.clip)
    rows = Rows(table)
    truth = np.array([boxes[0].label if boxes else 0 for boxes in map(rows.truth, range(n))], np.uint16)
    label, confidence = np.zeros((n, len(columns)), np.uint16), np.zeros((n, len(columns)), np.float16)
    for sample in range(n):
        true = rows.truth(sample)
        for column, number in enumerate(columns):
            boxes = rows.boxes(sample, number)
            label[sample, column] = truth[sample] if found(boxes, true) else truth[sample] + 1
            confidence[sample, column] = boxes[0].score if boxes else 0.0
    return Outcomes(truth=truth, label=label, confidence=confidence, layer_bytes=layer_bytes)


def _deltas(table: Sequences) -> dict[str, NDArray[Any]]:
    """What outcomes know of frames coded against others; nothing where the bundle codes none."""
    return {"lags": table.lags, "delta_bytes": table.delta_bytes} if len(table.lags) else {}


class ClipReplay(Replay):
    """Clips laid out for look-up."""

    def __init__(self, content: Clips, *, seed: int) -> None:
        super().__init__(content, seed=seed)
        self._table, self._columns, self._rows = content.table, content.columns, Rows(content.table)
        self._found: dict[tuple[int, int], Guess] = {}
        self._packed: dict[tuple[int, int], bytes] = {}

    def guess(self, sample: int, width: int, stage: int) -> Guess | None:
        """What the exit at the end of a stage finds; None where the stage ends in none."""
        column = self._exits[width][stage]
        if column is None:
            return None
        if (sample, column) not in self._found:
            boxes = self._rows.boxes(sample, self._columns[column])
            accuracy = self.catalogue.exits[width][stage].accuracy
            guess = Guess(boxes[0].label, boxes[0].score, boxes) if boxes else Guess(0, accuracy, ())
            self._found[sample, column] = guess
        return self._found[sample, column]

    def logits(self, sample: int, width: int, step: int, layers: int) -> Packed:
        """What the tail finds, packed as `Detection` packs it."""
        column = self._offloads[width][step][layers - 1]
        if (sample, column) not in self._packed:
            boxes = self._rows.boxes(sample, self._columns[column])
            rows = np.array([(b.label, b.score, b.top, b.left, b.bottom, b.right) for b in boxes], "<f4")
            self._packed[sample, column] = rows.tobytes()
        return self._packed[sample, column]

    def feed(self, seed: int, device: int, *, fps: float, duration_s: float, deadline_s: float) -> Feed:
        """Clips one after the other, each from its beginning, shuffled for each device; a slower pace leaves frames out."""
        rng = random.Random(f"{seed}/{device}/clips")
        clips = list(range(len(self._table.names)))
        rng.shuffle(clips)
        order: list[int] = []
        for clip in clips:
            frames = np.flatnonzero(self._table.clip == clip)
            steps = np.arange(0, len(frames), max(1.0, float(self._table.fps[clip]) / fps)).astype(int)
            order += frames[steps].tolist()
        return Feed(max(1, round(duration_s * fps)), 1 / fps, deadline_s, rng.random() / fps, tuple(order))

    def judged(self, record: FrameRecord, sample: int, local: Guess | None) -> FrameRecord:
        """The record with which frame of which clip it is, and what is in it, and whether that was found."""
        truth = self._rows.truth(sample)
        return msgspec.structs.replace(
            record,
            picture=f"{self._table.names[self._table.clip[sample]]} #{self._table.number[sample] + 1}",
            things=truth,
            found=record.label is not None and found(record.boxes or (), truth),
            local_found=local is not None and found(local.detail if isinstance(local.detail, tuple) else (), truth),
        )

    def followed(self, samples: Sequence[int], places: Sequence[Place]) -> tuple[Place | None, ...]:
        """See `Rows.followed`."""
        return self._rows.followed(samples, places)


class ByName:
    """The true boxes of a table's frames, by what records call them."""

    def __init__(self, table: Sequences) -> None:
        self._table, self._rows = table, Rows(table)

    @cached_property
    def _samples(self) -> dict[str, int]:
        t = self._table
        return {
            f"{t.names[clip]} #{number + 1}": n for n, (clip, number) in enumerate(zip(t.clip, t.number, strict=True))
        }

    def truth(self, picture: str) -> tuple[Box, ...]:
        """What is in a frame. Raises DataError for one that the table does not have."""
        if picture not in self._samples:
            raise DataError(f"{picture}: no frame of the clips measured with this bundle")
        return self._rows.truth(self._samples[picture])
