"""How well a detector in training finds what is in frames: average precision of its exit and of the server's answer.

Whatever judges, early stopping above all, judges rounded features. Unrounded and noisy ones are judged beside them only to
see that training and use agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.models.data.clips import BoxedFrames
from isthmus.models.detection.network import Detector, fused
from isthmus.models.detection.rounding import COARSER, coded
from isthmus.models.detection.trainer import normalised
from isthmus.models.training.processors import mixed_precision
from isthmus.proto.tasks.box_score import BoxScore, Judged, scored
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.detection import Detection

BATCH = 16
UNSURE = 0.01
"""Boxes less sure than this change no average precision worth telling."""
MOST = 30
Crossed = Literal["rounded", "noisy", "as they are"]
Maps = NDArray[np.float32]
APART = 0.03
"""By more than this the three must not differ: a tail that learnt from noise lost 0.15 when it was asked rounded."""


@dataclass(frozen=True)
class Heard:
    """What both halves gave for N frames at one width: maps (N, h, w, K + 4)."""

    exit: Maps
    server: Maps


def heard(
    network: Detector,
    images: NDArray[np.uint8],
    width: float,
    step: float,
    *,
    base: bool = True,
    crossed: Crossed = "rounded",
) -> Heard:
    """What exit and server answer to (N, H, W, 3) RGB at `width`, when features cross at `step`."""
    exits, servers = zip(*_heard(network, images, width, step, base, crossed), strict=True)
    return Heard(np.concatenate(exits), np.concatenate(servers))


@torch.no_grad()
def _heard(
    network: Detector, images: NDArray[np.uint8], width: float, step: float, base: bool, crossed: Crossed
) -> Iterator[tuple[Maps, Maps]]:
    network.eval()
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    coarse = step * (COARSER if base else 1)
    for i in range(0, len(images), BATCH):
        with mixed_precision(device):
            z, exit_ = network.head(normalised(images[i : i + BATCH]).to(device), width)
            z = z.float()
            if crossed == "rounded":
                z = coded(z, torch.tensor(step), torch.tensor(base))
            elif crossed == "noisy":
                z = z + coarse * (torch.rand(z.shape, generator=generator).to(z) - 0.5)
            wide, small = network.tail(z)
        yield _map(exit_), _map(fused(wide, small))


def _map(answer: Tensor) -> Maps:
    return answer.float().permute(0, 2, 3, 1).cpu().numpy()


def score(maps: Maps, frames: BoxedFrames) -> BoxScore:
    """Average precision of maps (N, h, w, K + 4) against what is in the frames."""
    return scored(list(judged(maps, frames)), frames.labels)


def judged(maps: Maps, frames: BoxedFrames, boxes: Boxes | None = None) -> Iterator[Judged]:
    """Each frame's truth beside what a map says of it."""
    height, width = frames.images.shape[1:3]
    task = Detection(boxes or Boxes("cells", score=UNSURE, most=MOST), (height, width), classes=len(frames.labels))
    for answer, rows in zip(maps, frames.boxes, strict=True):
        guess = task.guess(task.pack([answer]), temperature=1.0, accuracy=0.0)
        truth = tuple(
            (frames.labels[int(k)], (top, left, bottom, right)) for k, left, top, right, bottom in rows.tolist()
        )
        yield Judged(height, width, truth, guess.detail if isinstance(guess.detail, tuple) else ())


def by_crossing(network: Detector, frames: BoxedFrames, width: float, step: float) -> dict[Crossed, float]:
    """The server's AP50 on features that cross rounded, with noise of a step, and as they are: training and use should agree."""
    return {
        crossed: score(heard(network, frames.images, width, step, crossed=crossed).server, frames).ap50
        for crossed in get_args(Crossed)
    }


class HeldOut:
    """Judges a network by frames of places that it was not trained on: the mean of the narrowest and the full width."""

    def __init__(self, frames: BoxedFrames, widths: Sequence[float], step: float) -> None:
        own = frames.images[::2], frames.boxes[::2], frames.clip[::2], frames.number[::2]
        self._frames = BoxedFrames(*own, frames.names, frames.labels)  # neighbours say the same
        self._widths, self._step = (widths[0], widths[-1]), step

    def __call__(self, network: Detector) -> float:
        """The mean AP50 of exit and server at both widths, of which half is whatever the class: steadier, and as wanted."""
        found = []
        for width in self._widths:
            answers = heard(network, self._frames.images, width, self._step)
            for maps in (answers.exit, answers.server):
                result = score(maps, self._frames)
                found.append((result.ap50 + result.agnostic50) / 2)
        return float(np.mean(found))
