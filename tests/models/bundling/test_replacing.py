"""Bundles on disk: what may be replaced, what never is, and that the old one stays until the new one is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from graphs import classifier
from isthmus.cli.main import application
from isthmus.models import bundle, filters
from isthmus.models.bundling import writer
from isthmus.proto.errors import BundleError, DataError, IsthmusError

REFUSED: dict[str, tuple[list[str], str]] = {
    "a folder of somebody's": (["thesis.txt", "sub/notes.txt"], "is there and is no bundle"),
    "a toml that is none of ours": (["bundle.toml"], "is there and is no bundle"),
    "a bundle and somebody's notes": (["signs/", "thesis.txt"], "holds thesis.txt, which is not the bundle's"),
    "a bundle and a folder": (["signs/", "sub/notes.txt"], "holds sub, which is not the bundle's"),
    "a folder called as the bundle's file": (["signs/", "inputs.npz/notes.txt"], "holds inputs.npz"),
}


def laid_out(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        if name == "signs/":
            shutil.copytree(bundle.ZOO / "signs", folder, dirs_exist_ok=True)
            (folder / "inputs.npz").unlink()
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("mine")
    return folder


def whole(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path) -> None:
    (folder / "new").write_text("new")


@pytest.mark.parametrize("case", REFUSED)
def test_whatever_is_foreign_is_neither_replaced_nor_touched(tmp_path: Path, case: str) -> None:
    names, why = REFUSED[case]
    target = laid_out(tmp_path / "copy", names)
    before = whole(target)
    with pytest.raises(BundleError, match=why):
        writer.check_replaceable(target)
    with pytest.raises(BundleError, match=why):
        writer.replace(target, fill)
    assert whole(target) == before
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_a_bundle_a_filter_an_empty_folder_and_nothing_may_be_replaced(tmp_path: Path) -> None:
    shutil.copytree(bundle.ZOO / "signs", tmp_path / "signs")
    (tmp_path / "empty").mkdir()
    laid_out(tmp_path / "filter", [filters.NETWORK])
    (tmp_path / "filter" / filters.FILE).write_text('schema = 1\nsha256 = ""\n')
    (tmp_path / "link").symlink_to(shutil.copytree(bundle.ZOO / "signs", tmp_path / "linked"))
    for name in ("signs", "empty", "filter", "deep/er", "link"):
        writer.replace(tmp_path / name, fill)
        assert whole(tmp_path / name) == {"new": b"new"}
    assert (tmp_path / "link").is_symlink()


def test_the_old_one_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Path(shutil.copytree(bundle.ZOO / "signs", tmp_path / "signs"))
    before = whole(target)

    def broken(folder: Path) -> None:
        fill(folder)
        assert whole(target) == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.replace(target, broken)
    rename = Path.rename

    def failing(path: Path, to: Path) -> Path:
        if path.parent != tmp_path and path.name == "signs":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DataError, match=r"signs: not written \(No space left on device\); make room"):
        writer.replace(target, fill)
    assert whole(target) == before
    assert [p.name for p in tmp_path.iterdir()] == ["signs"]


def test_what_a_bundle_is_made_of_is_never_replaced_by_it(tmp_path: Path) -> None:
    target = Path(shutil.copytree(bundle.ZOO / "signs", tmp_path / "signs"))
    for given in (target, target / "head.tflite"):
        with pytest.raises(BundleError, match=r"signs: .* is read from there; name another folder with --out"):
            writer.check_replaceable(target, (None, given))
    with pytest.raises(BundleError, match="is read from there"):
        writer.check_replaceable(tmp_path, (target,))
    writer.check_replaceable(target, (tmp_path / "photos", None))


def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"file/deep: cannot be written \(.*file: not a folder\)"):
        writer.check_replaceable(tmp_path / "file" / "deep")
    with pytest.raises(BundleError, match="file: is there and is no folder"):
        writer.check_replaceable(tmp_path / "file")
    with pytest.raises(BundleError, match="dangling: is a link to nothing"):
        writer.check_replaceable(tmp_path / "dangling")
    with pytest.raises(BundleError, match="is there and is no bundle"):
        writer.check_replaceable(Path("/"))


VERBS = {
    "split": ["MODEL", "--pictures", "PICTURES", "--pixels", "0..1", "--at", "1"],
    "quantize": ["signs", "--most", "10"],
    "export": ["signs", "--checkpoint", "none.pt"],
    "prune": ["signs", "--flops", "0.5", "--begin", "signs"],
    "distill": ["MODEL", "--pictures", "PICTURES", "--pixels", "0..1"],
    "filter": ["PICTURES"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_deletes_a_folder_that_is_no_bundle(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before any work: the pictures of these commands would not do for most of them."""
    if verb != "split":
        pytest.importorskip("torch")
        pytest.importorskip("ai_edge_quantizer")
    monkeypatch.chdir(tmp_path)
    mine = laid_out(tmp_path / "copy", ["thesis.txt", "sub/notes.txt"])
    model, pictures = classifier(tmp_path / "model.tflite"), tmp_path / "pictures"
    pictures.mkdir()
    for i in range(4):
        cv2.imwrite(str(pictures / f"{i}.png"), np.full((8, 8, 3), 60 * i, np.uint8))
    named = {"MODEL": str(model), "PICTURES": str(pictures)}
    for out, why in (("copy", "copy: is there and is no bundle"), ("pictures", "pictures: ")):
        asked = ["models", verb, *(named.get(word, word) for word in VERBS[verb]), "--out", out]
        result = CliRunner().invoke(application(asked), asked)
        assert isinstance(result.exception, IsthmusError), result.output
        assert str(result.exception).startswith(why)
        assert result.exception.exit_code == BundleError.exit_code
    assert whole(mine) == {"sub/notes.txt": b"mine", "thesis.txt": b"mine"}
    assert len(list(pictures.iterdir())) == 4
