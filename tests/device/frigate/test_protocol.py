"""Frigate's messages: what is a picture, what is not, and what goes back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from isthmus.device.frigate import protocol
from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Box

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def taken(values: NDArray[Any], channels: protocol.Channels = "rgb") -> NDArray[np.uint8]:
    header = {"shape": list(values.shape), "dtype": values.dtype.name, "model_type": "ssd"}
    return protocol.picture(protocol.header(json.dumps(header).encode()), values.tobytes(), channels)


@pytest.mark.parametrize(
    "sent",
    [
        PICTURE,
        PICTURE[None],
        PICTURE.transpose(2, 0, 1)[None],
        PICTURE.astype(np.float32),
        (PICTURE / 255).astype(np.float32)[None],
    ],
    ids=["as it is", "a batch of one", "channels first", "grey levels", "shares"],
)
def test_every_form_that_frigate_gives_is_the_same_picture(sent: NDArray[Any]) -> None:
    assert (taken(sent) == PICTURE).all()
    assert (taken(sent, "bgr") == PICTURE[..., ::-1]).all()


@pytest.mark.parametrize(
    ("header", "tensor", "why"),
    [
        ({"shape": [1, 4, 5, 4], "dtype": "uint8"}, bytes(80), "set Frigate's input_tensor to nhwc"),
        ({"shape": [2, 4, 5, 3], "dtype": "uint8"}, bytes(120), "set Frigate's input_tensor to nhwc"),
        ({"shape": [-4, -5, 3], "dtype": "uint8"}, b"", "shape"),
        ({"shape": [0, 5, 3], "dtype": "uint8"}, b"", "shape"),
        ({"shape": [99999, 99999, 3], "dtype": "uint8"}, b"", "shape"),
        ({"dtype": "uint8"}, b"", "shape"),
        ({"shape": [4, 5, 3], "dtype": "int8"}, bytes(60), "set Frigate's input_dtype to int"),
        ({"shape": [4, 5, 3], "dtype": "uint8"}, bytes(59), "59 bytes, its header says"),
        ({"shape": [1, 1, 3], "dtype": "float32"}, np.array([0, np.nan, 1], "<f4").tobytes(), "NaN"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_way_out(header: dict[str, Any], tensor: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        protocol.picture(protocol.header(json.dumps(header).encode()), tensor)


def test_boxes_go_back_as_twenty_rows_surest_first_and_cut_off_at_the_edges() -> None:
    boxes = [Box(7, 0.9, -0.25, 0.1, 0.5, 1.2), *(Box(1, 0.5, 0.1, 0.2, 0.3, 0.4) for _ in range(30))]
    header, rows = protocol.detections(boxes)
    assert json.loads(header) == {"shape": [20, 6], "dtype": "float32"}
    found = np.frombuffer(rows, np.float32).reshape(20, 6)
    assert found[0] == pytest.approx([7, 0.9, 0.0, 0.1, 0.5, 1.0])
    assert found[19] == pytest.approx([1, 0.5, 0.1, 0.2, 0.3, 0.4])
    assert not np.frombuffer(protocol.detections(())[1], np.float32).any()


def test_frigate_is_told_that_its_model_is_here_and_that_none_is_taken() -> None:
    (there,) = protocol.model_is_here(protocol.header(b'{"model_request": true, "model_name": "yolo.onnx"}'))
    assert json.loads(there) == {"model_available": True, "model_loaded": True, "model_saved": True}
    (kept,) = protocol.model_is_here(protocol.header(b'{"model_data": true, "model_name": "yolo.onnx"}'))
    assert json.loads(kept)["model_saved"] is False


HEADERS = st.one_of(
    st.binary(max_size=200),
    st.fixed_dictionaries(
        {
            "shape": st.lists(st.integers(-4, 6) | st.integers(), max_size=5),
            "dtype": st.sampled_from(["uint8", "float32", "O"]),
        }
    ).map(lambda told: json.dumps(told).encode()),
)


@given(HEADERS, st.binary(max_size=200))
def test_nothing_that_is_sent_is_more_than_refused(header: bytes, tensor: bytes) -> None:
    try:
        found = protocol.picture(protocol.header(header), tensor)
    except DataError:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
