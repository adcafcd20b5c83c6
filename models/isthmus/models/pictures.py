"""Pictures on their way into a network: from a folder or a zip archive, and as a stage takes them; where real data is found.

OpenCV is imported by what needs it, as in `proto.picture_codec`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.picture_ladder import Input
from isthmus.models.progress import Report
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Placing

BORDER = 114
"""The grey around a letterboxed picture, as the YOLO family is trained with."""
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MOST_BYTES = 1 << 28
"""Of a picture's file, in a folder or unpacked from an archive: more would be no picture, or a bomb."""


def is_picture(name: str | PurePath) -> bool:
    """Whether a file of this name is taken for a picture; what macOS puts beside each (`__MACOSX/._NAME`) is none."""
    path = PurePath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._") and "__MACOSX" not in path.parts


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
    """Read at most `most` pictures (H, W, 3) RGB, spread evenly over a folder (and those below it) or a zip archive.

    Raises DataError when there is none, or one that cannot be read.
    """
    names = _some_names(path)
    chosen = [names[i * len(names) // most] for i in range(most)] if len(names) > most else names
    with _reader(path) as read:
        return [_decoded(path, name, read(name)) for name in chosen]


def read_picture(file: Path) -> NDArray[np.uint8]:
    """A picture on disk: (H, W, 3) RGB. Raises DataError when it is missing or cannot be read."""
    try:
        return _decoded(file.parent, file.name, file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error


def every(path: Path, report: Report) -> Iterator[NDArray[np.uint8]]:
    """Read all pictures (H, W, 3) RGB of a folder or archive, by name; one that cannot be read is reported and left out.

    Raises DataError when there is none.
    """
    found = 0
    with _reader(path) as read:
        for name in _some_names(path):
            try:
                picture = _decoded(path, name, read(name))
            except DataError as error:
                report(f"left out: {error}")
                continue
            found += 1
            yield picture
    if not found:
        raise DataError(f"{path}: none of its pictures can be read")


def fingerprint(path: Path) -> str:
    """The fingerprint of a folder or archive, which changes when a picture was added, left out, renamed or changed in size."""
    names = _some_names(path)
    if path.is_dir():
        sizes = {name: (path / name).stat().st_size for name in names}
    else:
        with _archive(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    return hashlib.sha256("\n".join(f"{name} {sizes[name]}" for name in names).encode()).hexdigest()


def squeezed(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture as a network takes it, whatever its shape: (size, size, 3)."""
    if picture.shape[:2] == (size, size):
        return picture
    import cv2

    how = cv2.INTER_AREA if picture.shape[0] > size else cv2.INTER_LINEAR
    return cv2.resize(picture, (size, size), interpolation=how).astype(np.uint8, copy=False)


def _some_names(path: Path) -> list[str]:
    names = _names(path)
    if not names:
        raise DataError(f"{path}: no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")
    return names


def placing(shape: tuple[int, ...], taken: Input) -> Placing:
    """Where a picture of (height, width, …) pixels lies within what a network takes."""
    if taken.fit == "stretch":
        return Placing()
    (height, width), (top, left), into = *_within(shape, taken.shape), taken.shape
    return Placing(top / into[0], left / into[1], height / into[0], width / into[1])


def _within(shape: tuple[int, ...], into: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of a picture scaled as large as it fits into another, and (top, left) of its place in the middle."""
    scale = min(into[0] / shape[0], into[1] / shape[1])
    height, width = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    return (height, width), ((into[0] - height) // 2, (into[1] - width) // 2)


def resized(pixels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """(H, W, 3) pixels at (height, width): by area where they shrink, linearly where they grow."""
    if pixels.shape[:2] == shape:
        return pixels
    import cv2

    how = cv2.INTER_AREA if pixels.shape[0] > shape[0] else cv2.INTER_LINEAR
    return cv2.resize(pixels, shape[::-1], interpolation=how)


def fitted(pixels: NDArray[Any], into: tuple[int, int], fit: str) -> NDArray[Any]:
    """(H, W, 3) pixels as a picture of (height, width): stretched, or whole in the middle of grey."""
    if fit == "stretch" or pixels.shape[:2] == into:
        return resized(pixels, into)
    (height, width), (top, left) = _within(pixels.shape, into)
    whole = np.full((*into, 3), BORDER, pixels.dtype)
    whole[top : top + height, left : left + width] = resized(pixels, (height, width))
    return whole


def sendable(pixels: NDArray[Any], picture: Input) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels, uint8 or floats of the same scale, as the picture that crosses: uint8, of the size of `picture`."""
    small = fitted(pixels, picture.shape, picture.fit)
    return np.ascontiguousarray(small if small.dtype == np.uint8 else np.clip(np.rint(small), 0, 255).astype(np.uint8))


class Intake:
    """Pictures as a stage takes them: of its size, colours and layout, its scale and its offset."""

    def __init__(self, picture: Input) -> None:
        import cv2  # here too, so that the first picture need not wait for it

        self._picture, self._look_up = picture, cv2.LUT
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
            import cv2

            pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
        x = self._look_up(pixels, self._table) if pixels.dtype == np.uint8 else self._normalised(pixels)
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
    """Links are followed, to files alone: a pipe or a device would never end."""
    if path.is_dir():
        found = [str(p.relative_to(path)) for p in path.rglob("*") if is_picture(p.relative_to(path)) and p.is_file()]
        return sorted(found)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: neither a folder of pictures nor a zip archive of them")
    with _archive(path) as archive:
        links = {info.filename for info in archive.infolist() if stat.S_ISLNK(info.external_attr >> 16)}
        return sorted(name for name in archive.namelist() if is_picture(name) and name not in links)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path}: not a zip archive that can be read ({error}); pack it again") from error


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[Callable[[str], bytes]]:
    """What gives the bytes of a picture by its name. That raises DataError, also for what is too large."""
    if path.is_dir():
        yield lambda name: _of_file(path / name)
        return
    with _archive(path) as archive:
        yield lambda name: _of_archive(path, archive, name)


def _of_file(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise DataError(f"{file}: {size:,} bytes, a picture may have {MOST_BYTES:,}")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from error


def _of_archive(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """No more is unpacked than the archive's table says, and that is looked at first."""
    if (size := archive.getinfo(name).file_size) > MOST_BYTES:
        raise DataError(f"{path}: {name}: {size:,} bytes unpacked, a picture may have {MOST_BYTES:,}")
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {name}: damaged, encrypted or packed in an unknown way ({error})") from error


def _decoded(path: Path, name: str, raw: bytes) -> NDArray[np.uint8]:
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(raw or b"\0", np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as error:
        raise DataError(f"{path}: {name}: too large a picture for OpenCV; shrink it first") from error
    if pixels is None:
        raise DataError(f"{path}: {name}: not a picture that OpenCV can read")
    rgb: NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return rgb
