"""What the scheduler must know of a bundle, laid out so that a decision is a table look-up. Pure, built once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.models.bundle import Manifest, Point
from isthmus.proto.errors import BundleError
from isthmus.proto.plan import Guess, OperatingPoint


@dataclass(frozen=True)
class Known:
    """One operating point and what validation measured of it."""

    point: OperatingPoint
    accuracy: float
    temperature: float
    given: tuple[tuple[float, ...], ...]
    """[exit][confidence bin]: accuracy of this point where that exit, at this width, was so confident."""
    mean_bytes: float = 0.0
    """Payload bytes of all its layers together; 0 for an exit."""


@dataclass(frozen=True)
class Catalogue:
    """A bundle as the scheduler sees it: widths ascending, one early exit at the end of every stage."""

    widths: tuple[float, ...]
    confidence_edges: tuple[float, ...]
    """Inner edges of the confidence bins, ascending."""
    stage_flops: tuple[tuple[int, ...], ...]
    """[stage][width]"""
    exits: tuple[tuple[Known, ...], ...]
    """[width][exit]"""
    offloads: tuple[tuple[tuple[Known, ...], ...], ...]
    """[width][step][layers - 1]; steps finest first."""

    @property
    def stages(self) -> int:
        """Number of stages of the head."""
        return len(self.stage_flops)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Catalogue:
        """Lay out a bundle's points. Raises BundleError naming an operating point that it lacks."""
        points = {p.key: p for p in manifest.points}
        steps, layers = len(manifest.bottleneck.steps), max((p.layers for p in manifest.points), default=0)
        widths = tuple(sorted(manifest.widths))
        flops = [{s.width: s.flops for s in stage} for stage in manifest.stages]
        try:
            return cls(
                widths=widths,
                confidence_edges=manifest.confidence_edges,
                stage_flops=tuple(tuple(stage[w] for w in widths) for stage in flops),
                exits=tuple(
                    tuple(_known(points, OperatingPoint(w, exit=e)) for e in range(len(manifest.stages)))
                    for w in widths
                ),
                offloads=tuple(
                    tuple(
                        tuple(_known(points, OperatingPoint(w, None, s, n + 1)) for n in range(layers))
                        for s in range(steps)
                    )
                    for w in widths
                ),
            )
        except KeyError as error:
            raise BundleError(f"{manifest.name}: bundle.toml lacks {error.args[0]}; export the bundle again") from error

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


def _known(points: Mapping[OperatingPoint, Point], key: OperatingPoint) -> Known:
    p = points[key]
    return Known(key, p.accuracy, p.temperature, p.accuracy_given, p.bytes)


def guess(logits: Sequence[float], temperature: float) -> Guess:
    """The class of the greatest logit and its calibrated probability, softmax(logits / temperature) (Guo et al. 2017).

    `logits` (K,). Raises ValueError if there are none, or one that is not finite.
    """
    if len(logits) == 0 or not all(map(math.isfinite, logits)):
        raise ValueError(f"logits: {len(logits)} values, not all finite; the model or its outputs are damaged")
    top = max(logits)
    total = sum(math.exp((x - top) / temperature) for x in logits)
    return Guess(list(logits).index(top), 1.0 / total)
