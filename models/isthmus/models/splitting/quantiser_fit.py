"""The quantiser of a cut, fitted on sample pictures, and what every operating point then answers. No training.

One map of features is coded as frequencies (`spectra`). Several tensors, a contest and what is no map are coded value by
value: clipping their far outliers costs more answers than anything else, so the nested layers span all that the samples
hold; the first of them are nearly all zero, and cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bottleneck, Contest, Crossing
from isthmus.models.bundling.spectral_fit import NOMINAL_STEP, is_map, spectral
from isthmus.models.crossing import contested, joined
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting.cuts import Cut, names, only_compares
from isthmus.proto.bits.packing import limit
from isthmus.proto.codec import LAYERS, MAX_LAYERS, Codec, CodecConfig, fit
from isthmus.proto.errors import ModelError

FINE = 0.25
"""The finest step is no coarser than this, in root mean squares of the features about their zero points."""
LADDER = (1.0, 1.32, 1.73, 2.28)
"""Steps in units of the finest; each layer that is left out makes them three times coarser."""
NOMINAL = 0.66
"""The step that cuts are compared at, in root mean squares."""
REACH = 1.4
"""The distance below the greatest channel at which one still matters (`Contest`), in root mean squares."""
CONTEST_LAYERS, CONTEST_LADDER = 3, (1.0, 1.5, 2.0, 3.0)
FARTHEST = 1e18
"""What the codec takes."""
WHOLE = 4.0
"""Steps up to so many of a tensor's own levels are made whole multiples of them: rounding twice costs more than it saves."""

Features = Sequence[Mapping[str, NDArray[Any]]]
"""A head's outputs by name, each with a batch of one; one mapping a picture."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Coding:
    """The coding of a cut's features: all that a bundle says of its bottleneck."""

    codec: CodecConfig
    tensors: tuple[Crossing, ...]
    contest: Contest | None

    @property
    def bottleneck(self) -> Bottleneck:
        """The bottleneck as `bundle.toml` describes it."""
        return Bottleneck.of(self.codec, self.tensors, self.contest)


def coded(graph: Graph, cut: Cut, features: Features) -> Coding:
    """Fit the coding of a cut on the features of sample pictures.

    Coded value by value, nothing of them is clipped: there are as many layers as it takes for the finest step to be fine
    and the last level to be as far out as the farthest value.
    """
    return _coded(graph, cut, features, None)


def is_finite(features: Features) -> bool:
    """Whether what crosses can be coded: the padding of a pool, minus infinity, cannot."""
    return all(bool(np.abs(values).max(initial=0) <= FARTHEST) for outputs in features for values in outputs.values())


def nominal_bytes(graph: Graph, cut: Cut, features: Features) -> float:
    """The mean bytes at the step that cuts are compared at."""
    coding = _coded(graph, cut, features, NOMINAL)
    codec, bottleneck = Codec(coding.codec), coding.bottleneck
    return float(np.mean([sum(map(len, codec.encode(joined(o, bottleneck), 0))) for o in features]))


def _coded(graph: Graph, cut: Cut, features: Features, only: float | None) -> Coding:
    """The coding with the whole ladder, or with `only` one step, in root mean squares."""
    tensors = _tensors(cut, features)
    plain = _plain(cut, tensors)
    x = np.stack([joined(outputs, plain) for outputs in features])
    if not np.abs(x).max() <= FARTHEST:  # NaN neither
        raise ModelError(
            f"{graph.path}: after operator {cut.after}: values that are not finite, or beyond {FARTHEST:g}; are the "
            "--pixels right?"
        )
    if not tensors and not only_compares(graph, cut) and is_map(x):
        return Coding(spectral(x) if only is None else spectral(x, (NOMINAL_STEP,)), (), None)
    zero_point = _zero_point(x, tensors)
    spread, farthest = _spread(x, zero_point), float(np.abs(x - zero_point).max())
    contest = None
    if only_compares(graph, cut):
        contest, layers = _contest(cut, spread), CONTEST_LAYERS
        x = np.stack([contested(features, contest) for features in x])
        zero_point = _zero_point(x, tensors)
        ladder = [contest.reach / limit(layers) * step for step in CONTEST_LADDER]
    else:
        layers = next((n for n in range(LAYERS, MAX_LAYERS) if farthest <= limit(n) * FINE * spread), MAX_LAYERS)
        ladder = [max(farthest, spread) / limit(layers) * step for step in LADDER]
    if only is not None:
        ladder = [only * spread] if contest is None else ladder[:1]
    level = cut.crossing[0].scale if not tensors else 0.0
    config = fit(x, zero_point.tolist(), _on_levels(ladder, level), layers=layers if only is None else LAYERS)
    return Coding(config, tensors, contest)


def _tensors(cut: Cut, features: Features) -> tuple[Crossing, ...]:
    """Gains that give several tensors the same spread; one tensor needs none."""
    if len(cut.crossing) == 1:
        return ()
    return tuple(
        Crossing(name, tensor.shape[1:], _spread(np.stack([o[name] for o in features]), np.float32(0)))
        for name, tensor in zip(names(cut), cut.crossing, strict=True)
    )


def _plain(cut: Cut, tensors: tuple[Crossing, ...]) -> Bottleneck:
    """The bottleneck's shape alone."""
    if tensors:
        return Bottleneck(1, sum(tensor.elements for tensor in cut.crossing), 1, (), (), (), (), tensors)
    *places, width, channels = 1, *cut.crossing[0].shape
    return Bottleneck(math.prod(places), width, channels, (), (), (), ())


def _zero_point(x: Floats, tensors: tuple[Crossing, ...]) -> Floats:
    """The median of each channel: the mean of linear features, nearly, and zero where a ReLU makes most of them zero."""
    if tensors:
        return np.zeros(1, np.float32)
    flat = x.reshape(-1, x.shape[-1])
    middle: Floats = np.quantile(flat, 0.5, axis=0, method="lower").astype(np.float32)  # a value that occurs
    return middle


def _spread(x: NDArray[Any], zero_point: Any) -> float:
    return max(float(np.sqrt(np.mean((x - zero_point) ** 2))), 1e-6)


def _contest(cut: Cut, spread: float) -> Contest:
    tensor, levels = cut.crossing[0], limit(CONTEST_LAYERS)
    reach, top = REACH * spread, 0.0
    if tensor.scale > 0:  # the tail stores integers: stay on them, and below the greatest that it can store
        most = 127 if tensor.dtype == "int8" else 255
        reach = max(1, round(reach / tensor.scale / levels)) * levels * tensor.scale
        top = (most - tensor.zero_point) * tensor.scale
    return Contest(reach, top)


def _on_levels(ladder: Sequence[float], level: float) -> list[float]:
    """Steps, finest first, each once; small ones as whole multiples of a tensor's own level (0: it has none)."""
    steps = {max(1, round(s / level)) * level if level > 0 and s < WHOLE * level else s for s in ladder}
    return sorted(steps)
