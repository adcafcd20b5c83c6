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
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / manifest.name
        folder.mkdir()
        fill(folder)
        hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
        table = _without_none(msgspec.to_builtins(msgspec.structs.replace(manifest, files=hashes)))
        (folder / "bundle.toml").write_text(tomli_w.dumps(table))
        bundle.load(str(folder))
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return bundle.load(str(target))


def _without_none(value: object) -> dict[str, object]:
    """TOML has no null: what is None is left out."""

    def cleaned(part: object) -> object:
        if isinstance(part, dict):
            return {key: cleaned(v) for key, v in part.items() if v is not None}
        return [cleaned(v) for v in part] if isinstance(part, list | tuple) else part

    table = cleaned(value)
    assert isinstance(table, dict)
    return table
