"""The similar-frame gate: a picture that is the last answered one over again gets that answer over again, for a while.

Sans-IO. A picture is compared by its sketch with that of the picture that the kept answer is of, never with the frame
before, so that slow changes add up; an answer is repeated only up to an age, so that nothing goes stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from isthmus.proto.vocabulary import Answer, AnswerSource, Frame, Guess, Reason, Timings

ROWS, COLUMNS = 18, 32
SAMPLES = 4
"""A cell is the mean of at least so many pixels squared, where the picture has them: enough to average its noise away."""

Sketch = NDArray[np.float32]


def sketched(pixels: NDArray[Any]) -> Sketch:
    """The grey levels of a picture (H, W, 3) RGB, uint8 or floats of the same scale, in (18, 32) cells."""
    height, width = pixels.shape[:2]
    stride = max(1, min(height // (ROWS * SAMPLES), width // (COLUMNS * SAMPLES)))
    few = pixels[::stride, ::stride].astype(np.float32)
    cells = cv2.resize(few, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    grey: Sketch = np.asarray(cells, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
    return grey


def change(one: Sketch, other: Sketch) -> float:
    """The largest change of any cell in grey levels, over and above what most cells share: light, exposure."""
    moved = one - other
    return float(np.abs(moved - np.median(moved)).max())


@dataclass(frozen=True)
class Kept:
    """An answer, and the picture that it is of."""

    sketch: Sketch
    captured_s: float
    answer: Answer
    local: Guess | None
    """What the device's last early exit said of that picture."""

    def over_again(self, frame: Frame, *, now: float) -> Answer:
        """The same answer to another frame, saying how old it is."""
        return replace(
            self.answer,
            frame_id=frame.id,
            source=AnswerSource.REPEAT,
            reason=Reason.UNCHANGED,
            point=None,
            answered_s=now,
            latency_s=now - frame.captured_s,
            on_time=now <= frame.deadline_s,
            bytes_up=0,
            server=None,
            timings=Timings(wait_s=now - frame.captured_s),
            age_s=frame.captured_s - self.captured_s,
        )


class Gate:
    """Keeps the newest answer that is of a picture of its own."""

    def __init__(self, threshold: float, max_age_s: float) -> None:
        """Pictures that change by less than `threshold` grey levels are the same; `max_age_s` bounds an answer's age."""
        self._threshold, self._max_age_s = threshold, max_age_s
        self._kept: Kept | None = None

    def keep(self, kept: Kept) -> None:
        """A picture was answered for itself."""
        if self._kept is None or self._kept.captured_s <= kept.captured_s:
            self._kept = kept

    def repeated(self, sketch: Sketch, *, now: float) -> Kept | None:
        """The answer that holds for a picture captured `now` as well; None when it must be answered for itself."""
        kept = self._kept
        if kept is None or now - kept.captured_s > self._max_age_s or change(sketch, kept.sketch) >= self._threshold:
            return None
        return kept
