"""Pictures that cross: of their format and size or not at all, and about as large as was predicted."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.models import scenes
from isthmus.proto import picture_codec
from isthmus.proto.errors import CodecError
from isthmus.proto.picture_codec import Format, PictureConfig, Pixels

FORMATS: tuple[Format, ...] = ("webp", "jpeg")


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    images, _ = scenes.samples(60, seed=3)
    return [np.ascontiguousarray(cv2.resize(i, (96, 64)).astype(np.uint8)) for i in images]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_picture_comes_back_about_as_it_was_and_finer_where_it_is_larger(
    pictures: list[Pixels], format_: Format
) -> None:
    config = picture_codec.fit(pictures, format_, (90, 50, 10))
    files = [picture_codec.encode(pictures[0], config, quality) for quality in range(3)]
    errors = [np.abs(picture_codec.decode(f, config).astype(int) - pictures[0]).mean() for f in files]
    assert [len(f) for f in files] == sorted((len(f) for f in files), reverse=True)
    assert errors == sorted(errors)
    assert errors[0] < 8


@pytest.mark.parametrize("format_", FORMATS)
def test_sizes_of_pictures_not_seen_are_predicted(pictures: list[Pixels], format_: Format) -> None:
    config = picture_codec.fit(pictures[:40], format_, (90, 30))
    for quality in range(2):
        ratios = [
            picture_codec.predicted_bytes(p, config)[quality] / len(picture_codec.encode(p, config, quality))
            for p in pictures[40:]
        ]
        assert np.median(np.abs(np.log(ratios))) < 0.15


def test_a_picture_of_another_size_type_or_format_is_refused(pictures: list[Pixels]) -> None:
    webp, jpeg = (picture_codec.fit(pictures, f, (50,)) for f in FORMATS)
    with pytest.raises(CodecError, match=r"picture: \(64, 96, 3\) float64, expected \(64, 96, 3\) uint8"):
        picture_codec.encode(pictures[0].astype(float), webp, 0)
    with pytest.raises(CodecError, match="no picture, expected webp"):
        picture_codec.decode(picture_codec.encode(pictures[0], jpeg, 0), webp)
    other = PictureConfig(64, 64, "webp", (50,), ((0.0, 0.0, 0.0),))
    with pytest.raises(CodecError, match="a picture of 64 x 96 pixels, expected webp of 64 x 64"):
        picture_codec.decode(picture_codec.encode(pictures[0], webp, 0), other)


def test_a_bomb_is_refused_by_its_header(pictures: list[Pixels]) -> None:
    """A few hundred bytes that claim 16,383 x 16,383 pixels are never decoded."""
    config = picture_codec.fit(pictures, "webp", (50,))
    file = bytearray(picture_codec.encode(pictures[0], config, 0))
    file[26:30] = struct.pack("<HH", 16383, 16383)
    with pytest.raises(CodecError, match="a picture of 16383 x 16383 pixels"):
        picture_codec.decode(bytes(file), config)


@pytest.mark.parametrize("format_", FORMATS)
@given(data=st.data())
def test_damage_is_a_picture_or_an_error(pictures: list[Pixels], format_: Format, data: st.DataObject) -> None:
    config = picture_codec.fit(pictures[:5], format_, (50,))
    file = bytearray(picture_codec.encode(pictures[0], config, 0))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = picture_codec.decode(bytes(file[: data.draw(st.integers(0, len(file)))]), config)
    except CodecError:
        return
    assert pixels.shape == (64, 96, 3)
