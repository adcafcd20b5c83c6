"""The neural filter at work on the device: one picture in, whether the head need not see it, and what to answer then."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from isthmus.models import filters, trial
from isthmus.models.bundle import Manifest
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake
from isthmus.proto.errors import BundleError, ModelError
from isthmus.proto.vocabulary import Guess

NOTHING = ("nothing", "background")
"""What a bundle may call a picture without anything of interest, likeliest first."""


class NeuralFilter:
    """A filter in front of one bundle. Belongs to the thread that runs the head."""

    def __init__(self, trained: filters.Filter, bundle: Manifest, *, threads: int = 1) -> None:
        """Raises BundleError when the network is not one of a filter."""
        try:
            trial.check(trained.path)
            self._network = Signature(opened(trained.path, threads=threads), filters.SIGNATURE)
        except (ModelError, ValueError, RuntimeError) as error:
            raise BundleError(f"{trained.path}: not the network of a filter ({error})") from error
        self.path = trained.path
        self._facts, self._intake = trained.manifest, Intake(trained.manifest.input)
        self._detects = bundle.task == "detection"
        self._label = next((bundle.labels.index(name) for name in NOTHING if name in bundle.labels), None)

    def __call__(self, pixels: NDArray[Any]) -> tuple[bool, Guess | None]:
        """Whether (H, W, 3) RGB is dismissed, and the answer to it in the bundle's words, if it has any for nothing."""
        score = float(filters.score(self._network(image=self._intake(pixels))["cells"])[0])
        if score >= self._facts.threshold:
            return False, None
        return True, self._guess(1 / (1 + math.exp(max(-60.0, min(60.0, score / self._facts.temperature)))))

    def _guess(self, confidence: float) -> Guess | None:
        if self._detects:
            return Guess(0, confidence, ())
        return None if self._label is None else Guess(self._label, confidence)
