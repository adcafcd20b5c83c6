"""An answered picture as people see it: with its answer drawn on it, and as JPEG. Pure but for OpenCV, which keeps no state."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from isthmus.device.output.drawing import Pixels, drawn
from isthmus.device.output.sinks import AnsweredPicture

QUALITY = 80
"""Of a JPEG: words on it stay sharp, and a picture of a camera takes some 50 kB."""


def with_answer(answered: AnsweredPicture, labels: Sequence[str]) -> Pixels | None:
    """The picture with its answer drawn on it; None where there is no picture."""
    if answered.pixels is None:
        return None
    return drawn(answered.pixels.astype(np.uint8, copy=False), answered.answer, labels)


def jpeg(pixels: Pixels) -> bytes:
    """The file of (H, W, 3) RGB."""
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def from_jpeg(file: bytes) -> Pixels:
    """(H, W, 3) RGB of a file that `jpeg` made."""
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
