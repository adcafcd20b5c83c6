"""What a model says of itself: normalisation and names of classes, taken where nothing else is said; damage is a word."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from graphs import classifier
from isthmus.cli.main import application
from isthmus.models import bundle, flatbuffer, scenes
from isthmus.models.splitting import metadata
from isthmus.models.splitting.uncut import PIXELS, input_of
from isthmus.proto.errors import ModelError
from real_data import model

NAMES = "one\ntwo\nthree\nfour\n"


def described(
    mean: Sequence[float] | None = (127.5,),
    std: Sequence[float] = (127.5,),
    *,
    labels: str = "labels.txt",
    kind: int = 2,
) -> bytes:
    """A metadata flatbuffer, written field by field as metadata_schema.fbs numbers them."""
    b = flatbuffers.Builder(256)

    def table(fields: dict[int, tuple[str, object]]) -> int:
        b.StartObject(8)
        for number, (how, value) in fields.items():
            getattr(b, f"Prepend{how}Slot")(number, value, 0)
        return int(b.EndObject())

    def vector(offsets: Sequence[int]) -> int:
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())

    def floats(values: Sequence[float]) -> int:
        return int(b.CreateNumpyVector(np.array(values, np.float32)))

    units = []
    if mean is not None:
        normalisation = table({0: ("UOffsetTRelative", floats(mean)), 1: ("UOffsetTRelative", floats(std))})
        units = [table({0: ("Uint8", 1), 1: ("UOffsetTRelative", normalisation)})]
    image = table({4: ("UOffsetTRelative", vector(units))})
    name = b.CreateString(labels)
    files = [table({0: ("UOffsetTRelative", name), 2: ("Int8", kind)})] if labels else []
    answer = table({6: ("UOffsetTRelative", vector(files))})
    ins, outs = vector([image]), vector([answer])
    graph = table({2: ("UOffsetTRelative", ins), 3: ("UOffsetTRelative", outs)})
    b.Finish(table({3: ("UOffsetTRelative", vector([graph]))}), b"M001")
    return bytes(b.Output())


def archived(names: str = NAMES, file: str = "labels.txt") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(file, names)
    return packed.getvalue()


def saying(path: Path, raw: bytes, behind: bytes = b"", *, buffer: int | None = None) -> Path:
    """A classifier of four classes with this metadata in it, and an archive behind it."""
    found = schema.ModelT.InitFromPackedBuf(classifier(path).read_bytes(), 0)
    held = schema.BufferT()
    held.data = np.frombuffer(raw, np.uint8)
    found.buffers.append(held)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(found.buffers) - 1 if buffer is None else buffer
    found.metadata = [entry]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(found.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()) + behind)
    return path


def of(path: Path) -> metadata.Metadata:
    return metadata.of(flatbuffer.read(path))


def test_normalisation_and_names_are_read(tmp_path: Path) -> None:
    found = of(saying(tmp_path / "model.tflite", described(), archived()))
    assert found == metadata.Metadata(((0.5,) * 3, (0.5,) * 3), ("one", "two", "three", "four"), "labels.txt")


def test_a_normalisation_by_channel_is_kept_by_channel(tmp_path: Path) -> None:
    mean, std = PIXELS["imagenet"]
    raw = described([255 * m for m in mean], [255 * s for s in std], labels="")
    taken = input_of(flatbuffer.read(saying(tmp_path / "model.tflite", raw)))
    np.testing.assert_allclose((taken.mean, taken.std), (mean, std), rtol=1e-6)


def test_a_file_without_metadata_says_nothing(tmp_path: Path) -> None:
    assert of(classifier(tmp_path / "model.tflite")) == metadata.Metadata()
    assert of(saying(tmp_path / "model.tflite", described(None, labels=""))) == metadata.Metadata()


def test_real_models_name_their_classes() -> None:
    found = of(model("mobilenet_v2_1.0_224_quant"))
    assert (found.normalisation, found.fault) == (((0.5,) * 3, (0.5,) * 3), "")
    assert (len(found.labels), found.labels[1], found.file) == (1001, "tench, Tinca tinca", "imagenet_labels.txt")


def test_what_the_quantisation_says_too_is_left_to_it() -> None:
    """(x - 127.5) / 127.5 rounds some levels to their neighbours; the file's own scale keeps each pixel as it is."""
    taken = input_of(flatbuffer.read(model("mobilenet_v2_1.0_224_quant")))
    assert taken.std == pytest.approx((0.502,) * 3, abs=1e-3)
    assert taken.std != (0.5,) * 3


@pytest.mark.parametrize(
    ("raw", "behind", "why"),
    [
        (b"", b"", "its metadata is damaged"),
        (b"\0" * 40, b"", r"its metadata is damaged \(begins with"),
        (described(std=(0.0,)), b"", "its metadata is damaged .*normalises by"),
        (described((float("nan"),)), b"", "its metadata is damaged .*normalises by"),
        (described((1.0, 2.0)), b"", "its metadata is damaged .*normalises by"),
        (described()[:60], b"", "its metadata is damaged"),
        (described(), b"", r"names labels\.txt, which cannot be read from it"),
        (described(), archived(file="other.txt"), r"names labels\.txt, which cannot be read from it"),
        (described(), archived()[:-30], r"names labels\.txt, which cannot be read from it"),
        (described(), archived("\n" * (5 << 20)), r"names labels\.txt, which cannot be read from it \(5,242,880 bytes"),
    ],
)
def test_what_is_damaged_is_a_word(raw: bytes, behind: bytes, why: str, tmp_path: Path) -> None:
    found = of(saying(tmp_path / "model.tflite", raw, behind))
    assert found.labels == ()
    assert re.search(why, found.fault), found.fault


def test_a_buffer_that_is_not_there_is_a_word(tmp_path: Path) -> None:
    assert "buffer 999 is not there" in of(saying(tmp_path / "model.tflite", described(), buffer=999)).fault


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000), st.integers(0, 255))
def test_no_flipped_byte_leads_out_of_it(at: int, value: int, also_at: int, also: int) -> None:
    raw = bytearray(described())
    raw[at % len(raw)], raw[also_at % len(raw)] = value, also
    try:
        metadata._contents(bytes(raw))
    except (ValueError, struct.error):
        return


def typed(*words: str) -> Result:
    return CliRunner().invoke(application(list(words)), list(words))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(scenes.samples(8, 5)[0]):
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    return folder


def test_a_split_takes_what_the_model_says_and_says_so(pictures: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "model.tflite", described(), archived())
    done = typed("models", "split", str(path), "--pictures", str(pictures), "--at", "0", "--out", str(tmp_path / "cut"))
    assert done.exit_code == 0, done.output
    for line in (
        "model.tflite: read as classification-probabilities",
        "model.tflite: takes pixels less 127.5, by 127.5, as its metadata says",
        "model.tflite: 4 names in its own labels.txt name its classes",
    ):
        assert line in done.stderr
    manifest = bundle.load(str(tmp_path / "cut")).manifest
    assert manifest.labels == ("one", "two", "three", "four")
    assert (manifest.input.mean, manifest.input.std) == ((0.5,) * 3, (0.5,) * 3)


def test_what_the_user_says_goes_before(pictures: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "model.tflite", described(), archived())
    (tmp_path / "mine.txt").write_text("a\nb\nc\nd\n")
    given = ["--pictures", str(pictures), "--at", "0", "--out", str(tmp_path / "cut"), "--pixels", "0..1"]
    done = typed("models", "split", str(path), *given, "--labels", str(tmp_path / "mine.txt"))
    assert done.exit_code == 0, done.output
    manifest = bundle.load(str(tmp_path / "cut")).manifest
    assert (manifest.labels, manifest.input.mean) == (("a", "b", "c", "d"), (0.0,) * 3)


def test_names_that_are_not_as_many_as_the_classes_are_not_used(pictures: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "model.tflite", described(), archived("background\n" + NAMES))
    done = typed("models", "split", str(path), "--pictures", str(pictures), "--at", "0", "--out", str(tmp_path / "cut"))
    assert done.exit_code == 0, done.output
    assert "5 names in its own labels.txt, it has 4 classes: not used (--labels)" in done.stderr
    assert bundle.load(str(tmp_path / "cut")).manifest.labels == ()


def test_damaged_metadata_is_said_and_pixels_are_asked_for(pictures: Path, tmp_path: Path) -> None:
    path = saying(tmp_path / "model.tflite", described()[:60])
    with pytest.raises(ModelError, match="takes float32; say what its pixels are"):
        input_of(flatbuffer.read(path))
    words = ["models", "split", str(path), "--pictures", str(pictures), "--pixels", "0..1", "--at", "0"]
    done = typed(*words, "--out", str(tmp_path / "cut"))
    assert done.exit_code == 0, done.output
    assert "its metadata is damaged" in done.stderr
