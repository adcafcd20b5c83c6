"""What crosses of one stream's frames, whole or coded against what the server holds, and what each would take before it is
sent.

It keeps what the server will have of the frames that were sent last, if they arrive. Pure but for that memory, which is
bounded; sizes may be asked in one thread while another encodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from isthmus.proto.codec import CodecConfig
from isthmus.proto.errors import DataError
from isthmus.proto.frame_codec import Floats, FrameCodec
from isthmus.proto.picture_codec import Pixels
from isthmus.proto.temporal.delta import upto
from isthmus.proto.temporal.reconstruction import Reconstruction, References
from isthmus.proto.vocabulary import Reference

Sizes = tuple[tuple[int, ...], ...]
DOUBT = 0.8
"""Where a delta takes this share of a whole frame's predicted bytes or more, and no more than its inverse, the whole frame is
encoded to compare real sizes: predictions are a few per cent off, a tenth where they are worst."""


class Coder:
    """One stream's encoder."""

    def __init__(self, config: CodecConfig) -> None:
        """Raises CodecError if `config` contradicts itself."""
        # A codec has scratch memory of its own: one for each of the two threads.
        self._predictor, self._codec = FrameCodec(config), FrameCodec(config)
        self._sent = References()

    def sizes(
        self, features: Floats | None, pictures: Sequence[Pixels], reference: Reference | None
    ) -> tuple[Sizes, Sizes]:
        """Payload bytes of a frame whole [step][layer], and of its deltas [step][layers - 1], which are exact.

        There are none of the latter without a reference. Raises CodecError as `FrameCodec.predict` does.
        """
        whole, against = self._predictor.predict(features, pictures), self.held(reference)
        if features is None or against is None:
            return whole, ()
        deltas = self._predictor.delta_bytes(features, against)
        known = [
            tuple(map(len, self._predictor.encode(features, (), step))) if _in_doubt(row, delta) else row
            for step, (row, delta) in enumerate(zip(whole, deltas, strict=False))
        ]
        return (*known, *whole[len(known) :]), deltas

    def whole(self, frame_id: int, features: Floats | None, pictures: Sequence[Pixels], step: int) -> tuple[bytes, ...]:
        """One payload for each layer of a frame. Raises CodecError as `FrameCodec.encode` does."""
        payloads = self._codec.encode(features, pictures, step)
        if features is not None and (reconstruction := self._codec.whole(features, step)) is not None:
            self._sent.keep(frame_id, reconstruction)
        return payloads

    def delta(self, frame_id: int, features: Floats, step: int, layers: int, reference: Reference) -> tuple[bytes, int]:
        """The one payload that stands for so many layers of a frame, coded against another; and the seal of that one.

        Raises DataError where nothing is held of the reference, CodecError as `FrameCodec.delta` does.
        """
        if (against := self.held(reference)) is None:
            raise DataError(f"frame {frame_id}: nothing is held of frame {reference.frame_id}; send it whole")
        delta = self._codec.delta(features, step, layers, against)
        self._sent.keep(frame_id, delta.reconstruction)
        return delta.payload, against.seal

    def held(self, reference: Reference | None) -> Reconstruction | None:
        """What the server has of a frame."""
        sent = None if reference is None else self._sent.of(reference.frame_id)
        return None if sent is None or reference is None else upto(sent, reference.layers)


def _in_doubt(whole: tuple[int, ...], deltas: tuple[int, ...]) -> bool:
    return any(DOUBT * sent <= delta <= sent / DOUBT for sent, delta in zip(accumulate(whole), deltas, strict=True))
