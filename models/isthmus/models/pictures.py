"""Pictures on their way into a network: from a folder or a zip archive, and as a stage takes them; where real data is found."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Input
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Box

BORDER = 114
"""The grey around a letterboxed picture, as the YOLO family is trained with."""
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def data_root() -> Path:
    """The folder of real data: `ISTHMUS_DATA`, else `~/.cache/isthmus`.

    Raises DataError when neither is there.
    """
    named = os.environ.get("ISTHMUS_DATA")
    root = Path(named) if named else Path("~/.cache/isthmus").expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set ISTHMUS_DATA to the folder that holds cifar10/")
    return root


def samples(path: Path, most: int) -> list[NDArray[np.uint8]]:
    """At most `most` pictures (H, W, 3) RGB, spread evenly over a folder (and those below it) or a zip archive.

    Raises DataError when there is none, or one that cannot be read.
    """
    names = _some_names(path)
    chosen = [names[i * len(names) // most] for i in range(most)] if len(names) > most else names
    return [_decoded(path, name, raw) for name, raw in _read(path, chosen)]


def read_picture(file: Path) -> NDArray[np.uint8]:
    """A picture on disk: (H, W, 3) RGB. Raises DataError when it is missing or cannot be read."""
    try:
        return _decoded(file.parent, file.name, file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error


def every(path: Path, report: Callable[[str], None]) -> Iterator[NDArray[np.uint8]]:
    """All pictures (H, W, 3) RGB of a folder or archive, by name; one that cannot be read is reported and left out.

    Raises DataError when there is none.
    """
    found = 0
    for name, raw in _read(path, _some_names(path)):
        try:
            picture = _decoded(path, name, raw)
        except DataError as error:
            report(f"left out: {error}")
            continue
        found += 1
        yield picture
    if not found:
        raise DataError(f"{path}: none of its pictures can be read")


def fingerprint(path: Path) -> str:
    """Of a folder or archive: another one when a picture was added, left out, renamed or changed in size."""
    names = _some_names(path)
    if path.is_dir():
        sizes = {name: (path / name).stat().st_size for name in names}
    else:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    return hashlib.sha256("\n".join(f"{name} {sizes[name]}" for name in names).encode()).hexdigest()


def _some_names(path: Path) -> list[str]:
    names = _names(path)
    if not names:
        raise DataError(f"{path}: no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")
    return names


class Placing(NamedTuple):
    """Where a whole picture lies within the one that a network takes, in shares of the latter."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0

    @classmethod
    def of(cls, shape: tuple[int, ...], into: tuple[int, int], fit: str) -> Placing:
        """For a picture of (height, width, …) pixels that is fitted into (height, width)."""
        if fit == "stretch":
            return cls()
        height, width = _inside(shape, into)
        top, left = (into[0] - height) // 2, (into[1] - width) // 2
        return cls(top / into[0], left / into[1], height / into[0], width / into[1])

    def back(self, box: Box) -> Box:
        """A box in shares of the network's picture, in shares of the whole one; cut off at its edges."""
        top, bottom = ((edge - self.top) / self.height for edge in (box.top, box.bottom))
        left, right = ((edge - self.left) / self.width for edge in (box.left, box.right))
        cut = (min(max(edge, 0.0), 1.0) for edge in (top, left, bottom, right))
        return Box(box.label, box.score, *cut)


def _inside(shape: tuple[int, ...], into: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture scaled as large as it fits into another."""
    scale = min(into[0] / shape[0], into[1] / shape[1])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def resized(pixels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """(H, W, 3) pixels at (height, width): by area where they shrink, linearly where they grow."""
    if pixels.shape[:2] == shape:
        return pixels
    how = cv2.INTER_AREA if pixels.shape[0] > shape[0] else cv2.INTER_LINEAR
    return cv2.resize(pixels, shape[::-1], interpolation=how)


def fitted(pixels: NDArray[Any], into: tuple[int, int], fit: str) -> NDArray[Any]:
    """(H, W, 3) pixels as a picture of (height, width): stretched, or whole in the middle of grey."""
    if fit == "stretch" or pixels.shape[:2] == into:
        return resized(pixels, into)
    small = resized(pixels, _inside(pixels.shape, into))
    whole = np.full((*into, 3), BORDER, pixels.dtype)
    top, left = (into[0] - small.shape[0]) // 2, (into[1] - small.shape[1]) // 2
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole


def sendable(pixels: NDArray[Any], picture: Input) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels, uint8 or floats of the same scale, as the picture that crosses: uint8, of the size of `picture`."""
    small = fitted(pixels, picture.shape, picture.fit)
    return np.ascontiguousarray(small if small.dtype == np.uint8 else np.clip(np.rint(small), 0, 255).astype(np.uint8))


class Intake:
    """Pictures as a stage takes them: of its size, colours and layout, its scale and its offset."""

    def __init__(self, picture: Input) -> None:
        self._picture = picture
        std = np.asarray(picture.std, np.float32)
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._offset = (np.asarray(picture.mean, np.float32) / std).astype(np.float32)
        values = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
        self._table = self._normalised(values)  # the same floats, looked up: five times quicker

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W, 3) RGB, uint8 or floats of the same scale, as a batch of one of what the stage takes."""
        picture = self._picture
        pixels = fitted(pixels, picture.shape, picture.fit)
        if picture.colours == "grey":
            pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        x = cv2.LUT(pixels, self._table) if pixels.dtype == np.uint8 else self._normalised(pixels)
        if picture.colours != "rgb":
            x = x[:, :, :1] if picture.colours == "grey" else x[:, :, ::-1]
        if picture.layout == "first":
            x = np.ascontiguousarray(np.moveaxis(x, 2, 0))
        return np.asarray(x, np.float32)[None]

    def _normalised(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        x: NDArray[np.float32] = np.multiply(pixels, self._scale, dtype=np.float32)
        x -= self._offset
        return x


def _names(path: Path) -> list[str]:
    if path.is_dir():
        found = [str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    else:
        raise DataError(f"{path}: neither a folder of pictures nor a zip archive of them")
    return sorted(name for name in found if Path(name).suffix.lower() in SUFFIXES)


def _read(path: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from ((name, (path / name).read_bytes()) for name in names)
        return
    with zipfile.ZipFile(path) as archive:
        yield from ((name, archive.read(name)) for name in names)


def _decoded(path: Path, name: str, raw: bytes) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(raw or b"\0", np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DataError(f"{path}: {name}: not a picture that OpenCV can read")
    rgb: NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return rgb
