"""Measures what would be answered if the picture itself were sent: the rival to sending features, on real pictures.

Every validation picture is coded as JPEG and as WebP at several qualities, decoded, and put through the whole network at
full width without a quantiser (LiteRT head, ONNX tail). The sizes are what a pair of halves would send that knows the
format: what all files of one quality have in common (JPEG's tables, WebP's container) is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle, Outcomes
from isthmus.models.bundling.calibration import softmax
from isthmus.models.bundling.shipped import Shipped
from isthmus.models.data.corpora import validation_of
from isthmus.models.inputs import FORMATS, QUALITIES, Inputs, path_of, save
from isthmus.models.progress import Report
from isthmus.proto.errors import DataError

AGREEMENT = 0.99
"""The undamaged pictures must give the table's own exits in this share of its rows; kernels differ in a few."""
Images = NDArray[np.uint8]
Answers = Callable[[Images], tuple[NDArray[np.int64], NDArray[np.float64]]]
"""Class and confidence (N,) of what the whole network answers."""


def measure(bundle: Bundle, report: Report) -> Path:
    """Code, decode and answer every picture of the outcome table, and write the table beside the bundle; its path.

    Raises ConfigError when no pictures are known for the bundle or onnxruntime is missing, DataError when the pictures
    at hand are not those of its outcome table.
    """
    network, outcomes = _Network(bundle), bundle.outcomes()
    table = tabulated(_pictures(bundle, outcomes, network), outcomes.truth, network.answers, report)
    save(bundle, table)
    return path_of(bundle)


def tabulated(
    images: Images, truth: NDArray[Any], answers: Answers, report: Report, *, side: int | None = None
) -> Inputs:
    """The table of pictures (N, S, S, 3) whose right answers are `truth` (N,); reduced to `side` to be coded, if given."""
    shape = (len(images), len(FORMATS), len(QUALITIES))
    table = Inputs(np.zeros(shape, np.uint32), np.zeros(shape, truth.dtype), np.zeros(shape, np.float16))
    for f, format_ in enumerate(FORMATS):
        for q, quality in enumerate(QUALITIES):
            decoded, sizes = coded(images if side is None else resized(images, side), format_, quality)
            label, confidence = answers(decoded if side is None else resized(decoded, images.shape[1]))
            table.size_bytes[:, f, q], table.label[:, f, q], table.confidence[:, f, q] = sizes, label, confidence
            right = float((label == truth).mean())
            name = format_ if side is None else f"{format_} of {side}×{side} pixels,"
            report(f"{name} {quality}: {sizes.mean():.0f} bytes, accuracy {right:.4f}")
    return table


def coded(images: Images, format_: str, quality: int) -> tuple[Images, NDArray[np.int64]]:
    """Pictures (N, S, S, 3) RGB after coding and decoding, and the bytes (N,) that each takes on the wire."""
    suffix, key, container_bytes = FORMATS[format_]
    files = [cv2.imencode(suffix, image[:, :, ::-1], [key, quality])[1].tobytes() for image in images]
    known = container_bytes + _common_prefix([file[container_bytes:] for file in files])
    return np.stack([_decoded(file) for file in files]), np.array([len(file) - known for file in files])


def resized(images: Images, side: int) -> Images:
    """Pictures (N, S, S, 3) at another size: (N, side, side, 3)."""
    how = cv2.INTER_AREA if side < images.shape[1] else cv2.INTER_CUBIC
    return np.stack([np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8) for image in images])


def _common_prefix(files: list[bytes]) -> int:
    """The number of bytes that all files begin with; one file alone has none in common."""
    first, last = min(files), max(files)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)


def _decoded(file: bytes) -> Images:
    picture = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None  # its own encoder's file
    return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8)


def _pictures(bundle: Bundle, outcomes: Outcomes, network: _Network) -> Images:
    """The pictures of the outcome table, proved to be them by their classes and by what the exits answer."""
    name = bundle.manifest.name
    pictures = validation_of(bundle.manifest, None, most=len(outcomes.truth)).pictures
    if len(pictures) != len(outcomes.truth) or (pictures.labels != outcomes.truth).any():
        raise DataError(f"{name}: the pictures here are not those of its outcome table; export the bundle again")
    same = float((network.exit_labels(pictures.images) == outcomes.label[:, network.exit_column]).mean())
    if same < AGREEMENT:
        raise DataError(f"{name}: its head agrees with its outcome table in {same:.1%} only; export the bundle again")
    return pictures.images


class _Network:
    """The whole network at full width, in the files that are shipped."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._halves, self._width = Shipped(bundle), max(manifest.widths)
        finest = max((p for p in manifest.points if p.width == self._width and p.step == 0), key=lambda p: p.layers)
        self._temperature = finest.temperature
        last = len(manifest.stages) - 1
        self.exit_column = next(i for i, p in enumerate(manifest.points) if p.width == self._width and p.exit == last)

    def exit_labels(self, images: Images) -> NDArray[np.int64]:
        """The classes (N,) that the last exit answers."""
        return np.asarray(self._halves.head(images, self._width)[1][-1].argmax(axis=1), np.int64)

    def answers(self, images: Images) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Class and confidence (N,) of the tail's answers."""
        probability = softmax(self._halves.tail(self._halves.head(images, self._width)[0]), self._temperature)
        return probability.argmax(axis=1), probability.max(axis=1)
