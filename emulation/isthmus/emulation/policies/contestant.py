"""Who takes part in an emulation: operating points, what each of them really answered, and a policy that chooses.

Rivals that send features share the bundle's operating points; rivals that send the input have others (a step of theirs
is a picture quality, their layers are one), so each contestant brings its own. The real session runs every policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.device.catalogue import Catalogue, Known
from isthmus.device.scheduler import Policy
from isthmus.emulation.replay import Content
from isthmus.models import inputs
from isthmus.models.bundle import Bundle, Outcomes
from isthmus.proto.vocabulary import OperatingPoint

PolicyFactory = Callable[[Catalogue], Policy]
LEANING = 20
"""A bin leans on the mean of all as if on so many samples more, as in the bundle's own tables."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """One policy with what its frames replay."""

    name: str
    content: Content
    policy: PolicyFactory

    def new_policy(self) -> Policy:
        """A fresh policy for one session."""
        return self.policy(self.content.catalogue)


def pictures(bundle: Bundle, *, format_: str) -> Content:
    """The bundle's exits, and the picture itself at every quality in place of its features; its own, where it sends pictures.

    The accuracy of a quality given an exit's confidence is counted from the tables, as the bundle's own was: on the samples
    that calibrate, and the others are replayed. Raises DataError when the table of inputs is missing or of another bundle.
    """
    if (picture := bundle.manifest.picture) is not None and picture.format == format_:
        return Content.of(bundle)
    own, sent = Content.whole(bundle), inputs.load(bundle)
    column = {point: i for i, point in enumerate(own.points)}
    f, catalogue = list(inputs.FORMATS).index(format_), own.catalogue
    edges, n = catalogue.confidence_edges, len(sent.label)
    exits = [known.point for width in catalogue.exits for known in width]
    qualities = range(len(inputs.QUALITIES))
    right = sent.label[:, f] == own.outcomes.truth[:, None]  # (N, Q)
    counted = slice(None) if own.outcomes.calibrating is None else own.outcomes.calibrating

    def known(width: float, exits_here: tuple[Known, ...], q: int) -> Known:
        sure = [own.outcomes.confidence[counted, column[e.point]] for e in exits_here]
        bins = [np.searchsorted(edges, confidence, "right") for confidence in sure]
        given = tuple(_share_by_bin(right[counted, q], b, len(edges) + 1) for b in bins)
        size = float(sent.size_bytes[counted, f, q].mean())
        return Known(OperatingPoint(width, None, q, 1), float(right[counted, q].mean()), 1.0, given, size)

    offloads = tuple(
        tuple((known(width, catalogue.exits[w], q),) for q in qualities) for w, width in enumerate(catalogue.widths)
    )
    columns = [column[point] for point in exits]
    repeats = len(catalogue.widths)
    outcomes = Outcomes(
        truth=own.outcomes.truth,
        label=np.hstack([own.outcomes.label[:, columns], np.tile(sent.label[:, f], (1, repeats))]),
        confidence=np.hstack([own.outcomes.confidence[:, columns], np.tile(sent.confidence[:, f], (1, repeats))]),
        layer_bytes=np.broadcast_to(sent.size_bytes[:, None, f, :, None], (n, repeats, len(inputs.QUALITIES), 1)),
        calibrating=own.outcomes.calibrating,
    )
    points = (*exits, *(row[0].point for width in offloads for row in width))
    # The server runs the head too, at full width.
    flops = own.tail_flops + sum(row[-1] for row in catalogue.stage_flops)
    # Its predictors are of the bundle's own points.
    replaced = replace(catalogue, offloads=offloads, feature_steps=None, predictors=())
    return Content(replaced, outcomes, points, flops).judging()


def _share_by_bin(right: NDArray[np.bool_], bins: NDArray[np.int64], count: int) -> tuple[float, ...]:
    """Share right in each bin; one of few samples leans on the mean (20 samples' worth), as in the bundle's tables."""
    hits, sizes = np.bincount(bins, right, count), np.bincount(bins, minlength=count)
    return tuple(((hits + LEANING * right.mean()) / (sizes + LEANING)).tolist())
