"""What crosses for a frame, to bytes and back: its features (`codec`), or the picture itself (`picture_codec`). Pure.

One ladder has both: the features' steps, finest first, then the picture's qualities. A payload tells by its header which
of them it is. Features may be coded against those of another frame too (`temporal`): one payload then stands for all layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from isthmus.proto import picture_codec
from isthmus.proto.bits.packing import Packing
from isthmus.proto.codec import DELTA, HEADER_BYTES, PICTURE, STATIC_MAX_ELEMENTS, Codec, CodecConfig
from isthmus.proto.errors import CodecError
from isthmus.proto.picture_codec import Pixels
from isthmus.proto.temporal.delta import DeltaCodec
from isthmus.proto.temporal.reconstruction import Reconstruction

Floats = NDArray[np.float32]
NEVER = 1 << 30
"""The size of what cannot be sent: more than any frame's."""


def blank(config: CodecConfig) -> Floats | Pixels:
    """A frame of what crosses, for warming up: features of zeros, or a black picture where no features cross."""
    if config.steps or config.picture is None:
        return np.zeros((config.height, config.width, config.channels), np.float32)
    return np.zeros((config.picture.height, config.picture.width, 3), np.uint8)


class Crossed(Struct, frozen=True, eq=False):
    """What a server has of a frame."""

    features: Floats | Pixels
    """(H, W, C) float32, or a picture (H, W, 3) uint8."""
    layers: int
    """How many layers it stands for."""
    reconstruction: Reconstruction | None = None
    """What another frame may be coded against; None where none may."""


class Delta(Struct, frozen=True, eq=False):
    """A frame's features coded against another frame's."""

    payload: bytes
    reconstruction: Reconstruction
    """What both halves then hold of it."""


class FrameCodec:
    """Encoder and decoder of all that a bundle sends. Holds scratch memory: one thread at a time."""

    def __init__(self, config: CodecConfig) -> None:
        """Raises CodecError if `config` contradicts itself."""
        self.config = config
        self._features = Codec(config) if config.steps else None
        self._steps = len(config.steps)
        self._deltas = None if self._features is None else deltas_of(self._features)
        views = () if config.picture is None else (config.picture, *config.views)
        if views:
            picture_codec.load()
        self._qualities = [(n, view, quality) for n, view in enumerate(views) for quality in range(len(view.qualities))]
        """By step of the ladder, behind those of the features: which view, and which quality of it."""
        self._views = views

    @property
    def max_layer_bytes(self) -> int:
        """See `CodecConfig`."""
        return self.config.max_layer_bytes

    def predict(self, features: Floats | None, pictures: Sequence[Pixels] = ()) -> tuple[tuple[int, ...], ...]:
        """Payload bytes [step][layer] that `encode` is likely to give, without encoding, for what there is of a frame.

        `pictures` are those that may cross, one for each view. Steps of the ladder for which there is nothing yet have no
        layers. Raises CodecError on another shape or type than the config's, NaN or infinity.
        """
        sizes: tuple[tuple[int, ...], ...] = ((),) * self._steps
        if self._features is not None and features is not None:
            sizes = self._features.predict(features)
        if pictures:
            for pixels, view in zip(pictures, self._views, strict=True):
                sizes += tuple((HEADER_BYTES + size,) for size in picture_codec.predicted_bytes(pixels, view))
        return sizes

    def encode(self, features: Floats | None, pictures: Sequence[Pixels], step: int) -> tuple[bytes, ...]:
        """One payload for each layer, base first; a picture has one. Raises CodecError as `predict`, and on a step that
        the ladder does not have for what there is of the frame.
        """
        if step < self._steps and self._features is not None and features is not None:
            return self._features.encode(features, step)
        if not pictures or not 0 <= step - self._steps < len(self._qualities):
            raise CodecError(f"step {step}: the ladder has no such step for this frame")
        n, view, quality = self._qualities[step - self._steps]
        return (bytes((PICTURE << 4, step)) + picture_codec.encode(pictures[n], view, quality),)

    def decode(self, payloads: Sequence[bytes]) -> Floats | Pixels:
        """Features (H, W, C) float32, or a picture (H, W, 3) uint8. Raises CodecError as the codecs do."""
        if payloads and payloads[0][:1] == bytes((PICTURE << 4,)):
            return self._picture(payloads)
        if self._features is None:
            raise CodecError("features, which this bundle does not send; compare the two halves' bundles")
        return self._features.decode(payloads)

    def crossed(self, payloads: Sequence[bytes], reference: Reconstruction | None = None) -> Crossed:
        """What payloads hold, the delta of `reference` among them. Raises CodecError as `decode` does."""
        if reference is not None:
            return self._changed(payloads, reference)
        if (
            self._deltas is None
            or self._features is None
            or (payloads[:1] and payloads[0][:1] == bytes((PICTURE << 4,)))
        ):
            return Crossed(self.decode(payloads), len(payloads))
        packed, step = self._features.unpacked(payloads)
        reconstruction = Reconstruction(step, self._deltas.packing.symbols(packed))
        return Crossed(self._deltas.features(reconstruction), len(payloads), reconstruction)

    def _changed(self, payloads: Sequence[bytes], reference: Reconstruction) -> Crossed:
        if self._deltas is None:
            raise CodecError("a delta, which this bundle does not send; compare the two halves' bundles")
        if len(payloads) != 1 or len(payloads[0]) < HEADER_BYTES:
            raise CodecError(f"payloads: {len(payloads)}, or cut off; a delta is one")
        (kind, step), body = payloads[0][:HEADER_BYTES], payloads[0][HEADER_BYTES:]
        layers = (kind & 15) + 1
        if kind >> 4 != DELTA or layers > self.config.layers or step >= self._steps:
            raise CodecError(f"header {kind:02x} {step:02x} is no delta's; compare the two halves' bundles")
        reconstruction = self._deltas.decode(body, step, layers, reference)
        return Crossed(self._deltas.features(reconstruction), layers, reconstruction)

    def whole(self, features: Floats, step: int) -> Reconstruction | None:
        """What both halves hold once all layers of this step have crossed as they are; None where no deltas are coded."""
        if self._deltas is None or not 0 <= step < self._steps:
            return None
        return self._deltas.whole(self._deltas.packing.distances(features), step)

    def delta(self, features: Floats, step: int, layers: int, reference: Reconstruction) -> Delta:
        """Features coded against `reference`. Raises CodecError as `encode` does, and where no deltas are coded."""
        if self._deltas is None or not 0 <= step < self._steps or not 1 <= layers <= self.config.layers:
            raise CodecError(f"step {step} of {layers} layers: this bundle codes no such delta")
        change = self._deltas.change(self._deltas.packing.distances(features), step, layers, reference)
        body = self._deltas.encode(change, step, layers)
        reconstruction = self._deltas.changed(change, step, layers, reference)
        return Delta(bytes((DELTA << 4 | layers - 1, step)) + body, reconstruction)

    def delta_bytes(self, features: Floats, reference: Reconstruction) -> tuple[tuple[int, ...], ...]:
        """Payload bytes [step][layers - 1] that `delta` gives, exactly; empty where no deltas are coded.

        Of one that is larger than any layer may be it is NEVER. Raises CodecError as `encode` does.
        """
        if self._deltas is None:
            return ()
        deltas, distances = self._deltas, self._deltas.packing.distances(features)

        def size(step: int, layers: int) -> int:
            change = deltas.change(distances, step, layers, reference)
            found = HEADER_BYTES + deltas.size_bytes(change, step, layers)
            return found if found <= self.max_layer_bytes else NEVER

        every = range(1, self.config.layers + 1)
        return tuple(tuple(size(step, layers) for layers in every) for step in range(self._steps))

    def _picture(self, payloads: Sequence[bytes]) -> Pixels:
        if not self._views:
            raise CodecError("a picture, which this bundle does not send; compare the two halves' bundles")
        if len(payloads) != 1 or len(payloads[0]) < HEADER_BYTES:
            raise CodecError(f"payloads: {len(payloads)}, or cut off; a picture is one")
        if not 0 <= payloads[0][1] - self._steps < len(self._qualities):
            raise CodecError(f"step {payloads[0][1]} is no picture's; compare the two halves' bundles")
        _, view, _ = self._qualities[payloads[0][1] - self._steps]
        return picture_codec.decode(payloads[0][HEADER_BYTES:], view)


def deltas_of(codec: Codec) -> DeltaCodec | None:
    """What codes against other frames; None where the bundle does not. Raises CodecError if its config contradicts itself."""
    if codec.config.deltas is None:
        return None
    if not isinstance(codec.packing, Packing):
        raise CodecError("config: deltas of frequencies; there are none")
    if codec.config.elements > STATIC_MAX_ELEMENTS:
        raise CodecError(f"config: deltas of {codec.config.elements} values, {STATIC_MAX_ELEMENTS} at most")
    return DeltaCodec(codec.config.deltas, codec.packing, codec.config.steps)
