"""Operators that move values, as a detector's file has them in front of its first layer and behind its last, in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; distilling needs it")

import torch
from numpy.typing import NDArray

from graphs import Builder
from isthmus.models import flatbuffer
from isthmus.models.flatbuffer import written
from isthmus.models.litert import Signature, opened
from isthmus.models.splitting.cuts import whole
from isthmus.models.training.torch_graph import TorchPart
from isthmus.proto.errors import ModelError
from small_detectors import swish

Cut = Callable[[Builder, int], list[int]]


def ints(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def focused(b: Builder, image: int) -> list[int]:
    """Every other pixel, four ways, one behind the other, as YOLOX begins; then a gate, a border and an enlargement."""
    parts = []
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at = [b.constant(ints(0, row, column, 0)), b.constant(ints(1, 8, 8, 3)), b.constant(ints(1, 2, 2, 1))]
        mask: dict[str, Any] = {"beginMask": 9, "endMask": 15}
        out = b.tensor((1, 4, 4, 3))
        parts.append(b.add("STRIDED_SLICE", [image, *at], [out], "StridedSliceOptions", **mask))
    x = b.add("CONCATENATION", parts, [b.tensor((1, 4, 4, 12))], "ConcatenationOptions", axis=-1)
    x = swish(b, x, (4, 12))
    around = b.constant(np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32))
    x = b.add("PAD", [x, around], [b.tensor((1, 5, 6, 12))], "PadOptions")
    size = b.constant(ints(10, 12))
    x = b.add("RESIZE_NEAREST_NEIGHBOR", [x, size], [b.tensor((1, 10, 12, 12))], "ResizeNearestNeighborOptions")
    pool: dict[str, Any] = {"padding": 0, "strideH": 1, "strideW": 1, "filterHeight": 3, "filterWidth": 3}
    return [b.add("MAX_POOL_2D", [x], [b.tensor((1, 10, 12, 12))], "Pool2DOptions", **pool)]


def placed(b: Builder, image: int) -> list[int]:
    """Cells in a row, their sizes and places put together, and the surest class of each, as YOLOX ends."""
    order = b.constant(ints(0, 3, 1, 2))
    x = b.add("TRANSPOSE", [image, order], [b.tensor((1, 3, 8, 8))], "TransposeOptions")
    x = b.add("RESHAPE", [x, b.constant(ints(1, 3, 64))], [b.tensor((1, 3, 64))], "ReshapeOptions", newShape=[1, 3, 64])
    x = b.add("TRANSPOSE", [x, b.constant(ints(0, 2, 1))], [b.tensor((1, 64, 3))], "TransposeOptions")
    at = [b.constant(ints(0, 0, 1)), b.constant(ints(1, 64, -1))]
    some = b.add("SLICE", [x, *at], [b.tensor((1, 64, 2))], "SliceOptions")
    scale = b.constant(b.rng.normal(size=(1, 64, 1)).astype(np.float32))
    scaled = b.add("MUL", [some, scale], [b.tensor((1, 64, 2))], "MulOptions")
    sizes = b.add("EXP", [some], [b.tensor((1, 64, 2))], "ExpOptions")
    corners = b.add("SUB", [scaled, sizes], [b.tensor((1, 64, 2))], "SubOptions")
    ones = b.constant(np.ones((1, 64, 2), np.float32))
    inside = b.add("SUB", [ones, corners], [b.tensor((1, 64, 2))], "SubOptions")
    last = b.constant(ints(-1))
    surest = b.add("REDUCE_MAX", [x, last], [b.tensor((1, 64))], "ReducerOptions", keepDims=False)
    number = b.add("ARG_MAX", [x, last], [b.tensor((1, 64), np.int32)], "ArgMaxOptions", outputType=2)
    return [inside, b.add("CAST", [number], [b.tensor((1, 64))], "CastOptions", inDataType=2, outDataType=0), surest]


@pytest.mark.parametrize("end", [focused, placed])
def test_a_part_in_torch_computes_what_the_file_computes(end: Cut, tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, 8, 8, 3))
    graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], end(b, image)))
    part = whole(graph, "whole")
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    expected = Signature(opened(written([part])), "whole")(image=x)
    given = torch.from_numpy(np.concatenate([x, -x])).permute(0, 3, 1, 2).requires_grad_()
    found = TorchPart(part)(given)
    for right, tensor in zip(expected.values(), found, strict=True):
        values = tensor.detach()
        values = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
        assert len(values) == 2  # a batch of any size
        np.testing.assert_allclose(values[:1].numpy(), right, atol=1e-4)
    found[0].sum().backward()
    assert given.grad is not None
    assert float(given.grad.abs().sum()) > 0


def test_moves_that_are_not_known_are_named(tmp_path: Path) -> None:
    for kind, options, extra in (
        ("PAD", "PadOptions", np.array([[0, 0], [0, 0], [0, 0], [0, 1]], np.int32)),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", ints(12, 12)),
        ("TRANSPOSE", "TransposeOptions", ints(1, 0, 2, 3)),
    ):
        b = Builder()
        image = b.tensor((1, 8, 8, 3))
        shape = {"PAD": (1, 8, 8, 4), "RESIZE_NEAREST_NEIGHBOR": (1, 12, 12, 3), "TRANSPOSE": (8, 1, 8, 3)}[kind]
        out = b.add(kind, [image, b.constant(extra)], [b.tensor(shape)], options)
        graph = flatbuffer.read(b.write(tmp_path / "model.tflite", [image], [out]))
        with pytest.raises(ModelError, match=rf"a {kind} .* has no gradient here"):
            TorchPart(whole(graph, "whole"))
