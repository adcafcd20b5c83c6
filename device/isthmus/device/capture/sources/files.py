"""A picture out of a file or out of bytes; one that cannot be read comes without pixels, and with the reason."""

from __future__ import annotations

import stat
from pathlib import Path

import cv2
import numpy as np

from isthmus.device.capture.sources.opencv import in_short
from isthmus.device.capture.sources.source import Picture

MOST_BYTES = 1 << 28
"""A picture file of more is not read: a small board has no room for it."""


def read_file(path: Path, label: int | None = None) -> Picture:
    """The picture in a file, called by its name."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return without(path, "not a file", label)  # reading a pipe would wait for whoever writes to it
        if facts.st_size > MOST_BYTES:
            return without(path, f"{facts.st_size} bytes, a picture has {MOST_BYTES} at most", label)
        content = path.read_bytes()
    except OSError as error:
        return without(path, error.strerror or str(error), label)
    return decoded(content, path.name, str(path), label)


def decoded(content: bytes, name: str, where: str, label: int | None = None) -> Picture:
    """The picture in `content`, called `name`; `where` is what its reason begins with when it cannot be read."""
    try:
        pixels = cv2.imdecode(np.frombuffer(content or b"\0", np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return Picture(name, None, label, why=f"{where}: {in_short(error)}")
    if pixels is None:
        return Picture(name, None, label, why=f"{where}: not a picture that OpenCV can read")
    return Picture(name, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), label)


def without(path: Path, why: str, label: int | None = None) -> Picture:
    """The picture of a file that cannot be read."""
    return Picture(path.name, None, label, why=f"{path}: {why}")
