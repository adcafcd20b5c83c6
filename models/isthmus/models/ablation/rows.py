"""What one run of a training reached, read at equal bytes: the row of an ablation table.

Accuracies at equal bytes are read off the ladder of operating points: every quantiser step with one layer and with both,
or every number of codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch

from isthmus.models.ablation.trainers import VectorTrainer
from isthmus.models.ablation.vector_quantiser import STAGES, Codebooks, size_bytes
from isthmus.models.bundling.evaluate import Evaluation, Floats, evaluate, fitted_codec
from isthmus.models.data.labelled import Pictures, Validation
from isthmus.models.training.backbones import Head, SplitNetwork
from isthmus.models.training.run import CODEC_PICTURES, Trained
from isthmus.models.training.trainer import Trainer

NARROW_BYTES, WIDE_BYTES = 96, 160
"""The sizes of a frame at which variants are compared."""
SETTLING_STEPS, SETTLING_PICTURES = 60, 128
"""The number of batches, and of pictures in each, that move codebooks from the trained network to the averaged one."""
Ladder = Sequence[tuple[float, float]]
"""(bytes, accuracy) of each operating point."""


class Budget(msgspec.Struct, frozen=True):
    """The pictures and epochs that every run of a table is given."""

    recipe: str
    epochs: int
    pictures: int
    """Training pictures, the first ones of the corpus."""
    tested: int
    """Test pictures, the first ones; half of them calibrate confidences, accuracies are of all."""


class AtWidth(msgspec.Struct, frozen=True):
    """What one width reached; accuracies in 0 to 1, None where the ladder does not go so low."""

    width: float
    head_mflop: float
    unquantised: float
    finest: float
    finest_bytes: float
    at_wide: float | None
    at_narrow: float | None
    half_channels: float
    """The accuracy with the leading half of the bottleneck's channels, unquantised."""
    last_exit: float
    last_exit_ece: float


class Row(msgspec.Struct, frozen=True):
    """The measures of one finished run; widths ascending."""

    variant: str
    seed: int
    budget: Budget
    widths: tuple[AtWidth, ...]


def at_bytes(ladder: Ladder, size_bytes: float) -> float | None:
    """The accuracy that `ladder` gives for `size_bytes`; None below its cheapest point.

    Points that a cheaper one equals are left out; between the others it is linear in the logarithm of bytes.
    """
    front: list[tuple[float, float]] = []
    for size, accuracy in sorted(ladder):
        if not front or accuracy > front[-1][1]:
            front.append((size, accuracy))
    if size_bytes < front[0][0]:
        return None
    sizes, accuracies = zip(*front, strict=True)
    return float(np.interp(np.log(size_bytes), np.log(sizes), accuracies))


def mflop_of(head: Head, width: float) -> float:
    """The FLOPs of a whole head at `width`, in millions."""
    return round(2e-6 * sum(head.macs(width)), 2)


def measured_row(
    variant: str, budget: Budget, trainer: Trainer, validation: Validation, widths: Sequence[float]
) -> Row:
    """The averaged network of a finished run on the test pictures, sent the way it was trained for."""
    network, recipe = trainer.averaged.eval(), trainer.recipe
    halves = Trained(network, validation.mean, validation.std)
    sample = trainer.training.pictures.images[:CODEC_PICTURES]
    codec = fitted_codec(halves, widths, recipe.steps, sample)
    evaluation = evaluate(halves, widths, codec, validation, lambda _: None)
    books = _settle(trainer.codebooks, halves, widths, sample) if isinstance(trainer, VectorTrainer) else None
    rows = []
    for i, width in enumerate(widths):
        features, _ = halves.head(validation.pictures.images, width)
        if books is None:
            ladder = [(p.bytes, p.accuracy) for p in evaluation.points if p.width == width and p.exit is None]
        else:
            ladder = _ladder_of(books, halves, features, validation.pictures)
        half = features * (np.arange(features.shape[-1]) < features.shape[-1] // 2)
        at = _share(halves, half.astype(np.float32), validation.pictures)
        rows.append(_at_width(network, evaluation, i, width, ladder, at))
    return Row(variant, trainer.seed, budget, tuple(rows))


def _at_width(
    network: SplitNetwork, evaluation: Evaluation, i: int, width: float, ladder: Ladder, half_channels: float
) -> AtWidth:
    exits = [
        (p.accuracy, error)
        for p, error in zip(evaluation.points, evaluation.calibration_error, strict=True)
        if p.width == width and p.exit is not None
    ]
    finest_bytes, finest = max(ladder)
    return AtWidth(
        width=width,
        head_mflop=mflop_of(network.head, width),
        unquantised=evaluation.unquantised[i],
        finest=finest,
        finest_bytes=finest_bytes,
        at_wide=at_bytes(ladder, WIDE_BYTES),
        at_narrow=at_bytes(ladder, NARROW_BYTES),
        half_channels=half_channels,
        last_exit=exits[-1][0],
        last_exit_ece=round(exits[-1][1], 5),
    )


def _share(halves: Trained, features: Floats, pictures: Pictures) -> float:
    return float((halves.tail(features).argmax(1) == pictures.labels).mean())


def _settle(books: Codebooks, halves: Trained, widths: Sequence[float], images: np.ndarray) -> Codebooks:
    """Train the run's codebooks on some more batches of the averaged network's features, of every width."""
    features = torch.from_numpy(np.concatenate([halves.head(images, w)[0] for w in widths])).permute(0, 3, 1, 2)
    for _ in range(SETTLING_STEPS):
        books.prefixes(
            features[torch.randint(len(features), (SETTLING_PICTURES,), generator=books.generator)], learn=True
        )
    return books


def _ladder_of(books: Codebooks, halves: Trained, features: Floats, pictures: Pictures) -> list[tuple[float, float]]:
    n, height, width, _ = features.shape
    decoded = [
        books.prefixes(torch.from_numpy(features[i : i + 250]).permute(0, 3, 1, 2)).permute(0, 1, 3, 4, 2)
        for i in range(0, n, 250)
    ]
    sent = torch.cat(decoded, dim=1).numpy()
    return [(size_bytes(height * width, s + 1), _share(halves, sent[s], pictures)) for s in range(STAGES)]
