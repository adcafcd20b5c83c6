"""Tensors as the Open Inference Protocol carries them, to arrays and back, each checked against what was expected. Pure.

A tensor's values lie raw in the request (little-endian; strings each behind its length), or typed in the tensor itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.proto import inference_pb2 as pb
from isthmus.proto.errors import WireError
from isthmus.proto.printable import printable

ANY = -1
MOST_BYTES = 1 << 31
"""A shape that means more is refused before anything is multiplied out."""
TYPES: Mapping[str, tuple[str, str]] = {
    "UINT8": ("u1", "uint_contents"),
    "FP32": ("<f4", "fp32_contents"),
    "BYTES": ("O", "bytes_contents"),
}
"""The types that cross here: how numpy calls each, and where it lies when it is not raw."""


@dataclass(frozen=True)
class Port:
    """One input or output of a model."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """The batch first; ANY where a size is free."""

    @property
    def metadata(self) -> pb.ModelMetadataResponse.TensorMetadata:
        """The port as a client is told of it."""
        return pb.ModelMetadataResponse.TensorMetadata(name=self.name, datatype=self.datatype, shape=self.shape)

    def __str__(self) -> str:
        sizes = ", ".join("any" if size == ANY else str(size) for size in self.shape)
        return f"{self.datatype} ({sizes})"

    def read(self, request: pb.ModelInferRequest, index: int) -> NDArray[Any]:
        """The array at this port, input `index` of a request. Raises WireError in one sentence on anything else."""
        tensor = request.inputs[index]
        shape = tuple(tensor.shape)
        fits = len(shape) == len(self.shape) and all(
            size > 0 and want in (ANY, size) for size, want in zip(shape, self.shape, strict=True)
        )
        if tensor.datatype != self.datatype or not fits or math.prod(shape) >= MOST_BYTES:
            given = f"{printable(tensor.datatype, 16)} ({', '.join(map(str, shape[:8]))})"
            raise WireError(f"{self.name}: {given}, expected {self}")
        if not request.raw_input_contents:
            return self._typed(tensor, shape)
        if index >= len(request.raw_input_contents):
            raise WireError(
                f"{self.name}: {len(request.raw_input_contents)} raw contents for {len(request.inputs)} inputs"
            )
        return self._raw(request.raw_input_contents[index], shape)

    def _raw(self, raw: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
        if self.datatype == "BYTES":
            return self._shaped(split(raw, self.name), shape)
        dtype = np.dtype(TYPES[self.datatype][0])
        if len(raw) != (expected := math.prod(shape) * dtype.itemsize):
            raise WireError(f"{self.name}: {len(raw)} bytes for a shape of {expected}")
        return np.frombuffer(raw, dtype).reshape(shape)

    def _typed(self, tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> NDArray[Any]:
        values = list(getattr(tensor.contents, TYPES[self.datatype][1]))
        if self.datatype == "UINT8" and max(values, default=0) > 255:
            raise WireError(f"{self.name}: a value of {max(values)}, expected at most 255")
        return self._shaped(values, shape)

    def _shaped(self, values: Sequence[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if len(values) != math.prod(shape):
            raise WireError(f"{self.name}: {len(values)} values for a shape of {math.prod(shape)}")
        flat = np.empty(len(values), TYPES[self.datatype][0])
        flat[:] = values
        return flat.reshape(shape)


def split(raw: bytes, name: str) -> list[bytes]:
    """Strings that lie one behind the other, each behind its length (4 bytes, little-endian). Raises WireError."""
    found, start = list[bytes](), 0
    while start < len(raw):
        end = start + 4 + (struct.unpack_from("<I", raw, start)[0] if start + 4 <= len(raw) else len(raw))
        if end > len(raw):
            raise WireError(f"{name}: cut off; each string stands behind its length in 4 bytes")
        found.append(raw[start + 4 : end])
        start = end
    return found


def write(response: pb.ModelInferResponse, port: Port, values: NDArray[Any]) -> None:
    """Append an output to a response, raw."""
    response.outputs.add(name=port.name, datatype=port.datatype, shape=values.shape)
    if port.datatype == "BYTES":
        response.raw_output_contents.append(b"".join(struct.pack("<I", len(v)) + v for v in values.ravel()))
    else:
        response.raw_output_contents.append(values.astype(TYPES[port.datatype][0]).tobytes())
