"""Pictures as a detector is trained on them: crops, mosaics, things moved to other skies, and other light. Seeded.

A class is drawn first, then a clip, then a frame: clips are the sample, and frames of one are nearly the same. What a thing
adds to its surroundings is added to another picture's (copy-paste as a difference), for in few clips a scene tells the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.data.clips import BoxedFrames
from isthmus.models.detection.network import CELL

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
MOSAICS = 0.6
"""Share of the pictures that are four crops, each centred on a thing."""
SCALES = (0.77, 1.67)
"""A crop is scaled by between so much, log-uniformly; a whole frame is only ever enlarged."""
SEEN = 0.4
"""A thing of which less than this share is left by a crop is no longer there."""
PASTED = 10
"""At most so many things are pasted into a picture."""
PATCH_SIDES = (4.0, 60.0)
"""Sides of the things that are pasted, in pixels."""
MARGIN = 0.3
"""What is taken along around a box, as a share of its sides: there the difference fades to nothing."""
COMPRESSED, WEBP = 0.16, (".webp", cv2.IMWRITE_WEBP_QUALITY)
"""The share of the pictures that went through a file; a quarter of them as WebP, which takes longest."""
PLAIN = 18.0
"""A border that varies by more than this many levels is no sky: what stands before it is not lifted off."""


@dataclass(frozen=True)
class Patch:
    """What a thing adds to its background: (h, w, 3) levels, zero at the edge; and its box in the patch."""

    label: int
    difference: Floats
    box: Floats


class Views:
    """Endless varied pictures of a set of frames; the caller's generator decides."""

    def __init__(self, frames: BoxedFrames) -> None:
        self._frames = frames
        self._shape: tuple[int, int] = (frames.images.shape[1], frames.images.shape[2])
        self._by_class: list[list[NDArray[np.int64]]] = [
            [found for clip in range(len(frames.names)) if len(found := self._showing(clip, label))]
            for label in range(len(frames.labels))
        ]
        self._classes = [label for label, clips in enumerate(self._by_class) if clips]
        self._patches = _patches(frames)

    def _showing(self, clip: int, label: int) -> NDArray[np.int64]:
        own = np.flatnonzero(self._frames.clip == clip)
        return np.array([i for i in own if (self._frames.boxes[i][:, 0] == label).any()], np.int64)

    def picture(self, rng: np.random.Generator) -> tuple[Bytes, Floats]:
        """One varied picture (H, W, 3) and its boxes (M, 5)."""
        image, boxes = self._mosaic(rng) if rng.random() < MOSAICS else self._whole(rng)
        if rng.random() < 0.5:
            image = cv2.flip(image, 1).astype(np.uint8, copy=False)
            boxes[:, [1, 3]] = self._shape[1] - boxes[:, [3, 1]]
        image, boxes = self._pasted(image, boxes, rng)
        return _other_light(image, rng), boxes

    def _drawn(self, rng: np.random.Generator) -> tuple[int, Floats]:
        """A frame, by class and clip, and the box of one thing of that class."""
        label = self._classes[rng.integers(len(self._classes))]
        clips = self._by_class[label]
        frames = clips[rng.integers(len(clips))]
        index = int(frames[rng.integers(len(frames))])
        own = self._frames.boxes[index]
        own = own[own[:, 0] == label]
        return index, own[rng.integers(len(own))]

    def _mosaic(self, rng: np.random.Generator) -> tuple[Bytes, Floats]:
        height, width = self._shape
        image = np.empty((height, width, 3), np.uint8)
        boxes = []
        for top in (0, height // 2):
            for left in (0, width // 2):
                index, box = self._drawn(rng)
                crop, found = self._crop(index, box, (height // 2, width // 2), _scale(rng, *SCALES), rng)
                image[top : top + height // 2, left : left + width // 2] = crop
                found[:, 1::2] += left
                found[:, 2::2] += top
                boxes.append(found)
        return image, np.concatenate(boxes)

    def _whole(self, rng: np.random.Generator) -> tuple[Bytes, Floats]:
        index, box = self._drawn(rng)
        return self._crop(index, box, self._shape, _scale(rng, 1.0, SCALES[1]), rng)

    def _crop(
        self, index: int, box: Floats, into: tuple[int, int], scale: float, rng: np.random.Generator
    ) -> tuple[Bytes, Floats]:
        """A part of a frame with `box` somewhere in it, scaled to `into`; a large thing is not enlarged beyond it."""
        (height, width), (rows, columns) = self._shape, into
        scale = min(scale, 0.9 * columns / max(box[3] - box[1], 1), 0.9 * rows / max(box[4] - box[2], 1))
        scale = max(scale, rows / height, columns / width)
        tall, wide = rows / scale, columns / scale
        room = 0.35 * np.array([wide, tall])
        centre = np.array([box[1] + box[3], box[2] + box[4]]) / 2 + rng.uniform(-room, room)
        left, top = np.clip(centre - [wide / 2, tall / 2], 0, [width - wide, height - tall])
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], np.float32)
        how = cv2.INTER_LINEAR if scale >= 1 else cv2.INTER_AREA
        if scale < 1:
            part = self._frames.images[index][int(top) : round(top + tall), int(left) : round(left + wide)]
            crop = cv2.resize(part, (columns, rows), interpolation=how)
        else:
            crop = cv2.warpAffine(
                self._frames.images[index], matrix, (columns, rows), flags=how, borderMode=cv2.BORDER_REPLICATE
            )
        found = self._frames.boxes[index].copy()
        found[:, 1::2] = (found[:, 1::2] - left) * scale
        found[:, 2::2] = (found[:, 2::2] - top) * scale
        return np.asarray(crop, np.uint8), _within(found, rows, columns)

    def _pasted(self, image: Bytes, boxes: Floats, rng: np.random.Generator) -> tuple[Bytes, Floats]:
        """Things of other clips added where nothing is."""
        if not self._patches:
            return image, boxes
        placed = [boxes]
        for _ in range(rng.integers(0, PASTED + 1)):
            group = self._patches[rng.integers(len(self._patches))]
            patch = group[rng.integers(len(group))]
            scale = _scale(rng, 0.6, 1.4)
            difference = cv2.resize(patch.difference, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            tall, wide = difference.shape[:2]
            if tall >= image.shape[0] or wide >= image.shape[1] or min(tall, wide) < 3:
                continue
            if rng.random() < 0.5:
                difference = difference[:, ::-1]
                box = np.array(
                    [
                        wide - patch.box[2] * scale,
                        patch.box[1] * scale,
                        wide - patch.box[0] * scale,
                        patch.box[3] * scale,
                    ]
                )
            else:
                box = patch.box * scale
            top, left = int(rng.integers(image.shape[0] - tall)), int(rng.integers(image.shape[1] - wide))
            row = np.array([[patch.label, box[0] + left, box[1] + top, box[2] + left, box[3] + top]], np.float32)
            if _touches(row[0], np.concatenate(placed)):
                continue
            under = image[top : top + tall, left : left + wide]
            under[:] = np.clip(under + difference * np.float32(rng.uniform(0.75, 1.25)), 0, 255)
            placed.append(row)
        return image, np.concatenate(placed)


def _scale(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _within(boxes: Floats, rows: int, columns: int) -> Floats:
    """What is left of boxes by a crop."""
    before = np.prod(boxes[:, 3:] - boxes[:, 1:3], axis=1)
    boxes[:, 1::2], boxes[:, 2::2] = boxes[:, 1::2].clip(0, columns), boxes[:, 2::2].clip(0, rows)
    left = np.prod(boxes[:, 3:] - boxes[:, 1:3], axis=1)
    return boxes[(left > SEEN * before) & (left > 4)]


def _touches(row: Floats, boxes: Floats) -> bool:
    apart = (row[3] < boxes[:, 1]) | (row[1] > boxes[:, 3]) | (row[4] < boxes[:, 2]) | (row[2] > boxes[:, 4])
    return bool((~apart).any())


def _patches(frames: BoxedFrames) -> list[list[Patch]]:
    """Things before plain backgrounds, by class, in every other frame."""
    found: dict[int, list[Patch]] = {}
    for image, boxes in zip(frames.images[::2], frames.boxes[::2], strict=True):
        for row in boxes:
            sides = row[3:] - row[1:3]
            if PATCH_SIDES[0] <= sides.min() and sides.max() <= PATCH_SIDES[1]:
                patch = _lifted(image, row)
                if patch is not None:
                    found.setdefault(patch.label, []).append(patch)
    return list(found.values())


def _lifted(image: Bytes, row: Floats) -> Patch | None:
    sides = row[3:] - row[1:3]
    left, top = np.floor(row[1:3] - MARGIN * sides).astype(int)
    right, bottom = np.ceil(row[3:] + MARGIN * sides).astype(int)
    if min(left, top) < 0 or right > image.shape[1] or bottom > image.shape[0]:
        return None
    part = image[top:bottom, left:right].astype(np.float32)
    border = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    if border.std(0).max() > PLAIN:
        return None
    fade = np.minimum.outer(_ramp(bottom - top), _ramp(right - left))[..., None]
    difference = (part - border.mean(0)) * fade
    return Patch(int(row[0]), difference.astype(np.float32), row[1:] - np.array([left, top, left, top], np.float32))


def _ramp(n: int) -> Floats:
    """0 at both ends, 1 over the middle."""
    distance = np.minimum(np.arange(n), np.arange(n)[::-1]) / max(1.0, n * MARGIN / (1 + 2 * MARGIN) * 0.8)
    return np.minimum(distance, 1).astype(np.float32)


def _other_light(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Another exposure, colour, sharpness and compression."""
    levels = np.arange(256, dtype=np.float32) / 255
    gamma, contrast, brightness = _scale(rng, 0.7, 1.45), rng.uniform(0.75, 1.25), rng.uniform(-0.12, 0.12)
    gains = rng.uniform(0.92, 1.08, 3)
    curve = (levels**gamma - 0.5) * contrast + 0.5 + brightness
    table = np.clip(255 * curve[:, None] * gains, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table.reshape(256, 1, 3)).astype(np.uint8, copy=False)
    if rng.random() < 0.12:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1)).astype(np.uint8, copy=False)
    elif rng.random() < 0.1:
        image = _moved(image, rng)
    kind = rng.random()
    if kind < COMPRESSED:
        suffix, flag = (".jpg", cv2.IMWRITE_JPEG_QUALITY) if kind < 0.75 * COMPRESSED else WEBP
        coded = cv2.imencode(suffix, image, [flag, int(rng.integers(10, 91))])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    if rng.random() < 0.3:
        image = cv2.add(image, _grain(image.shape, rng.uniform(1, 6), rng), dtype=cv2.CV_8U).astype(
            np.uint8, copy=False
        )
    return image


@cache
def _grains() -> NDArray[np.int16]:
    """Normal noise of 32 levels, to be cut from at random: drawing it anew takes as long as all the rest."""
    return np.random.default_rng(0).normal(0, 32, 1 << 20).astype(np.int16)


def _grain(shape: tuple[int, ...], levels: float, rng: np.random.Generator) -> NDArray[np.int16]:
    size = int(np.prod(shape))
    begin = int(rng.integers(len(_grains()) - size))
    return (_grains()[begin : begin + size].reshape(shape) * np.float32(levels / 32)).astype(np.int16)


def _moved(image: Bytes, rng: np.random.Generator) -> Bytes:
    """A blur of two to four pixels along one of the axes."""
    n = int(rng.integers(2, 5))
    size = (n, 1) if rng.random() < 0.5 else (1, n)
    return cv2.blur(image, size).astype(np.uint8, copy=False)


NEAR, SHARE = 1.5, 0.18
"""Cells within so many of a thing's centre, or this share of its longer side, answer for it where they lie in its box."""


def targets(boxes: Floats, cells: tuple[int, int]) -> tuple[NDArray[np.int64], Floats]:
    """What each cell should answer: its class (rows, columns), -1 for nothing, and its box (4, rows, columns) in cells.

    A smaller thing takes the cells that a larger one would have too; every thing has its own cell at least.
    """
    rows, columns = cells
    label, place = np.full(cells, -1, np.int64), np.zeros((4, *cells), np.float32)
    y, x = np.mgrid[:rows, :columns] + 0.5
    for row in sorted(boxes, key=lambda r: -(r[3] - r[1]) * (r[4] - r[2])):
        left, top, right, bottom = row[1:] / CELL
        cx, cy = (left + right) / 2, (top + bottom) / 2
        near = max(NEAR, SHARE * max(right - left, bottom - top))
        own = (np.abs(x - cx) <= near) & (np.abs(y - cy) <= near) & (x > left) & (x < right) & (y > top) & (y < bottom)
        own[min(rows - 1, int(cy)), min(columns - 1, int(cx))] = True
        label[own] = int(row[0])
        place[:, own] = np.array([[left], [top], [right], [bottom]])
    return label, place
