"""Puts a bundle on disk: made in a temporary folder, verified, and renamed, so that none is ever half-written."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import tomli_w

from isthmus.models import bundle
from isthmus.models.bundle import Bundle, Manifest


def write(target: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Bundle:
    """The bundle at `target`, in the place of an older one, with the files that `fill` puts into the folder it is given.

    `manifest.files` is filled in here. Whatever `fill` raises leaves `target` as it was.
    """

    def whole(folder: Path) -> None:
        fill(folder)
        hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
        write_table(folder / "bundle.toml", msgspec.structs.replace(manifest, files=hashes))
        bundle.load(str(folder))

    replace(target, whole)
    return bundle.load(str(target))


def replace(target: Path, fill: Callable[[Path], None]) -> None:
    """The folder `target`, with what `fill` puts into the one it is given; whatever it raises leaves `target` as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        fill(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)


def write_table(path: Path, table: msgspec.Struct) -> None:
    """Write a struct as TOML; what is None is left out."""
    path.write_text(tomli_w.dumps(_without_none(msgspec.to_builtins(table))))


def _without_none(value: object) -> dict[str, object]:
    """The struct's tables without what is None: TOML has no null."""

    def cleaned(part: object) -> object:
        if isinstance(part, dict):
            return {key: cleaned(v) for key, v in part.items() if v is not None}
        return [cleaned(v) for v in part] if isinstance(part, list | tuple) else part

    table = cleaned(value)
    assert isinstance(table, dict)
    return table
