"""Unlabelled pictures on disk, views of them, and the teacher's answers to each view: computed once, read ever after.

View 0 is a picture as the device sees it; every other view is a part of it, perhaps mirrored, fixed by its seed. The
teacher's answers and its late map are kept in the types that its file stores. Whatever is kept is complete: it is made under
another name and renamed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models import pictures
from isthmus.models.pictures import squeezed
from isthmus.models.progress import Report
from isthmus.models.training.tflite_teacher import Stored, Teacher, TeacherTargets

Image = NDArray[np.uint8]
SMALLEST_PART = 0.4
"""The smallest share of a picture's area that a view shows."""
STRETCH = 0.25
"""The largest logarithm of a view's aspect, either way."""
KEPT = 1.5
"""Pictures are kept at up to so many times the teacher's input: the smallest view still has 0.95 of its side."""
REPORT_EVERY = 500
"""The number of pictures from one line of the report to the next."""


def view(picture: Image, size: int, number: int, seed: int) -> Image:
    """View `number` of a picture, (size, size, 3); `seed` is the picture's own."""
    if number == 0:
        return squeezed(picture, size)
    rng = np.random.default_rng((seed, number))
    area, aspect = rng.uniform(SMALLEST_PART, 1.0), float(np.exp(rng.uniform(-STRETCH, STRETCH)))
    (high, wide), shares = picture.shape[:2], ((area * aspect) ** 0.5, (area / aspect) ** 0.5)
    height, width = (max(1, min(n, round(n * share))) for n, share in zip((high, wide), shares, strict=True))
    top, left = int(rng.integers(high - height + 1)), int(rng.integers(wide - width + 1))
    part = picture[top : top + height, left : left + width]
    return squeezed(np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part), size)


class Album:
    """All pictures of a folder or archive, decoded once, at most as large as views need them."""

    def __init__(self, source: Path, size: int, kept_in: Path, report: Report) -> None:
        """`size` is the teacher's, in pixels. Raises DataError when `source` has no picture that can be read."""
        self.fingerprint = pictures.fingerprint(source)
        folder = kept_in / f"album-{self.fingerprint[:12]}-{size}"
        if not folder.is_dir():
            _make(folder, lambda partial: _decode(source, size, partial, report))
        table = np.load(folder / "album.npz")
        self._shapes, self._starts = table["shapes"], table["starts"]
        self._pixels = np.memmap(folder / "album.bin", np.uint8, "r")
        self.folder = folder

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> Image:
        height, width = (int(n) for n in self._shapes[index])
        start = int(self._starts[index])
        flat: Image = self._pixels[start : start + height * width * 3]
        return flat.reshape(height, width, 3)


def _decode(source: Path, size: int, folder: Path, report: Report) -> None:
    shapes, starts, at = [], [], 0
    with (folder / "album.bin").open("wb") as file:
        for picture in pictures.every(source, report):
            kept = _reduced(picture, round(KEPT * size))
            shapes.append(kept.shape[:2])
            starts.append(at)
            at += file.write(kept.tobytes())
    np.savez(folder / "album.npz", shapes=np.array(shapes), starts=np.array(starts))


def _reduced(picture: Image, short_side: int) -> Image:
    """The picture with a shorter side of at most `short_side`."""
    scale = short_side / min(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(n * scale)) for n in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` with what `fill` puts into it; nothing of it is left when that fails."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class Answers:
    """What the teacher answers to every view; kept beside the album."""

    def __init__(self, album: Album, teacher: Teacher, *, seed: int) -> None:
        self.album, self.teacher, self.seed = album, teacher, seed
        named = "-".join(f"{name}{tensor.index}" for name, tensor in teacher.targets.items())
        self._folder = album.folder / f"{teacher.fingerprint[:12]}-{named}-seed{seed}"

    def image(self, index: int, number: int) -> Image:
        """View `number` of picture `index`: (S, S, 3)."""
        return view(self.album[index], self.teacher.size, number, self.seed + index)

    def of_view(self, number: int, report: Report) -> Mapping[str, Stored]:
        """The targets of view `number` by name, (N, ...) as the teacher's file stores them; computed now if they never were."""
        folder = self._folder / f"view{number}"
        if not folder.is_dir():
            _make(folder, lambda partial: self._answer(number, partial, report))
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.teacher.targets}

    def _answer(self, number: int, folder: Path, report: Report) -> None:
        count, targets = len(self.album), TeacherTargets(self.teacher)
        kept = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(t.dtype), (count, *t.shape[1:]))
            for name, t in self.teacher.targets.items()
        }
        for i in range(count):
            values = targets(self.image(i, number))
            for name, array in kept.items():
                array[i] = values[name]
            if i % REPORT_EVERY == REPORT_EVERY - 1:
                report(f"  teacher: view {number}, picture {i + 1} of {count}")
        for array in kept.values():
            array.flush()
