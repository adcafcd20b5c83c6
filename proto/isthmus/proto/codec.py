"""Features to bytes and back, in two layers or more of which any prefix decodes. Pure: no clock, no IO, no randomness.

Each layer is packed (`packing`) and entropy-coded on its own, by the static code that ships with the bundle or, for
large tensors, by zstd as an adaptive Huffman coder. Sizes come from the config, never from a payload: whatever a
payload holds, `decode` gives an array of the config's shape or raises CodecError.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import zstandard
from numpy.typing import NDArray

from isthmus.proto.bits.huffman import SYMBOLS, StaticCode, code_lengths
from isthmus.proto.bits.packing import LAYERS, LIMIT, MAX_LAYERS, Packing, packed_bytes
from isthmus.proto.bits.spectrum import SPECTRAL_LAYERS, SpectralPacking, Spectrum
from isthmus.proto.errors import CodecError
from isthmus.proto.picture_codec import PictureConfig
from isthmus.proto.temporal.delta import Deltas

CODEC_VERSION = 1
"""Whatever changes a payload's bytes raises it: halves of different versions refuse each other at hello."""
HEADER_BYTES = 2
"""A payload begins with its backend (high half) and layer (low half), then the index of its step."""
RAW, STATIC, ZSTD, PICTURE, DELTA = range(5)
"""Backends of a payload: packed bytes as they are, the static Huffman code, zstd, a picture's own file, and changes against
another frame (`temporal`), whose header says in the layer's place how many refinements they stand for."""
STATIC_MAX_ELEMENTS = 32768
"""Up to here the static code is smaller (2 to 10 %); beyond, zstd has the data to adapt to and is a quarter faster."""

_MAGIC = zstandard.FRAME_HEADER
"""What every zstd frame begins with; not sent."""
_WINDOW_LOG = 20
"""The memory that a zstd frame may ask of whoever decodes it: 1 MiB."""

Coefficients = tuple[float, float, float]


@dataclass(frozen=True)
class CodecConfig:
    """What both halves must know of a bottleneck (H, W, C); ships with the bundle.

    `zero_point` has one value for each channel; `steps` are in the features' own unit, finest first;
    `tables[step][layer]` are 256 code lengths, as many tables as there are layers; `size_fit[step][layer]` is (a, b, c)
    of bytes = a + b u + c u^2 with u = log2(mean |x - zero point| / step).
    """

    height: int
    width: int
    channels: int
    zero_point: tuple[float, ...]
    steps: tuple[float, ...]
    tables: tuple[tuple[bytes, ...], ...]
    size_fit: tuple[tuple[Coefficients, ...], ...]
    spectrum: Spectrum | None = None
    """What is coded are frequencies, and steps are in their unit; None: the features themselves."""
    picture: PictureConfig | None = None
    """The picture may cross too (`frame_codec`): its qualities are further steps of the ladder, behind the features'."""
    views: tuple[PictureConfig, ...] = ()
    """The picture at other sizes, or a part of it: each one's qualities are steps behind those before."""
    deltas: Deltas | None = None
    """A frame's features may be coded against those of another (`frame_codec`)."""

    @property
    def elements(self) -> int:
        """Values in one frame's features."""
        return self.height * self.width * self.channels

    @property
    def layers(self) -> int:
        """Layers of a frame's features; 1 where only pictures cross."""
        if self.tables:
            return len(self.tables[0])
        return LAYERS if self.picture is None else 1

    @property
    def max_layer_bytes(self) -> int:
        """The largest payload of any layer: what does not shrink travels packed and plain."""
        picture = max((view.max_bytes for view in (self.picture, *self.views) if view is not None), default=0)
        if self.spectrum is not None:
            return HEADER_BYTES + max(picture, self.spectrum.most_packed_bytes)
        return HEADER_BYTES + max(picture, *(packed_bytes(self.elements, layer) for layer in range(self.layers)))


def checksum(payload: bytes, seal: int = 0) -> int:
    """CRC-32 of a payload. A flipped bit mostly still decodes: check this before `decode`.

    Of a delta it begins with its reference's `seal`: it fits no other.
    """
    return zlib.crc32(payload, seal)


class Codec:
    """Encoder and decoder of one bottleneck. Holds scratch memory: one thread at a time."""

    def __init__(self, config: CodecConfig) -> None:
        """Raises CodecError if `config` contradicts itself."""
        self.config = config
        self.packing = packing_of(config)
        self._plain = self.packing.packed_bytes
        for name, rows in (("tables", config.tables), ("size_fit", config.size_fit)):
            if [len(row) for row in rows] != [config.layers] * len(config.steps):
                raise CodecError(f"config: {name} must have {len(config.steps)} steps of {config.layers} layers")
        self._codes = list(map(StaticCode, config.tables, self.packing.alphabets))
        self._sizes = [
            [_Size(c, step, HEADER_BYTES + plain) for c, plain in zip(row, sizes, strict=True)]
            for row, sizes, step in zip(config.size_fit, self._plain, config.steps, strict=True)
        ]
        self._static = config.elements <= STATIC_MAX_ELEMENTS
        self._compressor = zstandard.ZstdCompressor(compression_params=_zstd_parameters())
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)

    @property
    def max_layer_bytes(self) -> int:
        """The largest payload of any layer, in bytes."""
        return self.config.max_layer_bytes

    def predict(self, features: NDArray[np.float32]) -> tuple[tuple[int, ...], ...]:
        """Payload bytes [step][layer] that `encode` is likely to give, without encoding.

        `features`: (H, W, C) float32. Raises CodecError on another shape or type, NaN or infinity.
        """
        level = math.log2(max(self.packing.magnitude(features), 1e-30))
        return tuple([tuple([size.bytes_at(level) for size in row]) for row in self._sizes])

    def encode(self, features: NDArray[np.float32], step: int) -> tuple[bytes, ...]:
        """One payload for each layer, base first.

        `features`: (H, W, C) float32; `step` indexes the ladder. Raises CodecError on another shape or type, NaN or
        infinity, and on a step that the ladder does not have.
        """
        if not 0 <= step < len(self.config.steps):
            raise CodecError(f"step {step}: the ladder has {len(self.config.steps)} steps, 0 is the finest")
        packed = self.packing.pack(features, step)
        bodies = self._codes[step].encode(packed) if self._static else self._deflate(packed)
        backend = STATIC if self._static else ZSTD
        return tuple([_payload(backend, layer, step, body, packed[layer]) for layer, body in enumerate(bodies)])

    def decode(self, payloads: Sequence[bytes]) -> NDArray[np.float32]:
        """(H, W, C) float32 from the base alone or with the refinements that follow it. Raises CodecError as `unpacked`."""
        packed, step = self.unpacked(payloads)
        return self.packing.unpack(packed, step)

    def unpacked(self, payloads: Sequence[bytes]) -> tuple[list[NDArray[np.uint8]], int]:
        """The packed bytes of these layers, base first, and their step.

        Raises CodecError, beginning with the layer, on a payload of another layer or step than its place asks for, one
        that its backend cannot read, and one that holds too little or more than a frame can.
        """
        if not 1 <= len(payloads) <= self.config.layers:
            raise CodecError(
                f"payloads: {len(payloads)} layers; give the base, or the base and its refinements, {self.config.layers} in all"
            )
        packed, step = list[NDArray[np.uint8]](), -1
        for layer, payload in enumerate(payloads):
            try:
                backend, step = self._header(payload, layer, step)
                packed.append(self._packed(payload, backend, layer, step))
            except CodecError as error:
                raise CodecError(f"layer {layer}: {error}") from error
        return packed, step

    def _header(self, payload: bytes, layer: int, base_step: int) -> tuple[int, int]:
        """Backend and step of a payload that should be `layer`, and of the base's step (-1: this is the base)."""
        if len(payload) < HEADER_BYTES:
            raise CodecError(f"{len(payload)} bytes, shorter than its header")
        first, step = payload[0], payload[1]
        if first & 15 != layer:
            raise CodecError(f"header says layer {first & 15}; give the layers in order, base first")
        if step >= len(self.config.steps):
            raise CodecError(f"step {step}, the ladder has {len(self.config.steps)}; compare the two halves' bundles")
        if base_step not in (-1, step):
            raise CodecError(f"step {step}, the base has step {base_step}; both must come from one encoding")
        return first >> 4, step

    def _packed(self, payload: bytes, backend: int, layer: int, step: int) -> NDArray[np.uint8]:
        """The packed bytes of one layer, exactly as many as the config says."""
        body, most = payload[HEADER_BYTES:], self._plain[step][layer]
        if backend == STATIC:
            body = self._codes[step].decode(layer, body, most)
        elif backend == ZSTD:
            body = self._inflate(body, most)
        elif backend != RAW:
            raise CodecError(f"backend {backend} unknown; compare the two halves' versions")
        elif len(body) > most:
            raise CodecError(f"{len(body)} packed bytes, expected {most} at most")
        return self.packing.expand(layer, np.frombuffer(body, np.uint8), step)

    def _deflate(self, packed: Sequence[bytes]) -> list[bytes]:
        return [self._compressor.compress(layer)[len(_MAGIC) :] for layer in packed]

    def _inflate(self, body: bytes, most: int) -> bytes:
        """The size in the frame's header is checked first: zstandard believes it, whatever limit it is given."""
        try:
            size = zstandard.get_frame_parameters(_MAGIC + body).content_size
            if size > most:
                raise CodecError(f"a frame of {size} packed bytes, expected {most} at most")
            return self._decompressor.decompress(_MAGIC + body, max_output_size=most, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CodecError(f"not a zstd frame ({error})") from error


def packing_of(config: CodecConfig) -> Packing | SpectralPacking:
    """What quantises and packs. Raises CodecError if `config` contradicts itself."""
    shape = config.height, config.width, config.channels
    if config.spectrum is None:
        return Packing(shape, config.zero_point, config.steps, config.layers)
    if config.elements > STATIC_MAX_ELEMENTS:
        raise CodecError(f"config: a spectrum of {config.elements} coefficients, {STATIC_MAX_ELEMENTS} at most")
    return SpectralPacking(shape, config.zero_point, config.steps, config.spectrum)


def _payload(backend: int, layer: int, step: int, body: bytes, packed: bytes) -> bytes:
    """`body` behind its header, or the packed bytes themselves where they are no longer."""
    if len(body) < len(packed):
        return bytes((backend << 4 | layer, step)) + body
    return bytes((RAW << 4 | layer, step)) + packed


class _Size:
    """Payload bytes as a parabola in log2 of the mean magnitude, level beyond its vertex: louder is never smaller."""

    def __init__(self, coefficients: Coefficients, step: float, most: int) -> None:
        a, b, c = coefficients
        shift = math.log2(step)
        self._a, self._b, self._c = a - b * shift + c * shift * shift, b - 2 * c * shift, c
        self._low = -self._b / (2 * c) if c > 0 else -math.inf
        self._high = -self._b / (2 * c) if c < 0 else math.inf
        self._most = most

    def bytes_at(self, level: float) -> int:
        """Bytes at `level` = log2(mean |x - zero point|), never below a header nor above the plain layer."""
        level = self._low if level < self._low else self._high if level > self._high else level
        size = int(self._a + level * (self._b + level * self._c) + 0.5)
        return HEADER_BYTES if size < HEADER_BYTES else self._most if size > self._most else size


def _zstd_parameters() -> zstandard.ZstdCompressionParameters:
    """Set zstd up as hardly more than its Huffman coder: matches only cost here."""
    return zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=_WINDOW_LOG,
        hash_log=6,
        min_match=7,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )


def fit(
    features: NDArray[np.float32],
    zero_point: Sequence[float],
    steps: Sequence[float],
    *,
    layers: int = LAYERS,
    spectrum: Spectrum | None = None,
) -> CodecConfig:
    """Learn code lengths and size prediction from features (N, H, W, C) float32 of a few hundred frames or more.

    A `spectrum` has layers of its own. Raises CodecError on another type, NaN or infinity.
    """
    if features.ndim != 4 or len(features) == 0:
        raise CodecError(f"features: shape {features.shape}; give (N, H, W, C) with at least one frame")
    _, height, width, channels = features.shape
    layers = layers if spectrum is None else SPECTRAL_LAYERS
    config = CodecConfig(
        height,
        width,
        channels,
        tuple(map(float, zero_point)),
        tuple(map(float, steps)),
        tables=((b"",) * layers,) * len(steps),
        size_fit=(((0.0, 0.0, 0.0),) * layers,) * len(steps),
        spectrum=spectrum,
    )
    packing = packing_of(config)
    config = replace(config, tables=tuple(_tables(packing, features, step) for step in range(len(steps))))
    levels = np.log2([max(packing.magnitude(x), 1e-30) for x in features])
    codec = Codec(config)
    return replace(config, size_fit=tuple(_size_fit(codec, features, levels, step) for step in range(len(steps))))


def _tables(packing: Packing | SpectralPacking, features: NDArray[np.float32], step: int) -> tuple[bytes, ...]:
    """Code lengths of each layer. Every byte that can occur gets a tenth of a count more, hence a code."""
    counts = [np.full(size, 0.1) for size in packing.alphabets[step]]
    for x in features:
        for count, packed in zip(counts, packing.pack(x, step), strict=True):
            count += np.bincount(np.frombuffer(packed, np.uint8), minlength=len(count))
    return tuple(code_lengths(np.pad(count, (0, SYMBOLS - len(count)))) for count in counts)


def _size_fit(
    codec: Codec, features: NDArray[np.float32], levels: NDArray[np.float64], step: int
) -> tuple[Coefficients, ...]:
    """Least squares of real payload sizes on (1, u, u^2)."""
    sizes = np.array([[len(payload) for payload in codec.encode(x, step)] for x in features], np.float64)
    u = levels - math.log2(codec.config.steps[step])
    found, *_ = np.linalg.lstsq(np.stack([np.ones_like(u), u, u * u], axis=1), sizes, rcond=None)
    return tuple((float(a), float(b), float(c)) for a, b, c in found.T)


__all__ = ["CODEC_VERSION", "LAYERS", "LIMIT", "MAX_LAYERS", "Codec", "CodecConfig", "checksum", "fit"]
