"""Folders and archives of pictures as people send them: what macOS adds, damage, bombs, links."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from isthmus.device.capture.sources.folder import Folder
from isthmus.models import pictures
from isthmus.models.data import folders
from isthmus.models.picture_ladder import Input
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Box, Guess

APPLE = b"\x00\x05\x16\x07" + bytes(80)
"""What a `._NAME` holds: AppleDouble, no picture."""


def png(value: int = 0) -> bytes:
    return bytes(cv2.imencode(".png", np.full((6, 8, 3), value, np.uint8))[1])


def claiming(side: int) -> bytes:
    """A PNG of a few bytes whose header says `side` by `side` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return path


MAC = {f"photos/IMG_{i}.PNG": png(i) for i in range(4)} | {f"__MACOSX/photos/._IMG_{i}.PNG": APPLE for i in range(4)}


def test_what_macos_puts_beside_a_picture_is_none(tmp_path: Path) -> None:
    archive = packed(tmp_path / "photos.zip", {**MAC, "photos/._loose.png": APPLE})
    assert [int(p[0, 0, 0]) for p in pictures.samples(archive, 9)] == [0, 1, 2, 3]
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "unpacked")
    assert len(pictures.samples(tmp_path / "unpacked", 9)) == 4
    assert len(Folder(tmp_path / "unpacked")._paths) == 4
    left_out: list[str] = []
    assert len(list(pictures.every(tmp_path / "unpacked", left_out.append))) == 4
    assert left_out == []


def test_an_unpacked_archive_of_classes_has_no_class_of_macos(tmp_path: Path) -> None:
    for name, value in (("cat", 10), ("dog", 200)):
        for i in range(5):
            for path, raw in ((f"{name}/{i}.png", png(value)), (f"__MACOSX/{name}/._{i}.png", APPLE)):
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_bytes(raw)
    assert folders.load(tmp_path, 8).classes == ("cat", "dog")


def damaged(path: Path) -> Path:
    """The second picture's bytes flipped: its CRC is wrong."""
    packed(path, {"a.png": png(1), "b.png": png(2), "c.png": png(3)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"b.png") + len(b"b.png")
    raw[at + 9] ^= 255
    path.write_bytes(raw)
    return path


def bomb(path: Path) -> Path:
    """A few hundred kB that would unpack to more than a picture may have."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png())
        with archive.open("b.png", "w", force_zip64=True) as file:
            for _ in range(pictures.MOST_BYTES // (1 << 20) + 1):
                file.write(bytes(1 << 20))
        archive.writestr("c.png", png())
    return path


def lying(path: Path) -> Path:
    """An archive whose table says fewer bytes than the picture unpacks to: no more than it says is unpacked."""
    packed(path, {"a.png": png(), "b.png": bytes(1 << 20), "c.png": png()})
    raw = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 9))
    path.write_bytes(raw)
    return path


def encrypted(path: Path) -> Path:
    packed(path, {"a.png": png(), "b.png": png(), "c.png": png()})
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"b.png") - 46  # in the central directory
    raw[entry + 8] |= 1
    path.write_bytes(raw)
    return path


def huge(path: Path) -> Path:
    return packed(path, {"a.png": png(), "b.png": claiming(60_000), "c.png": png()})


ARCHIVES = {
    "damaged": (damaged, "damaged, encrypted or packed in an unknown way"),
    "bomb": (bomb, r"[0-9,]+ bytes unpacked, a picture may have 268,435,456"),
    "lying": (lying, "damaged, encrypted or packed in an unknown way"),
    "encrypted": (encrypted, "damaged, encrypted or packed in an unknown way"),
    "huge": (huge, "too large a picture for OpenCV"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_bad_picture_of_an_archive_is_named_and_costs_itself_alone(kind: str, tmp_path: Path) -> None:
    make, why = ARCHIVES[kind]
    archive = make(tmp_path / f"{kind}.zip")
    assert archive.stat().st_size < 1_000_000
    with pytest.raises(DataError, match=rf"{kind}\.zip: b\.png: {why}"):
        pictures.samples(archive, 9)
    left_out: list[str] = []
    assert len(list(pictures.every(archive, left_out.append))) == 2
    assert len(left_out) == 1


def test_an_archive_that_is_cut_off_is_named(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.zip", MAC).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.zip: neither a folder of pictures nor a zip archive"):
        pictures.samples(tmp_path / "cut.zip", 9)
    (tmp_path / "garbled.zip").write_bytes(whole.replace(b"PK\x01\x02", b"PK\x00\x02"))  # its table of contents
    with pytest.raises(DataError, match=r"garbled\.zip: not a zip archive that can be read"):
        pictures.fingerprint(tmp_path / "garbled.zip")


def test_names_that_lead_out_of_an_archive_are_only_names(tmp_path: Path) -> None:
    archive = packed(tmp_path / "out.zip", {"../../a.png": png(1), "/b.png": png(2)})
    link = zipfile.ZipInfo("c.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    assert len(pictures.samples(archive, 9)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out.zip"]


def test_links_in_a_folder_are_followed_to_pictures_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "real.png").write_bytes(png(7))
    (inside / "a.png").symlink_to(outside / "real.png")
    (inside / "nowhere.png").symlink_to(outside / "absent.png")
    (inside / "self.png").symlink_to(inside / "self.png")
    (inside / "endless.png").symlink_to("/dev/zero")
    (inside / "again").symlink_to(inside)
    os.mkfifo(inside / "pipe.png")
    assert [int(p[0, 0, 0]) for p in pictures.samples(inside, 9)] == [7]
    (inside / "text.png").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"text\.png: not a picture that OpenCV can read"):
        pictures.samples(inside, 9)


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(pictures.MOST_BYTES + 1)
    with pytest.raises(DataError, match=r"sparse\.png: 268,435,457 bytes, a picture may have 268,435,456"):
        pictures.samples(tmp_path, 9)


def test_a_place_in_a_letterboxed_picture_is_found_in_the_whole_one() -> None:
    """A red sign in a tall picture, at a third of its width: found again where it was drawn."""
    whole = np.zeros((120, 60, 3), np.uint8)
    whole[30:60, 20:40, 0] = 255
    taken = Input(64, (0.0,) * 3, (1.0,) * 3, width=96, fit="letterbox")
    given = pictures.fitted(whole, taken.shape, taken.fit)
    assert given.shape == (64, 96, 3)
    assert (given[:, 0] == pictures.BORDER).all()
    rows, columns = np.nonzero((given[:, :, 0] > 200) & (given[:, :, 1] < 50))
    edges = (rows.min() / 64, columns.min() / 96, (rows.max() + 1) / 64, (columns.max() + 1) / 96)
    found = pictures.placing(whole.shape, taken).outward(Guess(0, 0.9, (Box(0, 0.9, *edges),)))
    assert isinstance(found.detail, tuple)
    box = found.detail[0]
    assert (box.top, box.left, box.bottom, box.right) == pytest.approx((0.25, 1 / 3, 0.5, 2 / 3), abs=0.02)


def test_what_reaches_into_the_border_ends_at_the_picture_s_edge() -> None:
    taken = Input(64, (0.0,) * 3, (1.0,) * 3, fit="letterbox")
    found = pictures.placing((40, 80, 3), taken).outward(Guess(0, 0.9, (Box(0, 0.9, 0.0, 0.5, 0.5, 1.0),)))
    assert found.detail == (Box(0, 0.9, 0.0, 0.5, 0.5, 1.0),)


def test_a_stretched_picture_leaves_places_as_they_are() -> None:
    guess = Guess(0, 0.9, (Box(0, 0.9, -0.01, 0.5, 0.5, 1.02),))
    assert pictures.placing((40, 80, 3), Input(64, (0.0,) * 3, (1.0,) * 3)).outward(guess) is guess


@pytest.mark.parametrize(
    ("colours", "layout", "shape"),
    [("bgr", "last", (1, 8, 8, 3)), ("grey", "last", (1, 8, 8, 1)), ("rgb", "first", (1, 3, 8, 8))],
)
def test_colours_and_layout_are_the_network_s(colours: str, layout: str, shape: tuple[int, ...]) -> None:
    taken = Input(8, (0.0,) * 3, (1 / 255,) * 3, colours=colours, layout=layout)  # type: ignore[arg-type]
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :] = 10, 100, 200
    given = pictures.Intake(taken)(pixels)
    assert given.shape == shape
    first = {"bgr": 200.0, "grey": 0.299 * 10 + 0.587 * 100 + 0.114 * 200, "rgb": 10.0}[colours]
    assert given.reshape(-1)[0] == pytest.approx(first, abs=0.6)
