"""Gives an older bundle what its own outcome table can still tell: which samples judge, and predictors. Networks stay."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models import inputs
from isthmus.models.bundle import Bundle, Outcomes
from isthmus.models.bundling import calibration, writer
from isthmus.models.bundling.evaluate import save, with_predictors
from isthmus.proto.errors import BundleError, DataError

ALIKE = 0.005
"""Mean difference of recounted tables: the outcome table keeps confidences with three digits, so some change bins."""
BESIDE = ("MODEL_CARD.md", "accuracy_bytes.png")


def recounted(bundle: Bundle, target: Path, calibrating: NDArray[np.bool_]) -> Bundle:
    """The bundle with predictors and a marked outcome table at `target`, in the place of an older one.

    `calibrating` (N,) are the samples that its tables were counted on: BundleError unless they say what these tables do.
    """
    outcomes, name = bundle.outcomes(), bundle.folder.name
    if len(calibrating) != len(outcomes.truth) or _difference(bundle, outcomes, calibrating) > ALIKE:
        raise BundleError(f"{name}: its tables were not counted on the usual half of its samples; export it again")
    outcomes = replace(outcomes, calibrating=calibrating)
    manifest = with_predictors(bundle.manifest, outcomes)

    def fill(folder: Path) -> None:
        for file in bundle.manifest.files:
            if file != "outcomes.npz":
                shutil.copyfile(bundle.folder / file, folder / file)
        save(folder, outcomes)

    beside = {file: (bundle.folder / file).read_bytes() for file in BESIDE if (bundle.folder / file).is_file()}
    try:
        pictures = inputs.load(bundle)
    except DataError:
        pictures = None
    made = writer.write(target, msgspec.structs.replace(manifest, files={}), fill)
    for file, content in beside.items():
        (made.folder / file).write_bytes(content)
    if pictures is not None:
        inputs.save(made, pictures)
    return made


def _difference(bundle: Bundle, outcomes: Outcomes, held_in: NDArray[np.bool_]) -> float:
    """By how much the bundle's conditional accuracies differ from those of `held_in`, in the mean over all."""
    m, right = bundle.manifest, outcomes.label == outcomes.truth[:, None]
    if outcomes.score is not None:
        return float("inf")
    differences = []
    for i, point in enumerate(m.points):
        exits = sorted((p.exit, e) for e, p in enumerate(m.points) if p.width == point.width and p.exit is not None)
        for (_, e), said in zip(exits, point.accuracy_given, strict=True):
            confidence = outcomes.confidence[held_in, e]
            found = calibration.accuracy_by_confidence(confidence, right[held_in, i], m.confidence_edges)
            differences.append(np.abs(np.subtract(found, said)).mean())
    return float(np.mean(differences))
