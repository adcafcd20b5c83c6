"""What the scheduler must know of a bundle, laid out so that a decision is a table look-up. Pure, built once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isthmus.models.bundle import Manifest, Point, Predictor
from isthmus.proto.errors import BundleError
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.task import Task
from isthmus.proto.vocabulary import OperatingPoint


@dataclass(frozen=True)
class Known:
    """One operating point and what validation measured of it."""

    point: OperatingPoint
    accuracy: float
    temperature: float
    given: tuple[tuple[float, ...], ...]
    """[stage][confidence bin]: accuracy of this point where the device, after that stage, was so confident."""
    mean_bytes: float = 0.0
    """Payload bytes of all its layers together; 0 for an exit."""


@dataclass(frozen=True)
class Catalogue:
    """A bundle as the scheduler sees it: widths ascending, at most one early exit at the end of every stage."""

    widths: tuple[float, ...]
    confidence_edges: tuple[float, ...]
    """Inner edges of the confidence bins, ascending."""
    stage_flops: tuple[tuple[int, ...], ...]
    """[stage][width]"""
    exits: tuple[tuple[Known, ...], ...]
    """[width][stage]: the early exit that has spoken last by its end; one that is worth nothing where none has."""
    offloads: tuple[tuple[tuple[Known, ...], ...], ...]
    """[width][step][layers - 1]; steps finest first."""
    task: Task = Classification()
    """How answers are read."""
    predictors: tuple[Predictor, ...] = ()
    """[width]: how likely single answers are to be right; none where only `given` says so."""
    delta_steps: int = 0
    """Steps, finest first, at which a frame may be coded against another."""
    feature_steps: int | None = None
    """Steps from here on are qualities of the picture; None: there are none of these."""
    picture_stage: int = 0
    """The stage after which the picture may be sent."""

    @property
    def stages(self) -> int:
        """Number of stages of the head."""
        return len(self.stage_flops)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Catalogue:
        """Lay out a bundle's points. Raises BundleError naming an operating point that it lacks."""
        points = {p.key: p for p in manifest.points}
        layers = _layers(manifest)
        widths, bins = tuple(sorted(manifest.widths)), len(manifest.confidence_edges) + 1
        flops = [{s.width: s.flops for s in stage} for stage in manifest.stages]
        spoken = _last_exits(manifest)
        """[stage]: the exit that has spoken last, as its stage and as its row of `accuracy_given`."""

        def known(key: OperatingPoint) -> Known:
            return _by_stage(_known(points, key), [row for _, row in spoken], bins)

        try:
            return cls(
                widths=widths,
                confidence_edges=manifest.confidence_edges,
                stage_flops=tuple(tuple(stage[w] for w in widths) for stage in flops),
                exits=tuple(
                    tuple(
                        _silent(w, bins, len(spoken)) if e is None else known(OperatingPoint(w, exit=e))
                        for e, _ in spoken
                    )
                    for w in widths
                ),
                offloads=tuple(
                    tuple(
                        tuple(known(OperatingPoint(w, None, s, n + 1)) for n in range(m)) for s, m in enumerate(layers)
                    )
                    for w in widths
                ),
                task=manifest.answers,
                predictors=manifest.predictors,
                delta_steps=0 if manifest.bottleneck.deltas is None else len(manifest.bottleneck.steps),
                feature_steps=None if manifest.picture is None else len(manifest.bottleneck.steps),
                picture_stage=manifest.picture_stage,
            )
        except KeyError as error:
            raise BundleError(f"{manifest.name}: bundle.toml lacks {error.args[0]}; export the bundle again") from error

    def is_picture(self, step: int) -> bool:
        """Whether a step of the ladder is a quality of the picture."""
        return self.feature_steps is not None and step >= self.feature_steps

    def sent_after(self, step: int) -> int:
        """The stage after which what crosses at a step is there to be sent."""
        return self.picture_stage if self.is_picture(step) else self.stages - 1

    def width_index(self, width: float) -> int:
        """Position of `width` in `widths`; ValueError if the bundle has no such width."""
        return self.widths.index(width)

    def bin(self, confidence: float) -> int:
        """The confidence bin that `confidence` falls in."""
        return bisect_right(self.confidence_edges, confidence)

    def known(self, point: OperatingPoint) -> Known:
        """What the bundle knows of `point`; ValueError or IndexError if it has no such point."""
        w = self.width_index(point.width)
        if point.exit is not None:
            return self.exits[w][point.exit]
        if point.step is None or point.layers < 1:
            raise IndexError(f"{point}: neither an exit nor an offload")
        return self.offloads[w][point.step][point.layers - 1]


def _layers(manifest: Manifest) -> list[int]:
    """[step]: how many layers a frame has; those of the features all have as many, a picture has one."""
    pictures = 0 if manifest.picture is None else len(manifest.picture.steps)
    steps = len(manifest.bottleneck.steps)
    most = max((p.layers for p in manifest.points if p.step is not None and p.step < steps), default=0)
    return [most] * steps + [1] * pictures


def _last_exits(manifest: Manifest) -> list[tuple[int | None, int | None]]:
    """For each stage the exit that has spoken last: its stage, and its row of `accuracy_given`; None before any has."""
    spoken: list[tuple[int | None, int | None]] = []
    stage, row = None, None
    for index, widths in enumerate(manifest.stages):
        if widths[0].exit:
            stage, row = index, 0 if row is None else row + 1
        spoken.append((stage, row))
    return spoken


def _known(points: Mapping[OperatingPoint, Point], key: OperatingPoint) -> Known:
    p = points[key]
    return Known(key, p.accuracy, p.temperature, p.accuracy_given, p.bytes)


def _silent(width: float, bins: int, stages: int) -> Known:
    """What a stage without an early exit is worth before any exit has spoken: nothing."""
    return Known(OperatingPoint(width), 0.0, 1.0, ((0.0,) * bins,) * stages)


def _by_stage(known: Known, spoken: Sequence[int | None], bins: int) -> Known:
    """`given` by stage: a stage without an exit is as confident as the last exit before it, or not at all."""
    rows = [known.given[e] if e is not None else (known.accuracy,) * bins for e in spoken]
    return replace(known, given=tuple(rows))
