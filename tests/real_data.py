"""Real models, pictures and traces (`ISTHMUS_DATA`, `ISTHMUS_TRACES`); tests that need them skip by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isthmus.models.pictures import data_root
from isthmus.proto.errors import DataError

TRACES = Path(os.environ.get("ISTHMUS_TRACES", "traces-not-given"))
needs_traces = pytest.mark.skipif(
    not TRACES.is_dir(), reason=f"recorded traces: {TRACES}: not there; set ISTHMUS_TRACES to their folder"
)
MODELS = (
    "cifar10_resnet8_f32",
    "cifar10_resnet8_int8",
    "cifar10_resnet_large_int8",
    "deeplabv3_mnv2_dm05_pascal_quant",
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.5_160_quant",
    "mobilenet_v2_1.0_224_quant",
    "vww96_mobilenet_f32",
    "vww96_mobilenet_int8",
)


def data(name: str) -> Path:
    """The file or folder `name` under the data folder; skips the test when it is not there."""
    try:
        path = data_root() / name
    except DataError as error:
        pytest.skip(str(error))
    if not path.exists():
        pytest.skip(f"{path}: not there; set ISTHMUS_DATA to the folder that holds it")
    return path


def model(name: str) -> Path:
    """A real `.tflite`."""
    return data(f"models/{name}.tflite")
