"""Puts a bundle or a filter on disk: made beside its place, verified, and renamed, so that none is ever half-written.

A folder is replaced only when it holds nothing but what was put there so; what is replaced stays until the new one is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from isthmus.models import bundle, filters, seal
from isthmus.models.bundle import Bundle, Manifest
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import BundleError, DataError

ADDED = frozenset({seal.SEAL, "MODEL_CARD.md", "accuracy_bytes.png", "inputs.npz", "sequences.npz"})
"""What a bundle's folder may hold beside `bundle.toml` and the files that it names."""


def write(target: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Bundle:
    """The bundle at `target`, in the place of an older one, with the files that `fill` puts into the folder it is given.

    `manifest.files` is filled in here. Whatever `fill` raises leaves `target` as it was.
    """

    def whole(folder: Path) -> None:
        fill(folder)
        hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
        write_table(folder / seal.FILE, msgspec.structs.replace(manifest, files=hashes))
        (folder / seal.SEAL).write_text(seal.sealed((folder / seal.FILE).read_bytes()))
        bundle.load(str(folder))

    replace(target, whole)
    return bundle.load(str(target))


def changed(old: Bundle, manifest: Manifest, target: Path) -> Bundle:
    """A bundle at `target` with the files of `old`, as they are, and another manifest; `target` may be where `old` is."""

    def fill(folder: Path) -> None:
        for name in old.manifest.files:
            shutil.copyfile(old.folder / name, folder / name)

    return write(target, manifest, fill)


def replace(target: Path, fill: Callable[[Path], None]) -> None:
    """The folder `target`, with what `fill` puts into the one it is given; whatever it raises leaves `target` as it was.

    Raises what `check_replaceable` does, and DataError when the disk refuses.
    """
    check_replaceable(target)
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".isthmus-") as scratch:
            made = Path(scratch) / target.name
            made.mkdir()
            fill(made)
            check_replaceable(target)  # making it may have taken hours
            _exchange(made, target, Path(scratch) / "old")
    except OSError as error:
        raise DataError(
            f"{target}: not written ({error.strerror or error}); make room, or name another folder with --out"
        ) from error


def _exchange(made: Path, target: Path, old: Path) -> None:
    """`made` in the place of `target`, which goes to `old`; a failure puts it back."""
    if target.exists():
        target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise


def check_replaceable(target: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Raises BundleError unless a bundle or filter may be put at `target`: nothing is there, or an older one and nothing else.

    `inputs` are what the new one is made of, as far as they are given: none may lie in `target`. Raises DataError when
    nothing can be written there.
    """
    there = target.resolve()
    for given in inputs:
        if given is not None and given.resolve().is_relative_to(there):
            raise BundleError(f"{target}: {given} is read from there; name another folder with --out")
    if target.is_symlink() and not target.exists():
        raise BundleError(f"{target}: is a link to nothing; name another folder with --out")
    check_writable(target, there.parent)
    if not target.exists():
        return
    if not target.is_dir():
        raise BundleError(f"{target}: is there and is no folder; name another with --out")
    owned = _owned(target)
    foreign = sorted(path.name for path in target.iterdir() if path.name not in owned or not path.is_file())
    if foreign and not owned:
        raise BundleError(f"{target}: is there and is no bundle; it stays as it is, name another folder with --out")
    if foreign:
        raise BundleError(
            f"{target}: holds {foreign[0]}, which is not the bundle's; move it away, or name another folder with --out"
        )


def _owned(folder: Path) -> frozenset[str]:
    """The names that belong to the bundle or filter in `folder`; empty when there is none."""
    if {"schema", "sha256"} <= _table(folder / filters.FILE).keys():
        return frozenset({filters.FILE, filters.NETWORK})
    table = _table(folder / seal.FILE)
    files = table.get("files")
    return ADDED.union({seal.FILE}, files) if "schema" in table and isinstance(files, dict) else frozenset()


def _table(path: Path) -> dict[str, Any]:
    """What is in a TOML file; nothing when it is none."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def check_writable(out: Path, folder: Path) -> None:
    """Raises DataError naming `out` when nothing can be put into `folder`, or it not be made: before the work, not after it."""
    folder = folder.resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "this user may not write" if there.is_dir() else "not a folder"
        raise DataError(f"{out}: cannot be written ({there}: {why}); name another place")


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
