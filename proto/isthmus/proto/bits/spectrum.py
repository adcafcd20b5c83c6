"""Features that were not trained for a quantiser, as frequencies: transformed, quantised, packed, and put right again.

A cosine transform of each channel's map (Ahmed et al. 1974) gathers what neighbours share; low frequencies, which a network
answers by, get finer steps. Coefficients are sorted by how large they were on samples and sent in layers, the largest first:
any prefix decodes to a blurred map. Behind the quantiser, a ReLU's floor would lift the mean and the lost frequencies lower
the variance; `restored` puts both back. Symbols and bytes are integers; only what the tail takes is floating point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import CodecError

SPECTRAL_LAYERS = 3
ORDERS = 16
"""Sizes of coefficients are distinguished in so many half octaves."""
PER_BYTE: dict[int, float] = {3: 5, 5: 3, 7: 2, 9: 2, 15: 2, 61: 1, 243: 1, 243**2: 0.5}
"""Symbols to a byte, by the levels that they may have; two bytes to a symbol are two digits of it."""
RUNS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
"""Bytes of zeros that one byte may stand for, beside those that symbols make."""

Floats = NDArray[np.float32]


class Spectrum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How coefficients are weighted, ordered, packed and put right; ships with the bundle."""

    tilt: float
    """The coefficient (i, j) of each map is divided by (1 + i + j)^tilt before it is quantised."""
    order: str
    """A hex digit for each coefficient (H, W, C): half octaves by which it is smaller than the largest."""
    bands: tuple[tuple[tuple[int, int], ...], ...]
    """[step][layer]: coefficients of it, and the levels that their symbols may have."""
    floor: tuple[float, ...]
    """The least value that each channel is decoded to."""
    spread: tuple[float, ...]
    """Standard deviation of each channel."""
    restored: tuple[tuple[tuple[float, float], ...], ...]
    """[step][layers - 1]: a gain about the floor, then what is taken off, in spreads."""
    spatial: tuple[int, ...] = ()
    """Channels whose neighbours say nothing of each other: they are not transformed. Only where the tilt is 0."""

    @property
    def most_packed_bytes(self) -> int:
        """The most packed bytes of any layer at any step."""
        return max(_bytes(count, levels) for row in self.bands for count, levels in row)


def _bytes(count: int, levels: int) -> int:
    """The bytes that so many symbols take, before runs are written as one."""
    return math.ceil(count / PER_BYTE[levels])


def cosines(n: int) -> Floats:
    """The orthonormal cosine basis (n, n), a column for each frequency: DCT-II."""
    k, i = np.arange(n), np.arange(n)[:, None]
    basis = np.cos(np.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    basis[:, 0] /= math.sqrt(2)
    return np.asarray(basis, np.float32)


class Frequencies:
    """The weighted transform of (H, W, C); the channels `spatial` stay as they are."""

    def __init__(self, shape: tuple[int, int, int], tilt: float, spatial: Sequence[int] = ()) -> None:
        self._shape = height, width, _ = shape
        self._spatial = list(spatial)
        self._down, self._across = cosines(height), cosines(width)
        self.weight = (1.0 + np.add.outer(np.arange(height), np.arange(width))) ** -tilt
        """(H, W)"""

    def of(self, features: Floats, scale: Floats) -> Floats:
        """Coefficients (H, W, C) times `scale` (H, W, 1)."""
        height, width, channels = self._shape
        rows = (self._down.T @ features.reshape(height, -1)).reshape(height, width, channels)
        coefficients: Floats = np.matmul(self._across.T, rows)
        if self._spatial:
            coefficients[:, :, self._spatial] = features[:, :, self._spatial]
        coefficients *= scale
        return coefficients

    def features(self, coefficients: Floats) -> Floats:
        """What unweighted coefficients (H, W, C) are the transform of."""
        height, width, channels = self._shape
        rows = np.matmul(self._across, coefficients)
        features: Floats = (self._down @ rows.reshape(height, -1)).reshape(height, width, channels)
        if self._spatial:
            features[:, :, self._spatial] = coefficients[:, :, self._spatial]
        return features


class _Band:
    """Symbols of one layer at one step, and their bytes."""

    def __init__(self, start: int, count: int, levels: int) -> None:
        self.part = slice(start, start + count)
        self._most, self._planes = (levels - 1) // 2, round(1 / min(1.0, PER_BYTE[levels]))
        levels = round(levels ** (1 / self._planes))
        self._levels, self.limit, self.per_byte = levels, (levels - 1) // 2, round(PER_BYTE[levels])
        self._count, self.size = count * self._planes, _bytes(count * self._planes, levels)
        codes = levels**self.per_byte
        self.alphabet = codes + len(RUNS)
        self.zero = (codes - 1) // 2
        self._places = (levels ** np.arange(self.per_byte)).astype(np.float32)  # BLAS knows no integers
        self._digits = np.zeros((256, self.per_byte), np.float32)  # runs are of zeros
        self._digits[:codes] = np.arange(codes)[:, None] // levels ** np.arange(self.per_byte) % levels - self.limit
        self._length = np.zeros(256, np.intp)
        self._length[:codes] = 1
        self._length[codes : self.alphabet] = RUNS
        self._run_bytes, self._runs = _runs(self.size, codes, self.zero)

    def packed(self, symbols: Floats) -> bytes:
        """Bytes of all coefficients' symbols (whole numbers), with their zeros in runs."""
        own = np.full(self.size * self.per_byte, self.limit, np.float32)
        kept = own[: self._count].reshape(self._planes, -1)
        np.clip(symbols[self.part], -self._most, self._most, out=kept[-1])
        if self._planes == 2:  # the high digits, mostly zeros, then the low ones
            np.rint(kept[1] / self._levels, out=kept[0])
            kept[1] -= kept[0] * self._levels
        kept += self.limit
        whole = (own.reshape(-1, self.per_byte) @ self._places).astype(np.uint8)
        ends = np.flatnonzero(whole != self.zero)
        gaps = np.diff(ends, prepend=-1, append=self.size) - 1
        before = self._run_bytes.take(gaps)
        at = np.add.accumulate(before[:-1] + 1) - 1
        shortened = np.empty(len(ends) + int(before.sum()), np.uint8)
        free = np.ones(len(shortened), np.bool_)
        shortened[at], free[at] = whole[ends], False
        shortened[free] = self._runs_of(gaps[gaps > 0])
        return shortened.tobytes()

    def _runs_of(self, gaps: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The bytes that stand for so many zeros, one gap after the other."""
        rows = self._runs.take(gaps, axis=0)
        used: NDArray[np.uint8] = rows[np.arange(rows.shape[1]) < self._run_bytes.take(gaps)[:, None]]
        return used

    def expand(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One byte for each group of symbols. Raises CodecError when there are fewer, or more than padding can be read as."""
        lengths = self._length.take(packed)
        if not self.size <= (total := int(lengths.sum())) <= self.size + 8 * RUNS[-1]:
            raise CodecError(f"{total} packed bytes, expected {self.size}")
        return packed.repeat(lengths)[: self.size]

    def symbols(self, packed: NDArray[np.uint8]) -> Floats:
        """The symbols that expanded bytes stand for."""
        digits = self._digits.take(packed, axis=0).ravel()[: self._count].reshape(self._planes, -1)
        whole: Floats = digits[0] * self._levels + digits[1] if self._planes == 2 else digits[0]
        return whole


def _runs(longest: int, codes: int, zero: int) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """How many bytes stand for every run up to the longest; and these bytes, the longest run's first (row by row)."""
    rest = np.arange(longest + 1)
    counts = np.empty((len(rest), len(RUNS) + 1), np.intp)
    for column, run in enumerate(reversed(RUNS)):
        counts[:, column], rest = np.divmod(rest, run)
    counts[:, -1] = rest
    values = np.array([*reversed(range(codes, codes + len(RUNS))), zero], np.uint8)
    used = counts.sum(axis=1)
    rows = np.zeros((len(used), int(used.max())), np.uint8)
    rows[np.arange(rows.shape[1]) < used[:, None]] = np.tile(values, len(used)).repeat(counts.ravel())
    return used, rows


class SpectralPacking:
    """Quantiser and packer of frequencies, in the place of `packing.Packing`."""

    layers = SPECTRAL_LAYERS

    def __init__(
        self, shape: tuple[int, int, int], zero_point: Sequence[float], steps: Sequence[float], spectrum: Spectrum
    ) -> None:
        """Raises CodecError if they do not fit each other."""
        self.shape, self.elements = shape, math.prod(shape)
        _check(shape, zero_point, steps, spectrum)
        self._order = np.argsort([int(digit, 16) for digit in spectrum.order], kind="stable")
        self._frequencies = Frequencies(shape, spectrum.tilt, spectrum.spatial)
        weight = self._frequencies.weight[..., None]
        self._weight = weight.astype(np.float32)
        self._finer = [(weight / step).astype(np.float32) for step in steps]
        self._coarser = [(step / weight).astype(np.float32) for step in steps]
        starts = [np.cumsum([0, *(count for count, _ in row)]) for row in spectrum.bands]
        self._bands = [
            [_Band(int(start), count, levels) for start, (count, levels) in zip(row_starts, row, strict=False)]
            for row_starts, row in zip(starts, spectrum.bands, strict=True)
        ]
        self.packed_bytes = [tuple(band.size for band in row) for row in self._bands]
        """[step][layer], before runs are written as one."""
        self.alphabets = [tuple(band.alphabet for band in row) for row in self._bands]
        self._zero, self._floor, self._spread = (
            np.array(v, np.float32) for v in (zero_point, spectrum.floor, spectrum.spread)
        )
        self._restored = spectrum.restored

    def magnitude(self, features: Floats) -> float:
        """Mean size of the weighted coefficients of (H, W, C) float32. Raises CodecError as `pack` does."""
        return float(np.abs(self._coefficients(features, self._weight)).mean())

    def pack(self, features: Floats, step: int) -> tuple[bytes, ...]:
        """Packed bytes of every layer of features (H, W, C) float32. Raises CodecError on another shape, type, or NaN."""
        found = self._coefficients(features, self._finer[step])
        symbols = np.rint(found, out=found).ravel().take(self._order)
        return tuple(band.packed(symbols) for band in self._bands[step])

    def _coefficients(self, features: Floats, scale: Floats) -> Floats:
        if features.shape != self.shape or features.dtype != np.float32:
            raise CodecError(f"features: {features.dtype} {features.shape}, the bundle's are float32 {self.shape}")
        if not np.abs(features).max() <= 1e18:
            raise CodecError("features: NaN, infinite or beyond 1e18; check the head and its input")
        return self._frequencies.of(features - self._zero, scale)

    def expand(self, layer: int, packed: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
        """One byte for each group of symbols. Raises CodecError when there are too few or too many."""
        return self._bands[step][layer].expand(packed)

    def unpack(self, packed: Sequence[NDArray[np.uint8]], step: int) -> Floats:
        """(H, W, C) float32 from the expanded bytes of the first layers, put right."""
        gain, shift = self._restored[step][len(packed) - 1]
        return restored(self.blurred(packed, step), self._floor, self._spread, gain, shift)

    def blurred(self, packed: Sequence[NDArray[np.uint8]], step: int) -> Floats:
        """The same as it is without: frequencies of the other layers are none."""
        symbols = np.zeros(self.elements, np.float32)
        for band, own in zip(self._bands[step], packed, strict=False):
            symbols[self._order[band.part]] = band.symbols(own)
        return self._frequencies.features(symbols.reshape(self.shape) * self._coarser[step]) + self._zero


def restored(decoded: Floats, floor: Floats, spread: Floats, gain: float, shift: float) -> Floats:
    """max(floor, floor + gain (x - floor) - shift spread), channel by channel."""
    right: Floats = np.maximum((decoded - floor) * np.float32(gain) + (floor - np.float32(shift) * spread), floor)
    return right


def _check(
    shape: tuple[int, int, int], zero_point: Sequence[float], steps: Sequence[float], spectrum: Spectrum
) -> None:
    elements, channels = math.prod(shape), shape[-1]
    if any(len(each) != channels for each in (zero_point, spectrum.floor, spectrum.spread)):
        raise CodecError(f"config: zero points, floors and spreads must be {channels} each")
    if not steps or not all(0 < step < math.inf for step in steps):
        raise CodecError(f"config: steps {tuple(steps)} must be positive, and at least one")
    if len(spectrum.order) != elements or not set(spectrum.order) <= set("0123456789abcdef"):
        raise CodecError(f"config: order must be {elements} hex digits")
    if spectrum.spatial and (spectrum.tilt or not set(spectrum.spatial) <= set(range(channels))):
        raise CodecError(f"config: spatial channels {spectrum.spatial} of {channels}, tilt {spectrum.tilt}: must be 0")
    for name, rows in (("bands", spectrum.bands), ("restored", spectrum.restored)):
        if [len(row) for row in rows] != [SPECTRAL_LAYERS] * len(steps):
            raise CodecError(f"config: {name} must have {len(steps)} steps of {SPECTRAL_LAYERS} layers")
    for row in spectrum.bands:
        if sum(count for count, _ in row) != elements or min(count for count, _ in row) < 1:
            raise CodecError(f"config: bands of a step must hold {elements} coefficients, each at least one")
        if not {levels for _, levels in row} <= PER_BYTE.keys():
            raise CodecError(f"config: bands may have {', '.join(map(str, PER_BYTE))} levels")
