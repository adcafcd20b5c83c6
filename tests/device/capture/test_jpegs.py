"""MJPEG out of a pipe: pictures are found whole, however the bytes come and whatever lies between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.device.capture.sources import jpegs
from isthmus.device.capture.sources.jpegs import JpegSplitter


def jpeg(value: int, *options: int) -> bytes:
    picture = np.random.default_rng(value).integers(0, 255, (24, 40, 3), np.uint8)
    return cv2.imencode(".jpg", picture, list(options))[1].tobytes()


def with_thumbnail(content: bytes) -> bytes:
    """The same picture with another one in its header, as cameras write them."""
    inner = b"Exif\0\0" + jpeg(9)
    return content[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + content[2:]


PICTURES = [
    jpeg(0),
    jpeg(1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    with_thumbnail(jpeg(2)),
    jpeg(3, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    jpeg(4, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
]
BETWEEN = b"\r\n--boundary\r\nContent-Type: image/jpeg\r\nContent-Length: 77\r\n\r\n"


@pytest.mark.parametrize("between", [b"", BETWEEN, b"\xff", b"\xff\xd9\0\xff"])
@pytest.mark.parametrize("at_once", [1, 7, 100_000])
def test_every_picture_is_found_whole_however_its_bytes_come(between: bytes, at_once: int) -> None:
    stream = between + between.join(PICTURES) + between
    splitter, found = JpegSplitter(), []
    for start in range(0, len(stream), at_once):
        found += splitter.feed(stream[start : start + at_once])
    assert found == PICTURES


def test_a_picture_that_was_cut_off_costs_itself() -> None:
    cut = PICTURES[0][: len(PICTURES[0]) // 2]
    found = JpegSplitter().feed(cut + PICTURES[1] + PICTURES[2] + PICTURES[3])
    assert found[-1] == PICTURES[3]
    assert PICTURES[2] in found


def test_what_never_ends_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpegs, "MOST_BYTES", 10_000)
    splitter = JpegSplitter()
    found = splitter.feed(PICTURES[0][:-2])
    for _ in range(30):
        found += splitter.feed(bytes(1000))
    found += splitter.feed(PICTURES[1])
    assert found == [PICTURES[1]]
    assert splitter.passed_over > 10_000


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PICTURES), st.binary(max_size=40), st.just(b"\xff\xd8\xff")), max_size=12))
def test_garbage_is_never_an_error_and_little_is_kept(chunks: list[bytes]) -> None:
    splitter, given_bytes, found = JpegSplitter(), 0, []
    for chunk in chunks:
        given_bytes += len(chunk)
        found += splitter.feed(chunk)
    assert sum(map(len, found)) + splitter.passed_over <= given_bytes
    assert all(picture.startswith(b"\xff\xd8\xff") and picture.endswith(b"\xff\xd9") for picture in found)
