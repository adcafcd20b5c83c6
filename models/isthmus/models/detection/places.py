"""Which clips are held out to judge a training by: whole places, so that no background is known from the training. Pure.

Clips of one camera standing still show one place; an object before a background that was trained on is found too easily,
and its class told by the background. Places are told apart by what of a picture is neither sky nor gradient.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.data.clips import BoxedFrames
from isthmus.proto.errors import DataError

THUMBNAIL = (80, 64)
"""Width and height of what is compared."""
BLUR = 4.0
"""What is smoother than this many pixels of a thumbnail is taken for sky."""
ALIKE = 0.45
"""The correlation from which two thumbnails show one place; skies without anything in them stay below."""
LOOKS = 3
"""Frames of a clip that are compared: the first, the middle and the last."""
SHARE, MOST = 0.2, 3
"""Of a class's clips so large a share is held out, and no more than this if whole places allow; one at least."""


def places(frames: BoxedFrames) -> NDArray[np.int64]:
    """(C,) the place of each clip, as the lowest clip's number that shows it."""
    count = len(frames.names)
    looks = np.stack([_looks(frames, clip) for clip in range(count)])  # (C, LOOKS, pixels)
    alike = np.einsum("alp,bmp->abml", looks, looks, optimize=True).max((2, 3)) > ALIKE
    place = np.arange(count)
    for a in range(count):
        for b in np.flatnonzero(alike[a]):
            low, high = sorted((place[a], place[b]))
            place[place == high] = low
    return place


def _looks(frames: BoxedFrames, clip: int) -> NDArray[np.float32]:
    own = np.flatnonzero(frames.clip == clip)
    chosen = own[np.linspace(0, len(own) - 1, LOOKS).round().astype(int)]
    return np.stack([_thumbnail(frames.images[i]) for i in chosen])


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(pixels,) of norm 1: what is left of a small grey picture when its smooth part is taken away."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), THUMBNAIL, interpolation=cv2.INTER_AREA)
    rough = grey.astype(np.float32)
    rough -= cv2.GaussianBlur(rough, (0, 0), BLUR)
    rough -= rough.mean()
    return np.asarray(rough.ravel() / max(float(np.linalg.norm(rough)), 1e-6), np.float32)


def held_out(frames: BoxedFrames, place: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(C,) the clips that judge: for each class, the rarest first, the smallest places that show it.

    Raises DataError when a class is seen at one place only: nothing could be said of it elsewhere.
    """
    shows = _classes_by_clip(frames)  # (C, K)
    chosen = np.zeros(len(place), bool)
    sizes = np.bincount(place, minlength=len(place))
    for k in np.argsort(shows.sum(0), kind="stable"):
        own = shows[:, k]
        if len(set(place[own])) < 2:
            raise DataError(
                f"{frames.labels[k]}: seen at one place only ({frames.names[int(np.argmax(own))]}); film it at another too"
            )
        wanted = max(1, min(MOST, round(SHARE * np.count_nonzero(own))))
        for candidate in sorted(set(place[own]), key=lambda p: (sizes[p], -p)):
            if np.count_nonzero(chosen & own) >= wanted:
                break
            if _leaves_some(shows, chosen | (place == candidate)):
                chosen |= place == candidate
    return chosen


def _leaves_some(shows: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> bool:
    """Whether every class is still trained on."""
    return bool(shows[~chosen].any(0).all())


def _classes_by_clip(frames: BoxedFrames) -> NDArray[np.bool_]:
    shows = np.zeros((len(frames.names), len(frames.labels)), bool)
    for clip, boxes in zip(frames.clip, frames.boxes, strict=True):
        shows[clip, boxes[:, 0].astype(int)] = True
    return shows
