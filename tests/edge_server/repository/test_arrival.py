"""A bundle that comes in as bytes: whole, cut, changed, hostile, too large."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.edge_server.repository.arrival import PREFIX, Arrival
from isthmus.edge_server.repository.scratch import Scratch, sweep
from isthmus.models import bundle as bundles
from isthmus.proto.errors import BundleError, DataError, IsthmusError, WireError

SIGNS = bundles.load("signs")
PATHS = [SIGNS.folder / name for name in ("bundle.toml", *SIGNS.manifest.files)]
FILES = [(path.name, path.stat().st_size) for path in PATHS]
BYTES = b"".join(path.read_bytes() for path in PATHS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def begun(root: Path, **changes: Any) -> Arrival:
    said: dict[str, Any] = {"name": "signs", "version": "7", "sha256": SIGNS.sha256, "files": FILES} | changes
    return Arrival(root, said.pop("name"), said.pop("version"), said.pop("sha256"), said.pop("files"), **said)


def fill(arrival: Arrival, data: bytes, size: int = 1 << 18) -> None:
    for begin in range(0, len(data), size):
        arrival.write(data[begin : begin + size])


def nothing_left(root: Path) -> bool:
    return not list(root.iterdir())


@pytest.mark.parametrize("size", [65_537, 1 << 18, len(BYTES)])
def test_a_whole_bundle_is_put_in_its_place(root: Path, size: int) -> None:
    arrival = begun(root)
    fill(arrival, BYTES, size)
    arrival.finish()
    assert not (root / "signs").exists(), "out of sight until it is put there"
    arrival.put()
    arrival.discard()
    assert bundles.load(str(root / "signs" / "7")).sha256 == SIGNS.sha256
    assert [path.name for path in root.iterdir()] == ["signs"]


@pytest.mark.parametrize("kept", [0, 1, len(BYTES) // 2, len(BYTES) - 1])
def test_one_that_is_cut_is_none(root: Path, kept: int) -> None:
    arrival = begun(root)
    fill(arrival, BYTES[:kept])
    with pytest.raises(WireError, match=rf"push: cut after {kept} of {len(BYTES)} bytes; push again"):
        arrival.finish()
    arrival.discard()
    assert nothing_left(root)


def test_one_that_is_longer_than_it_said_is_none(root: Path) -> None:
    arrival = begun(root)
    with pytest.raises(WireError, match="more than the"):
        fill(arrival, BYTES + b"x")
    arrival.discard()
    assert nothing_left(root)


def test_a_changed_byte_is_found_and_its_file_named(root: Path) -> None:
    where = BYTES.index(PATHS[1].read_bytes()) + 1000
    arrival = begun(root)
    fill(arrival, BYTES[:where] + bytes([BYTES[where] ^ 1]) + BYTES[where + 1 :])
    with pytest.raises(BundleError, match=rf"^push: {PATHS[1].name}: sha256"):
        arrival.finish()
    arrival.discard()
    assert nothing_left(root)


def test_another_bundle_than_was_said_is_none(root: Path) -> None:
    arrival = begun(root, sha256=bytes(32))
    fill(arrival, BYTES)
    with pytest.raises(BundleError, match=r"^push: bundle\.toml: sha256 .*, 000000000000… was said; push again"):
        arrival.finish()
    arrival.discard()
    other = begun(root, name="birds")
    fill(other, BYTES)
    with pytest.raises(BundleError, match="push: bundle signs, birds was said"):
        other.finish()
    other.discard()
    assert nothing_left(root)


HOSTILE = ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "a\nb", "x" * 200, "é", "a\0b", "C:x"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["name", "version", "file"])
def test_a_name_that_leads_elsewhere_is_refused(root: Path, where: str, name: str) -> None:
    change: Any = {"files": [*FILES, (name, 3)]} if where == "file" else {where: name}
    with pytest.raises(WireError, match=f"push: {where} '"):
        begun(root, **change)
    assert nothing_left(root)


@pytest.mark.parametrize(
    "change",
    [
        {"files": FILES[1:]},
        {"files": [*FILES, FILES[0]]},
        {"files": [*FILES, *((f"x{n}", 1) for n in range(100))]},
        {"sha256": b"short"},
    ],
    ids=["no bundle.toml", "twice", "many", "no hash"],
)
def test_what_cannot_be_a_bundle_is_refused(root: Path, change: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="expected"):
        begun(root, **change)
    assert nothing_left(root)


def test_one_that_is_too_large_is_refused_before_anything_is_written(root: Path) -> None:
    with pytest.raises(DataError, match=r"push: \d+ bytes, at most 1000 are taken"):
        begun(root, most=1000)
    with pytest.raises(DataError, match="push: 18446744073709551615"):
        begun(root, files=[*FILES[:1], ("tail.onnx", 2**64 - 1 - FILES[0][1])])
    assert nothing_left(root)


def test_a_disk_without_room_is_told_before_anything_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="1000 are free on the server's disk; make room there"):
        begun(root)
    assert nothing_left(root)


def test_what_lies_in_its_place_stays(root: Path) -> None:
    (root / "signs" / "7").mkdir(parents=True)
    (root / "signs" / "7" / "notes").write_text("mine")
    arrival = begun(root)
    fill(arrival, BYTES)
    arrival.finish()
    with pytest.raises(BundleError, match="push: signs/7: is there already"):
        arrival.put()
    arrival.discard()
    assert (root / "signs" / "7" / "notes").read_text() == "mine"
    assert sorted(path.name for path in root.iterdir()) == ["signs"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text(max_size=12),
    st.text(max_size=12),
    st.lists(st.tuples(st.text(max_size=12), st.integers(0, 2**64 - 1)), max_size=4),
    st.binary(max_size=100),
)
def test_whatever_is_said_is_refused_in_words_or_stays_in_its_folder(
    root: Path, name: str, version: str, files: list[tuple[str, int]], data: bytes
) -> None:
    try:
        arrival = Arrival(root, name, version, bytes(32), [("bundle.toml", 5), *files])
    except IsthmusError:
        assert nothing_left(root)
        return
    try:
        arrival.write(data)
        arrival.finish()
    except IsthmusError:
        pass
    finally:
        arrival.discard()
    assert nothing_left(root)


def test_what_a_killed_process_left_is_swept_up(root: Path) -> None:
    living = Scratch(root, PREFIX)
    left = root / f"{PREFIX}left"
    left.mkdir()
    (left / "bundle").mkdir()
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (root / f"{PREFIX}link").symlink_to(elsewhere)
    sweep(root, PREFIX)
    assert sorted(path.name for path in root.iterdir()) == sorted([living.path.name, "elsewhere", f"{PREFIX}link"])
    living.close()
    assert not living.path.exists()
