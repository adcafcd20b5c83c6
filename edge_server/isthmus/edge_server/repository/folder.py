"""What lies in a repository's folder: DIR/NAME or DIR/NAME/VERSION, each a bundle. Looks, and changes nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from isthmus.models import seal

Stamp = tuple[tuple[str | int, ...], ...]
"""What changes when anything in a bundle's folder does: of each file its name, inode, size, and times of change."""


def bundles_in(root: Path) -> dict[str, Stamp]:
    """The bundles below `root`, by their places in it, `NAME` or `NAME/VERSION`, each with its stamp.

    Names that begin with a dot are passed over: there whoever copies may make a bundle ready. Raises OSError where `root`
    itself cannot be read.
    """
    found: dict[str, Stamp] = {}
    for name in _folders(root):
        for place in (name, *(f"{name}/{inner}" for inner in _inner(root / name))):
            if os.path.lexists(root / place / seal.FILE):
                found[place] = stamp(root / place)
    return found


def stamp(folder: Path) -> Stamp:
    """The stamp of a folder, whatever folders are in it; of what cannot be looked at, what is wrong with it."""
    try:
        return tuple(sorted(_status(path) for path in folder.iterdir() if not path.is_dir()))
    except OSError as error:
        return ((str(folder), error.errno or 0),)


def version_of(place: str) -> str:
    """The version that a place gives its bundle; empty for one directly in the repository."""
    return place.partition("/")[2]


def _status(path: Path) -> tuple[str | int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (path.name, error.errno or 0)
    return (path.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _inner(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):  # it went away, or is not for us: it is no repository of versions
        return _folders(folder)
    return []
