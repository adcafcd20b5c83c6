"""What the demo's frames show, once more: generated scenes, or the shipped clips with their boxes; by the number of the frame.

The agent's own source gives the same frames in the same order, so that an answer is shown on the frame that it is of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.device.capture.sources.clips import FOLDER, Clips, shipped
from isthmus.device.output import drawing
from isthmus.emulation.sequences.rows import found
from isthmus.models.data import clips
from isthmus.models.scenes import Drive
from isthmus.proto.record import FrameRecord
from isthmus.proto.tasks import box_score
from isthmus.proto.vocabulary import Answer, Box, Guess

Pixels = NDArray[np.uint8]
RECENT = 64
"""Pictures that are kept: answers come a little out of order, and not long after their frames."""
SHOWN = 6
"""Pictures of the report, from all over the run."""


class Footage(Protocol):
    """The frames of a run."""

    def picture(self, frame_id: int) -> Pixels | None:
        """A frame, RGB; None where it is no longer at hand. Cheapest in ascending order."""

    def judged(self, answer: FrameRecord) -> FrameRecord:
        """An answer with what is known of its frame."""


class Scenes:
    """The generated video: the same seed gives the same frames."""

    def __init__(self, seed: int, fps: float) -> None:
        self._drive = Drive(seed, fps)

    def picture(self, frame_id: int) -> Pixels | None:
        """See `Footage`."""
        return self._drive.frame(frame_id).image

    def judged(self, answer: FrameRecord) -> FrameRecord:
        """See `Footage`: its agent knows the truth already."""
        return answer


class ShippedClips:
    """The clips of the source `clips:N`."""

    def __init__(self, first: int, labels: Sequence[str]) -> None:
        self._source, self._next, self._labels = Clips(first), 0, tuple(labels)
        self._pictures: OrderedDict[int, Pixels] = OrderedDict()

    def picture(self, frame_id: int) -> Pixels | None:
        """See `Footage`."""
        while self._next <= frame_id:
            pixels = self._source.read().pixels
            if pixels is not None:
                self._pictures[self._next] = np.asarray(pixels, np.uint8)
            self._next += 1
            if len(self._pictures) > RECENT:
                self._pictures.popitem(last=False)
        return self._pictures.get(frame_id)

    def judged(self, answer: FrameRecord) -> FrameRecord:
        """See `Footage`: whether what is in the frame was found."""
        truth = self.truth(answer)
        return msgspec.structs.replace(
            answer,
            truth=truth[0].label if truth else None,
            things=truth,
            found=answer.label is not None and found(answer.boxes or (), truth),
        )

    def truth(self, answer: FrameRecord) -> tuple[Box, ...]:
        """What is in an answer's frame, by the name that its source gave it."""
        name, _, number = (answer.picture or "").rpartition(" #")
        named = self._clips[name].boxes.get(int(number) - 1, ())
        height, width = self._size
        return tuple(
            Box(self._labels.index(label), 1.0, top / height, left / width, bottom / height, right / width)
            for label, (top, left, bottom, right) in named
        )

    def ap50(self, answers: Sequence[FrameRecord], alone: dict[int, Guess]) -> tuple[float, float]:
        """AP50 of the answers that were on time, and of what the device alone would have said of the same frames."""
        truths = [self.truth(answer) for answer in answers]
        said = [(answer.boxes or ()) if answer.on_time else () for answer in answers]
        local = [
            guess.detail if (guess := alone.get(a.frame_id)) and isinstance(guess.detail, tuple) else ()
            for a in answers
        ]
        return box_score.ap50(truths, said), box_score.ap50(truths, local)

    @cached_property
    def _clips(self) -> dict[str, clips.Clip]:
        return {clip.file.name: clip for clip in clips.clips(FOLDER)}

    @cached_property
    def _size(self) -> tuple[int, int]:
        """(height, width) of the clips, which all have the same."""
        video = cv2.VideoCapture(str(shipped()[0]))
        size = int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(video.get(cv2.CAP_PROP_FRAME_WIDTH))
        video.release()
        return size


def on_pictures(footage: ShippedClips, answers: Sequence[FrameRecord], labels: Sequence[str]) -> list[bytes]:
    """Some answers of a run drawn on the frames that they are of, as JPEG; `footage` must not have been read yet."""
    chosen = {answers[len(answers) * i // SHOWN].frame_id for i in range(SHOWN)} if answers else set()
    drawn = []
    for answer in sorted((a for a in answers if a.frame_id in chosen), key=lambda a: a.frame_id):
        pixels = footage.picture(answer.frame_id)
        if pixels is not None:
            picture = drawing.drawn(pixels, _answer(answer), labels)
            drawn.append(cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    return drawn


def _answer(row: FrameRecord) -> Answer:
    return Answer(
        frame_id=row.frame_id,
        label=row.label,
        confidence=row.confidence,
        source=row.source,
        reason=row.reason,
        point=None,
        answered_s=row.answered_s,
        latency_s=row.latency_s,
        on_time=row.on_time,
        bytes_up=row.bytes_up,
        detail=row.boxes,
        age_s=row.age_s,
    )
