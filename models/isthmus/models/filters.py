"""A neural filter on disk: a tiny network that tells whether a picture shows anything of interest, and from which score on.

A filter belongs to a camera, not to a bundle: the server knows nothing of it, and any bundle runs behind it. It is a folder of
`filter.toml`, read as strictly as a bundle's, and `filter.tflite` with one signature, `filter(image) -> cells`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models import bundle_check
from isthmus.models.picture_ladder import Input, Strict
from isthmus.proto.compat import tomllib
from isthmus.proto.errors import BundleError

SCHEMA = 1
FILE, NETWORK, SIGNATURE = "filter.toml", "filter.tflite", "filter"
SHARPNESS = 3.0
"""The larger it is, the closer the score is to the greatest cell's logit, rather than to the mean's."""


class Score(Strict, frozen=True):
    """What a filter did to frames that it was neither trained nor its threshold chosen on. Shares are 0 to 1."""

    interesting: int
    """The number of frames that show something of interest."""
    empty: int
    auc: float | None
    """The probability that an interesting frame scores above an empty one; None without either."""
    lost: float | None
    """The share of interesting frames that were dismissed."""
    dismissed: float | None
    """The share of empty frames that were dismissed."""
    visits: int
    """The number of runs of interesting frames."""
    visits_lost: int
    """The runs of which every frame was dismissed."""


class FilterManifest(Strict, frozen=True):
    """The content of `filter.toml`."""

    schema: int
    name: str
    input: Input
    threshold: float
    """Frames that score less are dismissed."""
    temperature: float
    """1 / (1 + exp(score / temperature)) is the probability that there is nothing."""
    flops: int
    score: Score
    sha256: str
    """The hash of the network's file, hexadecimal."""
    made_by: str = ""


@dataclass(frozen=True)
class Filter:
    """A verified filter on disk."""

    folder: Path
    manifest: FilterManifest

    @property
    def path(self) -> Path:
        """The network's file."""
        return self.folder / NETWORK


def load(folder: Path) -> Filter:
    """Read and verify a filter. Raises BundleError that names the file and the key."""
    path, network = folder / FILE, folder / NETWORK
    try:
        manifest = msgspec.convert(tomllib.loads(path.read_text()), FilterManifest)
        found = hashlib.sha256(network.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{error.filename}: {error.strerror}; `isthmus models filter` makes a filter") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BundleError(f"{path}: {error}") from error
    if manifest.schema != SCHEMA:
        raise BundleError(f"{path}: schema {manifest.schema}, this Isthmus reads {SCHEMA}; install the newer one")
    if fault := next(_faults(manifest), None):
        raise BundleError(f"{path}: {fault}; make it again")
    if found != manifest.sha256:
        raise BundleError(f"{network}: sha256 {found[:12]}…, {FILE} says {manifest.sha256[:12]}…; make it again")
    return Filter(folder, manifest)


def _faults(manifest: FilterManifest) -> Iterator[str]:
    yield from bundle_check.picture_faults(manifest.input)
    if not math.isfinite(manifest.threshold) or not 0 < manifest.temperature < math.inf:
        yield "threshold and temperature must be finite, temperature above 0"


def score(cells: NDArray[Any]) -> NDArray[np.float64]:
    """The scores (N,) of cells' logits (N, ...): their soft maximum, log(mean exp(s z)) / s with s = SHARPNESS."""
    z = SHARPNESS * np.asarray(cells, np.float64).reshape(len(cells), -1)
    greatest = z.max(axis=1)
    return np.asarray((greatest + np.log(np.exp(z - greatest[:, None]).mean(axis=1))) / SHARPNESS, np.float64)
