"""The table of what would be answered if the picture itself were sent: the rival to sending features.

`inputs.npz` lies beside a bundle and names the bundle that it was measured with (`bundling.picture_rival` measures it); a
bundle without one is whole, and only lacks the rivals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.proto.errors import DataError

FILE = "inputs.npz"
QUALITIES = (90, 70, 50, 30, 10)
"""The encoders' qualities, finest first, as a bundle's steps are."""
FORMATS: dict[str, tuple[str, int, int]] = {
    "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY, 0),
    "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY, 20),
}
"""Suffix, name of the quality, bytes of the container around the coded picture."""


@dataclass(frozen=True)
class Inputs:
    """Validation samples (N) by formats (F) and qualities (Q), in the order of `FORMATS` and `QUALITIES`."""

    size_bytes: NDArray[np.uint32]
    """(N, F, Q) bytes to send."""
    label: NDArray[np.uint8 | np.uint16]
    """(N, F, Q) the class that the whole network answered for the decoded picture."""
    confidence: NDArray[np.float16]
    """(N, F, Q) its probability, at the temperature of the bundle's finest point."""


def path_of(bundle: Bundle) -> Path:
    """The path of the table of `bundle`, whether there is one or not."""
    return bundle.folder / FILE


def load(bundle: Bundle) -> Inputs:
    """Read the table of `bundle`; raises DataError saying how to make it when it is missing or of another bundle."""
    path, name = path_of(bundle), bundle.folder.name
    way_out = f"run `isthmus models inputs {name}` to let the rivals send pictures"
    if not path.is_file():
        raise DataError(f"{path}: not there; {way_out}")
    try:
        with np.load(path, allow_pickle=False) as table:
            measured_with = str(table["bundle_sha256"])
            inputs = Inputs(*(table[field] for field in Inputs.__dataclass_fields__))
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path}: not a table of inputs ({error}); {way_out}") from error
    if measured_with != bundle.sha256.hex():
        raise DataError(f"{path}: measured with another bundle ({measured_with[:12]}…); {way_out}")
    return inputs


def fault(bundle: Bundle) -> str | None:
    """Why `bundle` has no table of inputs, and the way out; None when it has one."""
    try:
        load(bundle)
    except DataError as error:
        return str(error)
    return None


def bytes_for(share: float, table: Inputs, truth: NDArray[Any]) -> dict[str, float | None]:
    """The mean bytes that give the right answer for such a share of the pictures, by format, between two qualities.

    The coarsest quality's where that is enough; None where not even the finest is.
    """
    right = (table.label == truth[:, None, None]).mean(0)  # (F, Q)
    size = table.size_bytes.mean(0)
    found: dict[str, float | None] = dict.fromkeys(FORMATS)
    for f, format_ in enumerate(FORMATS):
        enough = np.flatnonzero(right[f] >= share)
        if not len(enough):
            continue
        q = int(enough[-1])  # the coarsest that does
        last = q + 1 == len(QUALITIES)
        over = 0.0 if last else (right[f, q] - share) / (right[f, q] - right[f, q + 1])
        found[format_] = float(size[f, q] if last else size[f, q] + over * (size[f, q + 1] - size[f, q]))
    return found


def save(bundle: Bundle, table: Inputs) -> None:
    """Write the table beside the bundle that it was measured with. Raises DataError when that cannot be written."""
    fields = {name: getattr(table, name) for name in Inputs.__dataclass_fields__}
    try:
        np.savez_compressed(path_of(bundle), bundle_sha256=np.array(bundle.sha256.hex()), **fields)
    except OSError as error:
        raise DataError(f"{path_of(bundle)}: {error.strerror}; copy the bundle to a folder of your own") from error
