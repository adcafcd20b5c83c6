"""What crosses for a frame, to bytes and back: its features (`codec`), or the picture itself (`picture_codec`). Pure.

One ladder has both: the features' steps, finest first, then the picture's qualities. A payload tells by its header which
of them it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.proto import picture_codec
from isthmus.proto.codec import HEADER_BYTES, PICTURE, Codec, CodecConfig
from isthmus.proto.errors import CodecError
from isthmus.proto.picture_codec import Pixels

Floats = NDArray[np.float32]


def blank(config: CodecConfig) -> Floats | Pixels:
    """A frame of what crosses, for warming up: features of zeros, or a black picture where no features cross."""
    if config.steps or config.picture is None:
        return np.zeros((config.height, config.width, config.channels), np.float32)
    return np.zeros((config.picture.height, config.picture.width, 3), np.uint8)


class FrameCodec:
    """Encoder and decoder of all that a bundle sends. Holds scratch memory: one thread at a time."""

    def __init__(self, config: CodecConfig) -> None:
        """Raises CodecError if `config` contradicts itself."""
        self.config = config
        self._features = Codec(config) if config.steps else None
        self._steps = len(config.steps)
        views = () if config.picture is None else (config.picture, *config.views)
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

    def _picture(self, payloads: Sequence[bytes]) -> Pixels:
        if not self._views:
            raise CodecError("a picture, which this bundle does not send; compare the two halves' bundles")
        if len(payloads) != 1 or len(payloads[0]) < HEADER_BYTES:
            raise CodecError(f"payloads: {len(payloads)}, or cut off; a picture is one")
        if not 0 <= payloads[0][1] - self._steps < len(self._qualities):
            raise CodecError(f"step {payloads[0][1]} is no picture's; compare the two halves' bundles")
        _, view, _ = self._qualities[payloads[0][1] - self._steps]
        return picture_codec.decode(payloads[0][HEADER_BYTES:], view)
