"""What runs a tail: features in, logits out. One class for each engine, one line of registration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from isthmus.proto.errors import BundleError

INPUT, OUTPUT = "features", "logits"


class Engine(Protocol):
    """A tail, ready to run; called by one thread at a time."""

    def run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (B, H, W, C) to logits (B, K)."""


class OnnxEngine:
    """ONNX Runtime on the CPU, with `threads` threads for one batch."""

    def __init__(self, path: Path, threads: int) -> None:
        """Raises BundleError naming the file when it cannot be read or is no tail."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen, without a common base
            raise BundleError(f"{path}: not a tail that ONNX Runtime can read ({error})") from error
        inputs = [port.name for port in self._session.get_inputs()]
        outputs = [port.name for port in self._session.get_outputs()]
        if inputs != [INPUT] or OUTPUT not in outputs:
            raise BundleError(f"{path}: takes {inputs} and gives {outputs}, expected ['{INPUT}'] and '{OUTPUT}'")

    def run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (B, H, W, C) to logits (B, K)."""
        logits: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: features})[0]
        return logits


ENGINES: dict[str, Callable[[Path, int], Engine]] = {"onnx": OnnxEngine}
