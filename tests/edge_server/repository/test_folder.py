"""What is seen of a folder of bundles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isthmus.edge_server.repository.folder import bundles_in, stamp, version_of


def made(folder: Path, content: str = "schema = 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.toml").write_text(content)
    return folder


def test_bundles_lie_directly_in_it_or_as_versions_of_a_name(tmp_path: Path) -> None:
    made(tmp_path / "signs")
    made(tmp_path / "signs" / "2")
    made(tmp_path / "birds" / "1")
    made(tmp_path / "birds" / "1" / "deeper")
    made(tmp_path / ".push-x" / "bundle")
    made(tmp_path / "cats" / ".old")
    (tmp_path / "notes.txt").write_text("no bundle")
    (tmp_path / "empty").mkdir()
    assert sorted(bundles_in(tmp_path)) == ["birds/1", "signs", "signs/2"]
    assert [version_of(place) for place in ("birds/1", "signs")] == ["1", ""]


def test_links_are_followed(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere" / "signs")
    root = tmp_path / "models"
    root.mkdir()
    (root / "signs").symlink_to(tmp_path / "elsewhere" / "signs")
    (root / "nowhere").symlink_to(tmp_path / "gone")
    assert list(bundles_in(root)) == ["signs"]


def test_a_change_of_any_file_changes_the_stamp(tmp_path: Path) -> None:
    folder = made(tmp_path / "signs")
    stamps = [stamp(folder)]
    (folder / "tail.onnx").write_bytes(b"one")
    stamps.append(stamp(folder))
    (folder / "tail.onnx").unlink()
    (folder / "tail.onnx").write_bytes(b"two")
    stamps.append(stamp(folder))
    os.utime(folder / "tail.onnx", ns=(0, 0))
    stamps.append(stamp(folder))
    assert len(set(stamps)) == len(stamps)
    made(folder / "2")  # another version
    assert stamp(folder) == stamps[-1]


def test_what_cannot_be_looked_at_has_a_stamp_too(tmp_path: Path) -> None:
    folder = made(tmp_path / "signs")
    (folder / "tail.onnx").symlink_to(tmp_path / "nowhere")
    assert len(stamp(folder)) == 2
    assert stamp(tmp_path / "gone") == stamp(tmp_path / "gone")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """And not a folder without bundles: a disk that is unmounted deletes nothing."""
    with pytest.raises(OSError, match="No such file"):
        bundles_in(tmp_path / "gone")
