"""Tensors of the Open Inference Protocol: both forms to arrays, and everything else to one sentence."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.edge_server.inference.tensors import ANY, Port, split, write
from isthmus.proto import inference_pb2 as pb
from isthmus.proto.errors import WireError

FEATURES = Port("features", "FP32", (ANY, 2, 3))
PAYLOAD = Port("payload", "BYTES", (ANY, ANY))
PIXELS = Port("picture", "UINT8", (ANY, ANY, ANY, 3))


def request(datatype: str, shape: tuple[int, ...], raw: bytes | None = None, **contents: Any) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest()
    asked.inputs.add(name="x", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents))
    if raw is not None:
        asked.raw_input_contents.append(raw)
    return asked


def test_a_tensor_is_the_same_raw_and_typed() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    raw = FEATURES.read(request("FP32", (2, 2, 3), values.tobytes()), 0)
    typed = FEATURES.read(request("FP32", (2, 2, 3), fp32_contents=values.ravel().tolist()), 0)
    np.testing.assert_array_equal(raw, values)
    np.testing.assert_array_equal(typed, values)
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    np.testing.assert_array_equal(PIXELS.read(request("UINT8", (1, 2, 4, 3), pixels.tobytes()), 0), pixels)
    np.testing.assert_array_equal(
        PIXELS.read(request("UINT8", (1, 2, 4, 3), uint_contents=pixels.ravel().tolist()), 0), pixels
    )
    assert PAYLOAD.read(request("BYTES", (1, 2), bytes_contents=[b"ab", b""]), 0).tolist() == [[b"ab", b""]]


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_strings_come_back_as_they_went(strings: list[bytes]) -> None:
    response = pb.ModelInferResponse()
    values = np.empty(len(strings), object)
    values[:] = strings
    write(response, Port("answer", "BYTES", (ANY,)), values)
    assert split(response.raw_output_contents[0], "answer") == strings


@given(st.binary(max_size=40))
def test_whatever_bytes_there_are_strings_are_found_or_refused(raw: bytes) -> None:
    with contextlib.suppress(WireError):
        assert b"".join(struct.pack("<I", len(v)) + v for v in split(raw, "payload")) == raw


@pytest.mark.parametrize(
    ("port", "asked", "why"),
    [
        (FEATURES, request("FP64", (1, 2, 3), b"x" * 48), r"features: FP64 \(1, 2, 3\), expected FP32 \(any, 2, 3\)"),
        (FEATURES, request("FP32", (1, 3, 2), b"x" * 24), r"features: FP32 \(1, 3, 2\), expected"),
        (FEATURES, request("FP32", (2, 3), b"x" * 24), r"features: FP32 \(2, 3\), expected"),
        (FEATURES, request("FP32", (0, 2, 3), b""), r"features: FP32 \(0, 2, 3\), expected"),
        (FEATURES, request("FP32", (-1, 2, 3), b"x" * 24), r"features: FP32 \(-1, 2, 3\), expected"),
        (FEATURES, request("FP32", (1, 2, 3), b"x" * 23), "features: 23 bytes for a shape of 24"),
        (FEATURES, request("FP32", (1, 2, 3), fp32_contents=[1.0] * 5), "features: 5 values for a shape of 6"),
        (FEATURES, request("FP32", (1, 2, 3)), "features: 0 values for a shape of 6"),
        (FEATURES, request("FP32", (2**62, 2, 3), b"x" * 24), "features: FP32 .4611686018427387904, 2, 3., expected"),
        (
            PIXELS,
            request("UINT8", (1, 1, 1, 3), uint_contents=[0, 256, 1]),
            "picture: a value of 256, expected at most",
        ),
        (PAYLOAD, request("BYTES", (1, 1), b"\xff\xff\xff\xffab"), "payload: cut off"),
        (PAYLOAD, request("BYTES", (1, 1), b"\x01\0"), "payload: cut off"),
        (PAYLOAD, request("BYTES", (1, 2), b"\x01\0\0\0a"), "payload: 1 values for a shape of 2"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(port: Port, asked: pb.ModelInferRequest, why: str) -> None:
    with pytest.raises(WireError, match=why) as error:
        port.read(asked, 0)
    assert "\n" not in str(error.value)


def test_fewer_raw_contents_than_inputs_are_named() -> None:
    asked = request("FP32", (1, 2, 3), b"x" * 24)
    asked.inputs.add(name="y", datatype="FP32", shape=(1, 2, 3))
    with pytest.raises(WireError, match="features: 1 raw contents for 2 inputs"):
        FEATURES.read(asked, 1)
