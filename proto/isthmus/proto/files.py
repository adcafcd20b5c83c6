"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import zstandard

MOST_BYTES = 1 << 30
"""A compressed file that unfolds to more is refused before memory is asked for; a run would have two million frames."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, then rename it: whoever reads `path` finds the old content or the new.

    Raises OSError, and leaves what was there, when it cannot be written. A device or pipe is written to as it is.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


class Lines:
    """Whole lines into an open file: one that did not fit is taken back, or at least ended, before the next."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._torn = descriptor, False

    def write(self, line: bytes) -> None:
        """Write a line, which ends in a newline. Raises OSError when it cannot be written whole."""
        left = memoryview(b"\n" + line if self._torn else line)
        whole = len(left)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self._take_back(whole - len(left))
            raise
        self._torn = False

    def _take_back(self, written: int) -> None:
        if not written:
            return
        self._torn = True
        with contextlib.suppress(OSError):  # a pipe, which cannot be shortened
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            self._torn = False


def unfolded(content: bytes) -> bytes:
    """What a compressed file unfolds to. Raises ZstdError, also when it claims to be more than `MOST_BYTES`."""
    size_bytes = zstandard.get_frame_parameters(content).content_size
    if size_bytes > MOST_BYTES:
        raise zstandard.ZstdError(f"it claims to unfold to {size_bytes} bytes, {MOST_BYTES} at most are read")
    return zstandard.decompress(content)
