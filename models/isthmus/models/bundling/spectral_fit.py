"""The spectrum of a cut's feature maps, fitted on sample pictures. Neither training nor the tail is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.proto.bits.spectrum import (
    ORDERS,
    PER_BYTE,
    SPECTRAL_LAYERS,
    Frequencies,
    SpectralPacking,
    Spectrum,
    restored,
)
from isthmus.proto.codec import STATIC_MAX_ELEMENTS, CodecConfig, fit

TILT = 0.35
"""The weight of low frequencies over high ones for a tail: fits what noise in each of them does to ResNet-8's logits."""
LADDER = (0.2, 0.28, 0.4, 0.55, 0.75, 1.05, 1.45, 2.0, 2.8)
"""Steps, in root mean squares of the weighted coefficients."""
NOMINAL_STEP = 0.75
"""The step that cuts are compared at."""
EDGES = (1.0, 0.35)
"""Mean size of the symbols, in steps, at which a layer ends and the next begins."""
BEYOND = 0.001
"""The largest share of a layer's symbols that is clipped."""
CLIPPED = 0.1
"""The largest share of the rounding's power that clipping may add: a few coefficients may be many times larger than the rest."""
AT_FLOOR = 0.05
"""Channels that are at their floor at least so often were cut off by it, and are put right."""
RESTORING = 50
"""The number of pictures that this is fitted on."""
HALVINGS, ROUNDS, REACH = 12, 3, 3.0
"""Steps of each search for a shift, how often gain and shift are found in turn, and the largest shift, in spreads."""

Floats = NDArray[np.float32]


def is_map(x: Floats) -> bool:
    """Whether features (N, H, W, C) have neighbours, and not too many of them."""
    _, height, width, _ = x.shape
    return bool(min(height, width) > 2 and x[0].size <= STATIC_MAX_ELEMENTS)


def spectral(x: Floats, ladder: Sequence[float] = LADDER) -> CodecConfig:
    """The codec of features (N, H, W, C) as frequencies, with steps of so many root mean squares."""
    coefficients = _coefficients(x, Frequencies((x.shape[1], x.shape[2], x.shape[3]), TILT))
    spread = max(float(np.sqrt(np.mean(coefficients**2))), 1e-6)
    config = _fitted(x, coefficients, [step * spread for step in ladder], TILT, ())
    assert config.spectrum is not None
    return replace(config, spectrum=msgspec.structs.replace(config.spectrum, restored=_restored(config, x)))


def trained(x: Floats, steps: Sequence[float]) -> CodecConfig:
    """The codec of features (N, H, W, C) that were trained for these steps: nothing is weighted or put right."""
    shape = (x.shape[1], x.shape[2], x.shape[3])
    spatial = spatial_channels(x, steps[len(steps) // 2])
    return _fitted(x, _coefficients(x, Frequencies(shape, 0.0, spatial)), steps, 0.0, spatial)


def spatial_channels(x: Floats, step: float) -> tuple[int, ...]:
    """The channels of features (N, H, W, C) that take fewer bits at `step` as they are than as frequencies."""
    plain = x - x.mean(axis=(0, 1, 2))
    whole = _coefficients(x, Frequencies((x.shape[1], x.shape[2], x.shape[3]), 0.0)).reshape(x.shape)
    as_they_are, transformed = (np.log2(1 + np.abs(v) / step).mean(axis=(0, 1, 2)) for v in (plain, whole))
    return tuple(map(int, np.flatnonzero(as_they_are <= transformed)))


def _coefficients(x: Floats, frequencies: Frequencies) -> Floats:
    """(N, elements) of features (N, H, W, C), about each channel's mean."""
    zero_point, weight = x.mean(axis=(0, 1, 2)), frequencies.weight[..., None].astype(np.float32)
    return np.stack([frequencies.of(each - zero_point, weight).ravel() for each in x])


def _fitted(
    x: Floats, coefficients: Floats, steps: Sequence[float], tilt: float, spatial: tuple[int, ...]
) -> CodecConfig:
    flat = x.reshape(-1, x.shape[-1])
    sizes = np.abs(coefficients).mean(axis=0)
    digits = np.clip(np.floor(2 * np.log2(sizes.max() / np.maximum(sizes, 1e-30))), 0, ORDERS - 1).astype(int)
    order = np.argsort(digits, kind="stable")
    spectrum = Spectrum(
        tilt=tilt,
        order="".join(f"{digit:x}" for digit in digits),
        bands=tuple(_bands(np.abs(np.rint(coefficients / step))[:, order], digits[order]) for step in steps),
        floor=tuple(map(float, flat.min(axis=0))),
        spread=tuple(map(float, flat.std(axis=0))),
        restored=(((1.0, 0.0),) * SPECTRAL_LAYERS,) * len(steps),
        spatial=spatial,
    )
    return fit(x, flat.mean(axis=0).tolist(), steps, spectrum=spectrum)


def _bands(symbols: Floats, digits: NDArray[np.intp]) -> tuple[tuple[int, int], ...]:
    """Coefficients and levels of each layer, for sizes of symbols (N, elements) in their order."""
    mean = np.bincount(digits, symbols.mean(axis=0), ORDERS) / np.maximum(np.bincount(digits, minlength=ORDERS), 1)
    edges, elements = [0], len(digits)
    for layer, least in enumerate(EDGES, start=1):
        large = int(np.count_nonzero(mean[digits] >= least))
        edges.append(min(max(large, edges[-1] + 1), elements - SPECTRAL_LAYERS + layer))
    edges.append(elements)
    return tuple((b - a, _levels(symbols[:, a:b])) for a, b in pairwise(edges))


def _levels(symbols: Floats) -> int:
    """The fewest that nearly all symbols have, and that the few beyond do not miss by much."""
    return next((levels for levels in PER_BYTE if _suffice(symbols, (levels - 1) // 2)), max(PER_BYTE))


def _suffice(symbols: Floats, limit: int) -> bool:
    beyond = np.maximum(symbols - limit, 0)
    return bool(np.mean(beyond > 0) <= BEYOND and np.mean(beyond**2) <= CLIPPED / 12)


def _restored(config: CodecConfig, x: Floats) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Gain and shift for every step and number of layers, where a floor cuts the features off."""
    assert config.spectrum is not None
    floor, spread = (np.array(v, np.float32) for v in (config.spectrum.floor, config.spectrum.spread))
    shown = x[:RESTORING]
    if np.mean(shown <= floor) < AT_FLOOR:
        return config.spectrum.restored
    packing = SpectralPacking(x.shape[1:], config.zero_point, config.steps, config.spectrum)
    rows = []
    for step in range(len(config.steps)):
        packed = [[np.frombuffer(body, np.uint8) for body in packing.pack(each, step)] for each in shown]
        whole = [[packing.expand(layer, body, step) for layer, body in enumerate(bodies)] for bodies in packed]
        prefixes = (
            np.stack([packing.blurred(each[:n], step) for each in whole]) for n in range(1, SPECTRAL_LAYERS + 1)
        )
        rows.append(tuple(_put_right(blurred, shown, floor, spread) for blurred in prefixes))
    return tuple(rows)


def _put_right(blurred: Floats, true: Floats, floor: Floats, spread: Floats) -> tuple[float, float]:
    """The gain and the shift that give `blurred` the mean, and the variance about its channels' means, of `true`."""

    def about(x: Floats) -> float:
        return float((x - x.mean(axis=(0, 1, 2))).std())

    gain, shift = 1.0, 0.0
    for last in (*(False,) * ROUNDS, True):
        low, high = -REACH, REACH
        for _ in range(HALVINGS):
            shift = (low + high) / 2
            more = restored(blurred, floor, spread, gain, shift).mean() > true.mean()
            low, high = (shift, high) if more else (low, shift)
        if not last:
            gain *= about(true) / max(about(restored(blurred, floor, spread, gain, shift)), 1e-9)
    return round(gain, 4), round(shift, 4)
