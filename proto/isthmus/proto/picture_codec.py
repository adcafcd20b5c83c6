"""A picture to bytes and back: the other thing that can cross. Pure but for OpenCV's coders, which keep no state.

OpenCV is imported by who needs it: it takes 16 MB of memory, and many a server never sees a picture.

A payload is a picture's file behind the header that features have, so that whoever receives it knows by its first byte
what it holds. Sizes are predicted from how much neighbouring pixels differ; nothing is encoded to find out a size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import CodecError

Pixels = NDArray[np.uint8]
Format = Literal["webp", "jpeg"]
Coefficients = tuple[float, float, float]
CODERS: dict[Format, tuple[str, int]] = {"webp": (".webp", 64), "jpeg": (".jpg", 1)}
"""What OpenCV is told: a file's ending, and its IMWRITE_WEBP_QUALITY or IMWRITE_JPEG_QUALITY."""
BYTES_A_PIXEL = 3
"""No coder needs more for an 8-bit picture, its container aside."""
CONTAINER_BYTES = 1024
FRAME_MARKERS = frozenset({0xC0, 0xC1, 0xC2})
"""Of a JPEG: baseline, extended and progressive frames; they tell the picture's size."""


@dataclass(frozen=True)
class PictureConfig:
    """What both halves must know of pictures that cross; ships with the bundle."""

    height: int
    width: int
    format: Format
    qualities: tuple[int, ...]
    """The coder's own, finest first."""
    size_fit: tuple[Coefficients, ...]
    """[quality]: (a, b, c) of log2(bytes) = a + b u + c u^2 with u = log2(mean difference of neighbours)."""

    @property
    def max_bytes(self) -> int:
        """The largest file."""
        return self.height * self.width * BYTES_A_PIXEL + CONTAINER_BYTES


def load() -> None:
    """Import what encodes and decodes now, and not when the first picture waits for it."""
    import cv2  # noqa: F401


def encode(pixels: Pixels, config: PictureConfig, quality: int) -> bytes:
    """The file of (H, W, 3) RGB pixels; `quality` indexes the ladder. Raises CodecError on another shape or type."""
    import cv2

    _check(pixels, config)
    suffix, key = CODERS[config.format]
    return cv2.imencode(suffix, pixels[:, :, ::-1], [key, config.qualities[quality]])[1].tobytes()


def decode(file: bytes, config: PictureConfig) -> Pixels:
    """(H, W, 3) RGB pixels. Raises CodecError unless it is a picture of the config's format and size.

    The size is read from the file's header before anything is decoded: a small file can claim a huge picture.
    """
    import cv2

    size = webp_size(file) if config.format == "webp" else jpeg_size(file)
    if size != (config.height, config.width):
        found = "no picture" if size is None else f"a picture of {size[0]} x {size[1]} pixels"
        raise CodecError(f"{found}, expected {config.format} of {config.height} x {config.width}")
    try:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise CodecError(f"a {config.format} that OpenCV refuses ({error.err})") from error
    if pixels is None or pixels.shape != (config.height, config.width, 3):
        raise CodecError(f"a {config.format} that is damaged")
    return np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint8, copy=False)


def predicted_bytes(pixels: Pixels, config: PictureConfig) -> tuple[int, ...]:
    """By quality, the bytes that `encode` is likely to give. Raises CodecError on another shape or type."""
    _check(pixels, config)
    u = level(pixels)
    return tuple(min(config.max_bytes, round(2 ** (a + u * (b + u * c)))) for a, b, c in config.size_fit)


def fit(pictures: Sequence[Pixels], format_: Format, qualities: Sequence[int]) -> PictureConfig:
    """Learn to predict sizes from sample pictures, all of one shape (H, W, 3): least squares of log2 of real sizes."""
    height, width = pictures[0].shape[:2]
    config = PictureConfig(height, width, format_, tuple(qualities), ((0.0, 0.0, 0.0),) * len(qualities))
    u = np.array([level(picture) for picture in pictures])
    terms = np.stack([np.ones_like(u), u, u * u], axis=1) if len(pictures) > 3 else np.ones((len(u), 1))
    fits = []
    for quality in range(len(qualities)):
        sizes = np.log2([len(encode(picture, config, quality)) for picture in pictures])
        found, *_ = np.linalg.lstsq(terms, sizes, rcond=None)
        fits.append((*map(float, found), *(0.0,) * (3 - len(found))))
    return PictureConfig(height, width, format_, tuple(qualities), tuple(fits))  # type: ignore[arg-type]


def level(pixels: Pixels) -> float:
    """log2 of the mean absolute difference of neighbouring pixels' green, in grey levels; of a flat picture -5."""
    green = pixels[:, :, 1].astype(np.int16)
    across, down = np.abs(np.diff(green, axis=1)).mean(), np.abs(np.diff(green, axis=0)).mean()
    return math.log2(max(float(across + down), 2**-5))


def webp_size(file: bytes) -> tuple[int, int] | None:
    """(height, width) of a lossy WebP file, from its header; None where it is none (RFC 6386, section 9.1; RFC 9649)."""
    if len(file) < 30 or file[:4] != b"RIFF" or file[8:16] != b"WEBPVP8 " or file[23:26] != b"\x9d\x01\x2a":
        return None
    width, height = int.from_bytes(file[26:28], "little"), int.from_bytes(file[28:30], "little")
    return height & 0x3FFF, width & 0x3FFF


def jpeg_size(file: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file, from its frame header; None where there is none (ITU T.81, annex B)."""
    at = 2
    while file[:2] == b"\xff\xd8" and at + 9 <= len(file) and file[at] == 0xFF:
        if file[at + 1] in FRAME_MARKERS:
            return int.from_bytes(file[at + 5 : at + 7], "big"), int.from_bytes(file[at + 7 : at + 9], "big")
        at += 2 + max(2, int.from_bytes(file[at + 2 : at + 4], "big"))
    return None


def _check(pixels: NDArray[Any], config: PictureConfig) -> None:
    if pixels.shape != (config.height, config.width, 3) or pixels.dtype != np.uint8:
        raise CodecError(
            f"picture: {pixels.shape} {pixels.dtype}, expected ({config.height}, {config.width}, 3) uint8 RGB"
        )
