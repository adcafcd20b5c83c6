"""Bundles: what is shipped verifies, and whatever is wrong with one is named by file and key."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w

from isthmus.models import bundle, seal
from isthmus.models.bundling import writer
from isthmus.proto.bits.spectrum import Spectrum
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import BundleError
from moving import temporal

NAMES = sorted(p.parent.name for p in bundle.ZOO.glob("*/bundle.toml"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A bundle that may be damaged."""
    return Path(shutil.copytree(bundle.ZOO / "signs", tmp_path / "signs"))


def test_the_zoo_has_all_bundles() -> None:
    assert NAMES == ["cifar10", "signs", "skywatch"]


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
        right = table.label == table.truth[:, None] if table.score is None else table.score
        assert right[:, column].mean(dtype=float) == pytest.approx(point.accuracy, abs=1e-4)
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
    with pytest.raises(BundleError, match=r"sings: no bundle .* the zoo has cifar10, signs, skywatch"):
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


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_does_not_tell_where_it_was_made(name: str) -> None:
    folder = bundle.load(name).folder
    for path in folder.iterdir():
        assert b'File "/' not in path.read_bytes()


def test_an_older_schema_is_read(copy: Path) -> None:
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace("schema = 5", "schema = 1", 1))
    (copy / seal.SEAL).unlink()  # older ones have none
    assert bundle.load(str(copy)).manifest.schema == 1


def test_a_bundle_names_the_least_schema_that_it_needs() -> None:
    plain = bundle.load("signs").manifest
    assert plain.schema == 5  # for its predictors
    assert plain.bottleneck.schema == 2
    spectrum = Spectrum(tilt=0.0, order="", bands=(), floor=(), spread=(), restored=())
    assert msgspec.structs.replace(plain.bottleneck, spectrum=spectrum).schema == 3
    assert bundle.Bottleneck.of(temporal()).schema == 5


def test_how_frames_are_coded_against_others_is_written_and_read(tmp_path: Path) -> None:
    """Bundles of pictures that do not follow each other have none of it."""
    told = bundle.Bottleneck.of(temporal())
    writer.write_table(tmp_path / "bottleneck.toml", told)
    read = msgspec.convert(tomllib.loads((tmp_path / "bottleneck.toml").read_text()), bundle.Bottleneck)
    assert read == told
    assert read.codec == temporal()
    assert {name for name in NAMES if bundle.load(name).codec.deltas} == {"skywatch"}


def test_deltas_that_do_not_fit_are_named(copy: Path) -> None:
    path = copy / "bundle.toml"
    table = tomllib.loads(path.read_text())
    table["bottleneck"]["deltas"] = {"keep": [[0.8, 0.8]], "tables": []}
    path.write_text(tomli_w.dumps(table))
    with pytest.raises(BundleError, match=r"bottleneck: config: deltas.keep must have 4 steps of 2 layers"):
        bundle.load(str(copy))


def test_a_newer_schema_is_refused(copy: Path) -> None:
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace("schema = 5", "schema = 6", 1))
    with pytest.raises(BundleError, match="schema 6, this Isthmus reads 1 to 5"):
        bundle.load(str(copy))


def test_nonsense_is_refused(copy: Path) -> None:
    (copy / "bundle.toml").write_text("schema = \x00")
    with pytest.raises(BundleError, match="not valid TOML"):
        bundle.load(str(copy))


def test_a_changed_label_is_noticed_without_a_server(copy: Path) -> None:
    """One letter of it gave the answer `nothinf` with exit code 0."""
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace('"nothing"', '"nothinf"', 1))
    with pytest.raises(
        BundleError, match=r"bundle\.toml: is not as it was written \(sha256 .* bundle\.sha256 says c0211a"
    ):
        bundle.load(str(copy), half="head")
    (copy / seal.SEAL).write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  bundle.toml\n")
    assert "nothinf" in bundle.load(str(copy)).manifest.labels


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_is_sealed_as_sha256sum_does(name: str) -> None:
    found = bundle.load(name)
    assert (found.folder / seal.SEAL).read_text() == f"{found.sha256.hex()}  bundle.toml\n"


def test_a_bundle_without_a_seal_is_an_older_one(copy: Path) -> None:
    (copy / seal.SEAL).unlink()
    assert bundle.load(str(copy)).sha256 == bundle.load("signs").sha256


def test_a_seal_that_cannot_be_read_is_named(copy: Path) -> None:
    (copy / seal.SEAL).write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match=r"bundle\.sha256: cannot be read"):
        bundle.load(str(copy))


Table = dict[str, Any]


def _last(table: Table) -> Table:
    point: Table = table["points"][-1]
    return point


CHANGES: dict[str, tuple[Callable[[Table], object], str]] = {
    "a table that is not hex": (
        lambda t: t["bottleneck"]["tables"][0].__setitem__(0, "~" * 256),
        r"bottleneck\.tables: each must be 256 hex digits",
    ),
    "a short table": (
        lambda t: t["bottleneck"]["tables"][0].__setitem__(0, "77"),
        r"bottleneck\.tables: each must be 256 hex digits",
    ),
    "no Huffman code": (
        lambda t: t["bottleneck"]["tables"][0].__setitem__(0, "1" * 256),
        "bottleneck: table: must hold 256 lengths",
    ),
    "a step too few": (lambda t: t["bottleneck"]["steps"].pop(), "bottleneck: config: tables must have 3 steps"),
    "no steps": (
        lambda t: t["bottleneck"].update(steps=[]),
        "bottleneck: zero_point, steps and size_fit must be there",
    ),
    "a zero point too few": (lambda t: t["bottleneck"]["zero_point"].pop(), "bottleneck: config: "),
    "not a number": (lambda t: t["bottleneck"]["zero_point"].__setitem__(0, float("nan")), "bottleneck: .* finite"),
    "2^60 values": (lambda t: t["bottleneck"].update(height=2**60), "bottleneck: 1152921504606846976 x 16 x 6 values"),
    "a short accuracy_given": (
        lambda t: _last(t)["accuracy_given"].pop(),
        r"points\[\d+\]: accuracy_given: must have 2",
    ),
    "a short row of it": (lambda t: _last(t)["accuracy_given"][0].pop(), r"points\[\d+\]: accuracy_given: .* of 9"),
    "a step that is none": (
        lambda t: _last(t).update(step=9),
        r"points\[\d+\]: step 9 and 2 layers, there are 4 and 2",
    ),
    "a width that is none": (lambda t: _last(t).update(width=0.3), r"points\[\d+\]: width 0\.3"),
    "a stage without a width": (lambda t: t["stages"][0].pop(), r"stages\[0\]: must have each of the widths once"),
    "a wrong type": (lambda t: t.update(labels=[1, 2]), r"Expected `str`, got `int` - at `\$\.labels\[0\]`"),
    "another wrong type": (lambda t: t.update(stages="x"), r"Expected `array`, got `str` - at `\$\.stages`"),
    "a picture of no size": (lambda t: t["input"].update(size=0), r"input: \(0, 0\) pixels"),
    "a deviation of nothing": (lambda t: t["input"].update(std=[0.0, 1.0, 1.0]), "input: mean and std must be finite"),
    "edges that fall": (lambda t: t["confidence_edges"].reverse(), "confidence_edges: must ascend"),
    "a hash that is none": (lambda t: t["files"].update({"head.tflite": "77"}), "files: 'head.tflite': not a sha256"),
    "a file beside the folder": (
        lambda t: t["files"].update({"../other": "0" * 64}),
        r"files: '\.\./other' is no name of",
    ),
    "a file anywhere": (lambda t: t["files"].update({"/etc/passwd": "0" * 64}), "files: '/etc/passwd' is no name of"),
    "a tail elsewhere": (lambda t: t["tail"][0].update(file="../tail.onnx"), r"files: '\.\./tail\.onnx' is no name of"),
    "no tail": (lambda t: t.update(tail=[]), "tail: names no file"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_keys_that_do_not_fit_each_other_are_refused_by_name(copy: Path, case: str) -> None:
    change, why = CHANGES[case]
    table = tomllib.loads((copy / "bundle.toml").read_text())
    change(table)
    (copy / "bundle.toml").write_text(tomli_w.dumps(table))
    with pytest.raises(BundleError, match=rf"bundle\.toml: {why}"):
        bundle.load(str(copy), half="head")


def test_a_link_out_of_the_folder_is_no_file_of_the_bundle(copy: Path, tmp_path: Path) -> None:
    (copy / "head.tflite").rename(tmp_path / "elsewhere.tflite")
    (copy / "head.tflite").symlink_to(tmp_path / "elsewhere.tflite")
    with pytest.raises(BundleError, match=r"head\.tflite: leads out of the bundle's folder"):
        bundle.load(str(copy))


AGEING: dict[str, Any] = {"ages_s": [0.0, 0.5], "exit": [[0.7, 0.6]] * 4, "server": [[0.8, 0.7]] * 4}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "only boxes are carried on"),
        ({"ages_s": [0.1, 0.5]}, "ages_s must ascend from 0"),
        ({"ages_s": [0.0, 0.0]}, "ages_s must ascend from 0"),
        ({"ages_s": []}, "ages_s must ascend from 0"),
        ({"exit": [[0.7, 0.6]]}, "exit must have a row for each width"),
        ({"server": [[0.7]] * 4}, "server must have a row for each width"),
        ({"server": [[0.7, 1.5]] * 4}, "server must hold shares"),
    ],
)
def test_a_table_of_ageing_that_does_not_fit_is_named(copy: Path, change: dict[str, Any], why: str) -> None:
    path = copy / "bundle.toml"
    table = tomllib.loads(path.read_text())
    table |= {"ageing": AGEING | change, "task": "detection" if change else table["task"]}
    path.write_text(tomli_w.dumps(table))
    (copy / seal.SEAL).write_text(seal.sealed(path.read_bytes()))
    with pytest.raises(BundleError, match=why):
        bundle.load(str(copy))
