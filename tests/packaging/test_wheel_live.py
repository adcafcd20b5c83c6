"""The wheel and the sdist are whole: they hold what the checkout tracks, and the wheel works where there is no checkout."""

from __future__ import annotations

import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORTIONS = ("device", "edge_server", "proto", "models", "emulation", "cli")

pytest.importorskip("hatchling", reason="hatchling builds the wheel")


def tracked(*places: str) -> set[str]:
    """What git knows, and what it would if it were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *places]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this tree is no git checkout, whose files are compared")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def built(kind: str, tree: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (path,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist, as those are that are published."""
    folder = tmp_path_factory.mktemp("tree")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python 3.11.3 and before do not know
        archive.extractall(folder)
    (tree,) = folder.iterdir()
    return built("wheel", tree, tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_what_is_tracked(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert not tracked() - held - {".gitignore"}
    assert not held - tracked() - {"PKG-INFO"}


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    wanted = {name.partition("/")[2] for name in tracked(*(f"{portion}/isthmus" for portion in PORTIONS))}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name and ".data/" not in name}
    assert held == wanted


def test_the_examples_come_with_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    held = {name.partition("share/isthmus/examples/")[2] for name in names if "share/isthmus/examples/" in name}
    assert held == {name.removeprefix("examples/") for name in tracked("examples")}


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "models list",
        "traces list",
        "service show server",
        "config schema agent",
        "agent --frames 3 --fps 50 --bundle skywatch --source clips:1",
        "emulate --duration 20s --bundle signs --format json",
    ],
)
def test_a_verb_works_without_a_checkout(command: str, unpacked: Path, tmp_path: Path) -> None:
    """Without `site`, so that no editable install of this checkout is on the path."""
    paths = [str(unpacked), *site.getsitepackages()]
    program = f"import sys; sys.path += {paths}; from isthmus.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", program, *command.split()],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
