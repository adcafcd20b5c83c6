"""A bundle is on disk whole or not at all: what was there stays until the new one has been verified."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from isthmus.models import bundle
from isthmus.models.bundling import writer
from isthmus.proto.errors import BundleError, DataError


@pytest.fixture(scope="module")
def signs() -> bundle.Bundle:
    return bundle.load("signs")


def copies(whole: bundle.Bundle) -> Callable[[Path], None]:
    """Puts the files of a bundle into a folder."""

    def fill(folder: Path) -> None:
        for name in whole.manifest.files:
            shutil.copyfile(whole.folder / name, folder / name)

    return fill


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_what_is_written_is_what_was_given_with_its_hashes(signs: bundle.Bundle, tmp_path: Path) -> None:
    given = msgspec.structs.replace(signs.manifest, name="mine", files={})
    made = writer.write(tmp_path / "deeper" / "mine", given, copies(signs))
    assert made.manifest == msgspec.structs.replace(given, files=signs.manifest.files)
    for name, expected in made.manifest.files.items():
        assert hashlib.sha256((made.folder / name).read_bytes()).hexdigest() == expected
    assert [p.name for p in (tmp_path / "deeper").iterdir()] == ["mine"]


def test_a_new_bundle_takes_the_place_of_an_old_one(signs: bundle.Bundle, tmp_path: Path) -> None:
    old = writer.write(tmp_path / "mine", signs.manifest, copies(signs))
    renamed = msgspec.structs.replace(signs.manifest, made_by="anew")
    new = writer.write(tmp_path / "mine", renamed, copies(signs))
    assert bundle.load(str(tmp_path / "mine")).manifest.made_by == "anew"
    assert new.sha256 != old.sha256


def test_nothing_changes_when_a_file_cannot_be_made(signs: bundle.Bundle, tmp_path: Path) -> None:
    """The disk was full, or somebody pressed Ctrl-C, after half of the files."""
    writer.write(tmp_path / "mine", signs.manifest, copies(signs))
    before = content(tmp_path / "mine")
    for failure, told in (
        (OSError(28, "No space left on device"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def half(folder: Path, failure: BaseException = failure) -> None:
            (folder / "head.tflite").write_bytes(b"half")
            raise failure

        with pytest.raises(told):
            writer.write(tmp_path / "mine", signs.manifest, half)
        assert content(tmp_path / "mine") == before
        with pytest.raises(told):
            writer.write(tmp_path / "fresh", signs.manifest, half)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_bundle_that_could_not_be_loaded_is_not_put_in_place(signs: bundle.Bundle, tmp_path: Path) -> None:
    writer.write(tmp_path / "mine", signs.manifest, copies(signs))
    before = content(tmp_path / "mine")
    with pytest.raises(BundleError, match="schema 99"):
        writer.write(tmp_path / "mine", msgspec.structs.replace(signs.manifest, schema=99), copies(signs))
    assert content(tmp_path / "mine") == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


class Row(msgspec.Struct):
    name: str
    least: float | None = None


class Table(msgspec.Struct):
    rows: tuple[Row, ...]
    title: str | None = None


def test_what_is_none_is_left_out_of_a_table_and_comes_back_as_none(tmp_path: Path) -> None:
    table = Table((Row("a", 0.5), Row("b")))
    writer.write_table(tmp_path / "t.toml", table)
    assert (tmp_path / "t.toml").read_text().count("least") == 1
    found = msgspec.toml.decode((tmp_path / "t.toml").read_text(), type=Table)
    assert found == table
