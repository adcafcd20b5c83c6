"""What every operating point really answers, for each validation picture: accuracy, bytes, calibrated confidence.

Temperatures and conditional accuracies are fitted on the calibration pictures and reported on the others, never on the
same. The coded features are the codec's own output, not a model of it. The network is whatever answers as `Halves` does:
the trained one, or the files of a bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bottleneck, Manifest, Outcomes, Point
from isthmus.models.bundling import calibration, predictor_fit, spectral_fit
from isthmus.models.data.labelled import Validation
from isthmus.models.progress import Report
from isthmus.proto.codec import Codec, CodecConfig, fit

CONFIDENCE_EDGES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""The edges of the confidence bins, closer towards 1."""
PREDICTING = 5
"""The least schema that a bundle with predictors must name."""
Floats = NDArray[np.float32]


class Halves(Protocol):
    """A network in two halves that answers many pictures at once."""

    def head(self, images: NDArray[np.uint8], width: float) -> tuple[Floats, list[Floats]]:
        """Features (N, H, W, C) and each exit's logits (N, K) for RGB pictures (N, S, S, 3) at `width`."""

    def tail(self, features: Floats) -> Floats:
        """Logits (N, K) for features (N, H, W, C)."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that the bundle says of its network. ECE and conditional accuracies per point, in `points` order."""

    codec: CodecConfig
    points: tuple[Point, ...]
    outcomes: Outcomes
    calibration_error: tuple[float, ...]
    """ECE over 15 bins, on the pictures that were not calibrated on."""
    unquantised: tuple[float, ...]
    """The accuracy of each width without the quantiser."""


def measured(manifest: Manifest, evaluation: Evaluation) -> Manifest:
    """`manifest` with what `evaluation` measured: points, the codec's tables, every exit's temperature, predictors."""
    temperature = {(p.width, p.exit): p.temperature for p in evaluation.points}
    stages = tuple(
        tuple(msgspec.structs.replace(stage, temperature=temperature[stage.width, i]) for stage in row)
        for i, row in enumerate(manifest.stages)
    )
    bottleneck = Bottleneck.of(evaluation.codec)
    manifest = msgspec.structs.replace(manifest, stages=stages, bottleneck=bottleneck, points=evaluation.points)
    return with_predictors(manifest, evaluation.outcomes)


def with_predictors(manifest: Manifest, outcomes: Outcomes) -> Manifest:
    """`manifest` with what `outcomes` let be said of single answers, and the schema that this takes."""
    predictors = predictor_fit.fitted(manifest, outcomes)
    schema = max(manifest.schema, PREDICTING) if predictors else manifest.schema
    return msgspec.structs.replace(manifest, predictors=predictors, schema=schema)


def save(folder: Path, outcomes: Outcomes) -> None:
    """Write the outcome table into a bundle's folder."""
    fields = {name: getattr(outcomes, name) for name in Outcomes.__dataclass_fields__}
    table: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    np.savez_compressed(folder / "outcomes.npz", **table)


@dataclass(frozen=True)
class _Answered:
    """One operating point's logits (N, K), before calibration."""

    point: Point
    logits: Floats


def fitted_codec(
    halves: Halves,
    widths: Sequence[float],
    steps: Sequence[float],
    images: NDArray[np.uint8],
    *,
    frequencies: bool = False,
) -> CodecConfig:
    """Entropy tables and size predictor from training pictures, all widths together.

    Features have mean 0; or they were trained to be coded as `frequencies`, about a mean of their own.
    """
    features = np.concatenate([halves.head(images, width)[0] for width in widths])
    if frequencies:
        return spectral_fit.trained(features, steps)
    return fit(features, (0.0,) * features.shape[-1], steps)


def evaluate(
    halves: Halves, widths: Sequence[float], codec: CodecConfig, validation: Validation, report: Report
) -> Evaluation:
    """Run every operating point over the validation pictures."""
    labels = validation.pictures.labels
    answered: list[_Answered] = []
    sizes, unquantised = [], []
    sent: _Sent | None = None
    for width in widths:
        features, exits = halves.head(validation.pictures.images, width)
        answered += [_Answered(Point(width=width, exit=i), logits) for i, logits in enumerate(exits)]
        if sent is None or not np.array_equal(features, sent.features):  # a width may change the exits alone
            sent = _offload(halves, codec, features)
        unquantised.append(_share_right(sent.unquantised, labels))
        sizes.append(sent.layer_bytes)
        answered += [_Answered(msgspec.structs.replace(a.point, width=width), a.logits) for a in sent.answered]
        report(f"width {width}: unquantised {unquantised[-1]:.4f}, last exit {_share_right(exits[-1], labels):.4f}")
    layer_bytes = np.stack(sizes, axis=1)  # (N, W, S, L)
    return _calibrated(answered, validation, codec, layer_bytes, tuple(unquantised))


@dataclass(frozen=True)
class _Sent:
    """What becomes of features (N, H, W, C): payload bytes (N, S, L), and the tail's logits however they are sent."""

    features: Floats
    layer_bytes: NDArray[np.uint16]
    unquantised: Floats
    answered: list[_Answered]
    """The answers for every step and number of layers, of no width yet."""


def _offload(halves: Halves, config: CodecConfig, features: Floats) -> _Sent:
    codec, n = Codec(config), len(features)
    layer_bytes = np.zeros((n, len(config.steps), config.layers), np.uint16)
    answered = []
    for step in range(len(config.steps)):
        decoded = [np.empty_like(features) for _ in range(config.layers)]
        for i, x in enumerate(features):
            payloads = codec.encode(x, step)
            layer_bytes[i, step] = [len(p) for p in payloads]
            for layers in range(1, config.layers + 1):
                decoded[layers - 1][i] = codec.decode(payloads[:layers])
        for layers in range(1, config.layers + 1):
            size = float(layer_bytes[:, step, :layers].sum(axis=1).mean())
            point = Point(width=0.0, step=step, layers=layers, bytes=round(size, 1))
            answered.append(_Answered(point, halves.tail(decoded[layers - 1])))
    return _Sent(features, layer_bytes, halves.tail(features), answered)


def _share_right(logits: Floats, labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(1) == labels).mean())


def _calibrated(
    answered: list[_Answered],
    validation: Validation,
    codec: CodecConfig,
    layer_bytes: NDArray[np.uint16],
    unquantised: tuple[float, ...],
) -> Evaluation:
    labels, held_in = validation.pictures.labels, validation.calibrating
    label, confidence, right, errors, temperatures = [], [], [], [], []
    for a in answered:
        temperature = calibration.fitted_temperature(a.logits[held_in], labels[held_in])
        probability = calibration.softmax(a.logits, temperature).max(axis=1)
        guess = a.logits.argmax(axis=1)
        hit = guess == labels
        errors.append(calibration.expected_calibration_error(probability[~held_in], hit[~held_in]))
        temperatures.append(temperature)
        label.append(guess)
        confidence.append(probability)
        right.append(hit)
    points = []
    for i, a in enumerate(answered):
        given = tuple(
            calibration.accuracy_by_confidence(confidence[e][held_in], right[i][held_in], CONFIDENCE_EDGES)
            for e in _exits_of(a.point.width, answered)
        )
        points.append(
            msgspec.structs.replace(
                a.point,
                accuracy=round(float(right[i].mean()), 5),
                temperature=round(temperatures[i], 5),
                accuracy_given=given,
            )
        )
    stored = np.uint8 if answered[0].logits.shape[1] <= 256 else np.uint16
    outcomes = Outcomes(
        truth=labels.astype(stored),
        label=np.stack(label, axis=1).astype(stored),
        confidence=np.stack(confidence, axis=1).astype(np.float16),
        layer_bytes=layer_bytes,
        calibrating=held_in,
    )
    return Evaluation(codec, tuple(points), outcomes, tuple(errors), unquantised)


def _exits_of(width: float, answered: Sequence[_Answered]) -> Iterator[int]:
    """The columns of the exits at `width`, in order."""
    return (i for i, a in enumerate(answered) if a.point.width == width and a.point.exit is not None)
