"""Bundles: what is shipped verifies, and whatever is wrong with one is named by file and key."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from isthmus.models import bundle
from isthmus.proto.errors import BundleError
from isthmus.proto.spectrum import Spectrum

NAMES = sorted(p.parent.name for p in bundle.ZOO.glob("*/bundle.toml"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(bundle.ZOO / "signs", tmp_path / "signs"))


def test_the_zoo_has_both_bundles() -> None:
    assert NAMES == ["cifar10", "signs"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_verifies_and_knows_every_operating_point(name: str) -> None:
    found = bundle.load(name)
    m = found.manifest
    offloads = len(m.widths) * len(m.bottleneck.steps) * 2
    assert len(m.points) == len(m.widths) * len(m.stages) + offloads
    assert all(0 < p.accuracy <= 1 for p in m.points)
    assert all(len(p.accuracy_given) == len(m.stages) for p in m.points)


@pytest.mark.parametrize("name", NAMES)
def test_the_outcome_table_and_the_manifest_tell_the_same(name: str) -> None:
    found = bundle.load(name)
    table = found.outcomes()
    for column, point in enumerate(found.manifest.points):
        assert (table.label[:, column] == table.truth).mean() == pytest.approx(point.accuracy, abs=1e-4)
        if point.step is not None:
            width = found.manifest.widths.index(point.width)
            sent = table.layer_bytes[:, width, point.step, : point.layers].sum(axis=1).mean()
            assert sent == pytest.approx(point.bytes, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_given_confidence_rises_with_it(name: str) -> None:
    """A conditional table that did not would make the scheduler offload what the exit already knows."""
    for point in bundle.load(name).manifest.points:
        if point.exit is not None:
            given = point.accuracy_given[point.exit]
            assert given[-1] > given[0]


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(BundleError, match=r"sings: no bundle .* the zoo has cifar10, signs"):
        bundle.load("sings")


def test_an_unknown_key_is_refused_by_name(copy: Path) -> None:
    path = copy / "bundle.toml"
    path.write_text("widhts = [1.0]\n" + path.read_text())
    with pytest.raises(BundleError, match=r"bundle\.toml: .*widhts"):
        bundle.load(str(copy))


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "tail.onnx").unlink()
    with pytest.raises(BundleError, match=r"tail\.onnx: missing"):
        bundle.load(str(copy))


def test_a_device_does_not_need_the_tail(copy: Path) -> None:
    (copy / "tail.onnx").unlink()
    assert bundle.load(str(copy), half="head").sha256 == bundle.load("signs").sha256


def test_a_corrupted_file_is_named(copy: Path) -> None:
    raw = bytearray((copy / "head.tflite").read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / "head.tflite").write_bytes(raw)
    with pytest.raises(BundleError, match=r"head\.tflite: sha256 .* fetch the bundle again"):
        bundle.load(str(copy))


@pytest.mark.parametrize("name", ["cifar10", "signs"])
def test_what_is_shipped_does_not_tell_where_it_was_made(name: str) -> None:
    folder = bundle.load(name).folder
    for path in folder.iterdir():
        assert b'File "/' not in path.read_bytes()


def test_an_older_schema_is_read(copy: Path) -> None:
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace("schema = 2", "schema = 1", 1))
    assert bundle.load(str(copy)).manifest.schema == 1


def test_a_bundle_names_the_least_schema_that_it_needs() -> None:
    plain = bundle.load("signs").manifest
    assert plain.schema == plain.bottleneck.schema == 2
    spectrum = Spectrum(tilt=0.0, order="", bands=(), floor=(), spread=(), restored=())
    assert msgspec.structs.replace(plain.bottleneck, spectrum=spectrum).schema == 3


def test_a_newer_schema_is_refused(copy: Path) -> None:
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace("schema = 2", "schema = 5", 1))
    with pytest.raises(BundleError, match="schema 5, this Isthmus reads 1 to 4"):
        bundle.load(str(copy))


def test_nonsense_is_refused(copy: Path) -> None:
    (copy / "bundle.toml").write_text("schema = \x00")
    with pytest.raises(BundleError, match="not valid TOML"):
        bundle.load(str(copy))
