"""What people's files do to commands: nothing of theirs is lost, and no file ends more than the command that reads it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import cv2
import pytest

from graphs import classifier
from injections.invariants import quiet
from injections.lab import ISTHMUS, PATIENCE_S, Lab, Role
from isthmus.models.scenes import Drive
from isthmus.proto import record

CASES = Path(__file__).parents[1] / "fuzz" / "cases"
HURRIED = """
from isthmus.models import trial
trial.LIMIT_S = 8.0  # so long does what never ends cost
from isthmus.cli.main import main
main()
"""
ON_PURPOSE = range(3, 14)
"""The codes of errors that Isthmus raises on purpose."""
A_RUN = '{"schema":1,"kind":"live","bundle":"b","bundle_sha256":"","policy":"p","deadline_s":0.1,"fps":10.0}\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of four classes."""
    return classifier(tmp_path / "model.tflite")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures that nobody may touch."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(8):
        cv2.imwrite(str(folder / f"{index}.png"), Drive(1).frame(index * 20).image)
    return folder


def split(lab: Lab, model: Path, pictures: Path, *more: str) -> Role:
    """`isthmus models split`, to its end."""
    return lab.run("models", "split", str(model), "--pictures", str(pictures), "--pixels", "0..1", *more)


def refused(role: Role, *said: str) -> None:
    """It ended on purpose, in a few lines that name the thing."""
    assert role.process.returncode in ON_PURPOSE, role.last_words
    words = role.log.replace("\n", "").replace(" ", "")
    assert all(word.replace(" ", "") in words for word in said), role.last_words
    quiet(role, 12)


@pytest.mark.parametrize("where", ["a folder of somebody's", "the pictures themselves"])
def test_out_never_deletes(lab: Lab, model: Path, pictures: Path, where: str) -> None:
    """`--out` replaces a bundle and nothing else: what lies in any other folder is there afterwards as before."""
    folder = pictures if where == "the pictures themselves" else lab.folder / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused(split(lab, model, pictures, "--at", "1", "--out", str(folder)), folder.name)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("case", sorted(CASES.glob("flatbuffer-*")), ids=lambda path: path.name)
def test_damaged_model(lab: Lab, case: Path) -> None:
    """A model with flipped bits is an error message, also where it would kill its runtime."""
    path = lab.folder / "damaged.tflite"
    path.write_bytes(case.read_bytes())
    program = (sys.executable, "-c", HURRIED) if case.name.endswith("never-ends") else ISTHMUS
    done = lab.run("models", "split", str(path), limit_s=2 * PATIENCE_S, program=program)
    assert done.process.returncode in {0, 13}, done.last_words
    quiet(done, 40)


def test_archives(lab: Lab, model: Path) -> None:
    """An archive that unfolds to hundreds of megabytes, or whose parts are damaged, is an error message."""
    bomb, damaged = lab.folder / "bomb.zip", lab.folder / "damaged.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.png", "w", force_zip64=True) as member,
    ):
        for _ in range(400):
            member.write(bytes(1 << 20))
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("a.png", cv2.imencode(".png", Drive(1).frame(0).image)[1].tobytes())
    raw = bytearray(damaged.read_bytes())
    raw[60] ^= 0xFF
    damaged.write_bytes(raw)
    for path in (bomb, damaged):
        refused(split(lab, model, path, "--at", "1", "--out", str(lab.folder / "out")), path.name)


def test_labels(lab: Lab, model: Path, pictures: Path) -> None:
    """Names that are not as many as the classes are refused, with both numbers."""
    names = lab.folder / "names.txt"
    names.write_text("a\nb\nc\n")
    out = ("--at", "1", "--labels", str(names), "--out", str(lab.folder / "out"))
    refused(split(lab, model, pictures, *out), "names.txt", "3", "4")


def test_traces(lab: Lab) -> None:
    """Traces as people have them are read, or refused in a line; one that cannot be read does not hide the others."""
    folder = lab.folder / "traces"
    folder.mkdir()
    (folder / "good.csv").write_text("time_s,up_mbps\n0,5\n1,6\n")
    (folder / "epoch.up").write_text("1432003200000\n1432003200010\n1432003201000\n")
    (folder / "semicolon.csv").write_text("time_s;up_mbps\n0;5,5\n1;6\n")
    (folder / "damaged.csv").write_text("time_s,up_mbps\n0,5\n-1,x\n")
    (folder / "huge.up").write_text("0\n99999999999999999999\n")
    for name in ("epoch.up", "semicolon.csv", "damaged.csv", "huge.up"):
        told = lab.run("traces", "info", str(folder / name))
        assert told.process.returncode in {0, 5}, told.last_words
        quiet(told, 8)
    listed = lab.run("traces", "list", str(folder))
    assert listed.process.returncode == 0, listed.last_words
    assert "good" in "".join(listed.lines)
    quiet(listed, 12)


def test_record_is_continued(lab: Lab) -> None:
    """A record that is there is continued: what an earlier run wrote is there afterwards, as it was."""
    path = lab.folder / "run.jsonl"
    path.write_text(A_RUN)
    done = lab.run("agent", "--frames", "3", "--record", str(path))
    assert done.process.returncode == 0, done.last_words
    assert path.read_text().startswith(A_RUN)
    assert len(record.load(path).records) == 3
    quiet(done)
