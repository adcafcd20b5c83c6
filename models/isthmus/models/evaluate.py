"""What every operating point really answers, for each validation picture: accuracy, bytes, calibrated confidence.

Temperatures and conditional accuracies are fitted on the calibration pictures and reported on the others, never on the
same. The coded features are the codec's own output, not a model of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.models import data, losses
from isthmus.models.backbones import SplitNetwork
from isthmus.models.bundle import Outcomes, Point
from isthmus.models.recipes import Recipe
from isthmus.proto.codec import LAYERS, Codec, CodecConfig, fit

CONFIDENCE_EDGES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
BATCH = 250
Report = Callable[[str], None]


@dataclass(frozen=True)
class Validation:
    """Pictures to evaluate on; `calibrating` (N,) marks those that temperatures and tables may be fitted on."""

    pictures: data.Pictures
    calibrating: NDArray[np.bool_]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything that the bundle says of its network. ECE and conditional accuracies per point, in `points` order."""

    codec: CodecConfig
    points: tuple[Point, ...]
    outcomes: Outcomes
    calibration_error: tuple[float, ...]
    """ECE over 15 bins, on the pictures that were not calibrated on."""
    unquantised: tuple[float, ...]
    """Accuracy of each width without the quantiser."""


@dataclass(frozen=True)
class _Answered:
    """One operating point's logits (N, K), before calibration."""

    point: Point
    logits: Tensor


@torch.no_grad()
def run_head(
    network: SplitNetwork, pictures: data.Pictures, mean: tuple[float, ...], std: tuple[float, ...], width: float
) -> tuple[NDArray[np.float32], list[Tensor]]:
    """Features (N, H, W, C) and each exit's logits (N, K) at `width`."""
    features, exits = [], []
    for i in range(0, len(pictures), BATCH):
        f, e = network.head(data.normalised(pictures.images[i : i + BATCH], mean, std), width)
        features.append(f.permute(0, 2, 3, 1).numpy())
        exits.append(e)
    return np.concatenate(features), [torch.cat(column) for column in zip(*exits, strict=True)]


@torch.no_grad()
def run_tail(network: SplitNetwork, features: NDArray[np.float32]) -> Tensor:
    """Logits (N, K) for features (N, H, W, C)."""
    x = torch.from_numpy(features).permute(0, 3, 1, 2)
    return torch.cat([network.tail(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])


def fit_codec(network: SplitNetwork, recipe: Recipe, training: data.Pictures, validation: Validation) -> CodecConfig:
    """Entropy tables and size predictor from training pictures, all widths together."""
    features = [run_head(network, training, validation.mean, validation.std, w)[0] for w in recipe.arch.widths]
    return fit(np.concatenate(features), (0.0,) * recipe.arch.bottleneck_channels, recipe.steps)


def evaluate(
    network: SplitNetwork, recipe: Recipe, training: data.Pictures, validation: Validation, report: Report
) -> Evaluation:
    """Run every operating point over the validation pictures; `training` (a few hundred) fits the codec's tables."""
    network.eval()
    config = fit_codec(network, recipe, training, validation)
    labels = torch.from_numpy(validation.pictures.labels)
    answered: list[_Answered] = []
    sizes, unquantised = [], []
    for width in recipe.arch.widths:
        features, exits = run_head(network, validation.pictures, validation.mean, validation.std, width)
        answered += [_Answered(Point(width=width, exit=i), logits) for i, logits in enumerate(exits)]
        unquantised.append(_share_right(run_tail(network, features), labels))
        layer_bytes, offloaded = _offload(network, config, features, width)
        sizes.append(layer_bytes)
        answered += offloaded
        report(f"width {width}: unquantised {unquantised[-1]:.4f}, last exit {_share_right(exits[-1], labels):.4f}")
    layer_bytes = np.stack(sizes, axis=1)  # (N, W, S, L)
    return _calibrated(answered, labels, validation, config, layer_bytes, tuple(unquantised))


def _offload(
    network: SplitNetwork, config: CodecConfig, features: NDArray[np.float32], width: float
) -> tuple[NDArray[np.uint16], list[_Answered]]:
    """Payload bytes (N, S, L) and the tail's answer for every step and number of layers."""
    codec, n = Codec(config), len(features)
    layer_bytes = np.zeros((n, len(config.steps), LAYERS), np.uint16)
    answered = []
    for step in range(len(config.steps)):
        decoded = [np.empty_like(features) for _ in range(LAYERS)]
        for i, x in enumerate(features):
            payloads = codec.encode(x, step)
            layer_bytes[i, step] = [len(p) for p in payloads]
            for layers in range(1, LAYERS + 1):
                decoded[layers - 1][i] = codec.decode(payloads[:layers])
        for layers in range(1, LAYERS + 1):
            size = float(layer_bytes[:, step, :layers].sum(axis=1).mean())
            point = Point(width=width, step=step, layers=layers, bytes=round(size, 1))
            answered.append(_Answered(point, run_tail(network, decoded[layers - 1])))
    return layer_bytes, answered


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def _calibrated(
    answered: list[_Answered],
    labels: Tensor,
    validation: Validation,
    config: CodecConfig,
    layer_bytes: NDArray[np.uint16],
    unquantised: tuple[float, ...],
) -> Evaluation:
    held_in = torch.from_numpy(validation.calibrating)
    label, confidence, right, errors, temperatures = [], [], [], [], []
    for a in answered:
        temperature = losses.fitted_temperature(a.logits[held_in], labels[held_in])
        probability, guess = torch.softmax(a.logits / temperature, 1).max(1)
        hit = guess == labels
        errors.append(losses.expected_calibration_error(probability[~held_in], hit[~held_in]))
        temperatures.append(temperature)
        label.append(guess.numpy())
        confidence.append(probability.numpy())
        right.append(hit.numpy())
    exits = {(a.point.width, a.point.exit): confidence[i] for i, a in enumerate(answered) if a.point.exit is not None}
    points = []
    for i, a in enumerate(answered):
        given = tuple(
            _accuracy_by_confidence(exits[a.point.width, e][validation.calibrating], right[i][validation.calibrating])
            for e in sorted(e for w, e in exits if w == a.point.width)
        )
        points.append(
            msgspec.structs.replace(
                a.point,
                accuracy=round(float(right[i].mean()), 5),
                temperature=round(temperatures[i], 5),
                accuracy_given=given,
            )
        )
    outcomes = Outcomes(
        truth=labels.numpy().astype(np.uint8),
        label=np.stack(label, axis=1).astype(np.uint8),
        confidence=np.stack(confidence, axis=1).astype(np.float16),
        layer_bytes=layer_bytes,
    )
    return Evaluation(config, tuple(points), outcomes, tuple(errors), unquantised)


def _accuracy_by_confidence(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[float, ...]:
    """Share right in each confidence bin; a bin of few samples leans on the mean (20 samples' worth)."""
    bins = np.searchsorted(CONFIDENCE_EDGES, confidence, side="right")
    mean, shares = float(right.mean()), []
    for b in range(len(CONFIDENCE_EDGES) + 1):
        inside = right[bins == b]
        shares.append(round((float(inside.sum()) + 20 * mean) / (len(inside) + 20), 4))
    return tuple(shares)
