"""The two halves as the files of a bundle run them, over many pictures: what was shipped, not what was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.models.litert import Signature, opened
from isthmus.proto.errors import BundleError, ConfigError

BATCH = 250
"""The features that the tail is given at once: more of them only take memory."""
Floats = NDArray[np.float32]


class Shipped:
    """A bundle for classification with an ONNX tail, as `evaluate.Halves`; with another `head` of the same signatures.

    Raises ConfigError when onnxruntime is missing, BundleError naming a file that cannot be read or a bundle whose task
    or tail is another.
    """

    def __init__(self, bundle: Bundle, head: bytes | None = None) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise ConfigError(
                f"{error.name}: not installed; this needs the 'server' extra: pip install 'isthmus[server]' "
                "('.[server]' in a checkout)"
            ) from error
        manifest = bundle.manifest
        if manifest.task != "classification" or [part.engine for part in manifest.tail] != ["onnx"]:
            raise BundleError(f"{bundle.folder.name}: not a classification bundle with one ONNX tail")
        try:
            self._tail: Any = ort.InferenceSession(str(bundle.tail_path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen, without a common base
            raise BundleError(f"{bundle.tail_path}: not a tail that ONNX Runtime can read ({error})") from error
        interpreter = opened(bundle.head_path if head is None else head)
        self._stages = {
            width: [Signature(interpreter, bundle.stage(i, width).signature) for i in range(len(manifest.stages))]
            for width in manifest.widths
        }
        self._mean = np.asarray(manifest.input.mean, np.float32)
        self._std = np.asarray(manifest.input.std, np.float32)

    def head(self, images: NDArray[np.uint8], width: float) -> tuple[Floats, list[Floats]]:
        """See `evaluate.Halves`."""
        features: list[Floats] = []
        exits: list[list[Floats]] = [[] for _ in self._stages[width]]
        for image in images:
            out = {"hidden": ((image.astype(np.float32) / 255 - self._mean) / self._std)[None]}
            for stage, logits in zip(self._stages[width], exits, strict=True):
                (taken,) = stage.inputs
                out = stage(**{taken: out["hidden"]})
                logits.append(out["logits"])
            features.append(out["features"])
        return np.concatenate(features), [np.concatenate(logits) for logits in exits]

    def tail(self, features: Floats) -> Floats:
        """See `evaluate.Halves`."""
        batches = [features[i : i + BATCH] for i in range(0, len(features), BATCH)]
        return np.concatenate([self._tail.run(["logits"], {"features": batch})[0] for batch in batches])
