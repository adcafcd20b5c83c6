"""A detector's two halves as the files of its bundle run them, over many pictures: what was shipped, not what was trained."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake

BATCH = 32
Maps = NDArray[np.float32]


class Shipped:
    """A bundle made here, as `measuring.Halves`; with another `head` of the same signatures."""

    def __init__(self, bundle: Bundle, head: bytes | None = None) -> None:
        manifest = bundle.manifest
        interpreter = opened(bundle.head_path if head is None else head)
        self._stages = {w: Signature(interpreter, bundle.stage(0, w).signature) for w in manifest.widths}
        (self._exit,) = bundle.stage(0, manifest.widths[0]).exit
        self._tail = onnxruntime.InferenceSession(str(bundle.tail_path), providers=["CPUExecutionProvider"])
        self._intake = Intake(manifest.input)

    def head(self, images: NDArray[np.uint8], width: float) -> tuple[Maps, Maps]:
        """See `measuring.Halves`."""
        found = [self._stages[width](image=self._intake(image)) for image in images]
        return np.concatenate([out["features"] for out in found]), np.concatenate([out[self._exit] for out in found])

    def tail(self, features: Maps) -> Maps:
        """See `measuring.Halves`."""
        batches = [features[i : i + BATCH] for i in range(0, len(features), BATCH)]
        return np.concatenate([self._tail.run(None, {"features": batch})[0] for batch in batches])
