"""A bundle's head on the server, at full width and uncut: for clients that have nothing but a picture. Holds an interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models import crossing, seal, trial
from isthmus.models.bundle import Bundle
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake
from isthmus.proto.errors import BundleError, ModelError

Floats = NDArray[np.float32]


class Head:
    """Pictures to features. One thread at a time."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError when the head is not there, or not this bundle's."""
        path, manifest = bundle.head_path, bundle.manifest
        seal.verify(path, manifest.files.get(path.name))
        self._bottleneck = manifest.bottleneck
        self._stages: list[tuple[Signature, Intake]] = []
        try:
            trial.check(path)
            interpreter = opened(path)
            for index in range(len(manifest.stages)):
                stage = bundle.stage(index, manifest.widths[-1])
                if stage.signature:
                    signature = Signature(interpreter, stage.signature)
                    self._stages.append((signature, Intake(stage.input or manifest.input)))
        except (ModelError, ValueError, RuntimeError) as error:
            raise BundleError(f"{path}: not a head of this bundle ({error})") from error

    def features(self, pixels: NDArray[Any]) -> Floats:
        """The features (H, W, C) of a picture (H, W, 3) RGB, uint8, as they are before anything is quantised."""
        out: dict[str, Floats] = {}
        hidden: Floats | None = None
        for signature, intake in self._stages:
            given = {"image": intake(pixels)} if "image" in signature.inputs else {"hidden": hidden}
            out = signature(**given)
            hidden = out.get("hidden", hidden)
        return crossing.joined(out, self._bottleneck)
