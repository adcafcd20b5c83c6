"""Frigate's detector protocol, its messages as values: pictures in, boxes out. Pure: no socket, no clock.

A request is two parts: JSON that tells `shape`, `dtype` and `model_type`, and the tensor's bytes, row by row. The reply is two
parts as well: JSON, and 20 rows of float32 (class, score, top, left, bottom, right), places in shares of the picture, the
surest first, zeros where there are fewer. Before it asks for the first time, Frigate (0.17 and later) wants to know whether
its model is there, in one part of JSON, and is told so in one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.proto.errors import DataError
from isthmus.proto.vocabulary import Box

ROWS, COLUMNS = 20, 6
MOST_PIXELS = 1 << 24
"""A picture of more is refused before memory is asked for; Frigate gives squares of a few hundred pixels a side."""
MOST_HEADER_BYTES = 4096
Channels = Literal["rgb", "bgr"]
_SHOWN: dict[str, type[np.generic]] = {"uint8": np.uint8, "float32": np.float32}
"""The numbers that a picture may come in; floats up to 1 are shares of 255."""


class Header(msgspec.Struct, frozen=True):
    """What the first part of a request says; keys that we do not know are passed over."""

    shape: tuple[int, ...] | None = None
    dtype: str = "uint8"
    model_type: str = ""
    model_request: bool = False
    model_data: bool = False
    model_name: str = ""


def header(part: bytes) -> Header:
    """The first part of a request. Raises DataError when it is none."""
    try:
        if len(part) > MOST_HEADER_BYTES:
            raise ValueError(f"{len(part)} bytes")
        return msgspec.json.decode(part, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"request: its header is not the JSON that Frigate sends ({error})") from error


def picture(told: Header, tensor: bytes, channels: Channels = "rgb") -> NDArray[np.uint8]:
    """The picture (H, W, 3) RGB of a request's tensor: (H, W, 3) or (3, H, W), with or without a batch of one before it.

    Raises DataError when it is of another form, or its bytes are not as many as it says.
    """
    shape = told.shape or ()
    plain = shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
    if len(plain) != 3 or 3 not in (plain[0], plain[2]) or min(plain) < 1 or math.prod(plain) > 3 * MOST_PIXELS:
        raise DataError(f"request: shape {list(shape)}; set Frigate's input_tensor to nhwc, of one RGB picture")
    if (kind := _SHOWN.get(told.dtype)) is None:
        raise DataError(f"request: dtype '{told.dtype}'; set Frigate's input_dtype to int")
    count = math.prod(plain)
    if len(tensor) != count * np.dtype(kind).itemsize:
        raise DataError(f"request: {len(tensor)} bytes, its header says {list(shape)} of {told.dtype}")
    values: NDArray[Any] = np.frombuffer(tensor, kind).reshape(plain)
    values = values if plain[2] == 3 else values.transpose(1, 2, 0)
    values = values if channels == "rgb" else values[..., ::-1]
    levels: NDArray[np.uint8] = np.ascontiguousarray(values) if kind is np.uint8 else _grey_levels(values)
    return levels


def _grey_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise DataError("request: values that are NaN or infinite")
    scale = 255.0 if values.max() <= 1 else 1.0
    return np.asarray(np.clip(np.rint(values * scale), 0, 255), np.uint8)


def detections(boxes: Sequence[Box]) -> list[bytes]:
    """The reply for boxes, the surest first: the first 20 of them, cut off at the picture's edges."""
    rows = np.zeros((ROWS, COLUMNS), "<f4")
    for row, box in zip(rows, boxes, strict=False):
        places = (min(max(edge, 0.0), 1.0) for edge in (box.top, box.left, box.bottom, box.right))
        row[:] = box.label, box.score, *places
    return [msgspec.json.encode({"shape": [ROWS, COLUMNS], "dtype": "float32"}), rows.tobytes()]


def model_is_here(told: Header) -> list[bytes]:
    """The reply to Frigate's question for its model: ours is loaded, whatever Frigate calls it; none is taken from it."""
    return [msgspec.json.encode({"model_available": True, "model_loaded": True, "model_saved": not told.model_data})]
