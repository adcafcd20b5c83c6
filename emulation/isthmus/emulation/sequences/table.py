"""The table of whole clips, frame after frame: what every operating point found in each, and where it went from there.

`sequences.npz` lies beside a bundle and names the networks that it was measured with (`emulation.sequences` measures and
plays it). Frames keep their order; boxes are kept by operating point, payloads by width, step and layer, and what was found
in a frame is followed through those after it, so that boxes by age need no pictures. A bundle without one is whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Bundle
from isthmus.proto.errors import DataError

FILE = "sequences.npz"
Table = NDArray[Any]


@dataclass(frozen=True)
class Sequences:
    """N frames of C clips by operating points (P) in the order of `Manifest.points`, then pictures by quality (Q).

    Boxes are rows; places are top, left, bottom, right in shares of the picture.
    """

    names: Table
    """(C,) the clips' names."""
    fps: Table
    """(C,) frames a second."""
    clip: Table
    """(N,) the clip that each frame is of; a clip's frames stand together, in order."""
    number: Table
    """(N,) each frame's number in its clip, from 0."""
    truth_frame: Table
    """(T,) the frame that each true box is in, ascending."""
    truth_label: Table
    truth_place: Table
    """(T, 4)"""
    box_frame: Table
    """(R,) the frame of each box that was found, ascending; within a frame the points ascend, within a point scores fall."""
    box_point: Table
    """(R,) the operating point, or P + the index of a quality."""
    box_label: Table
    box_score: Table
    box_place: Table
    """(R, 4)"""
    layer_bytes: Table
    """(N, W, S, L) payload bytes by width, step and layer."""
    lags: Table
    """(G,) ascending: so many frames before a frame lies the one that `delta_bytes` is coded against."""
    delta_bytes: Table
    """(N, W, G, S, L) payload bytes of the delta that stands for so many layers; 0 where its clip has no such frame. G is 0
    where the bundle codes none."""
    picture_bytes: Table
    """(N, Q) bytes of the picture as WebP; Q is 0 where pictures were not measured."""
    thing_frame: Table
    """(M,) the frame of each thing that any point found, ascending."""
    thing_place: Table
    """(M, A + 1, 4) its place there and in the A frames after it; not a number once it was lost or its clip has ended."""

    def __post_init__(self) -> None:
        n = len(self.clip)
        rows = (self.truth_frame, self.box_frame, self.thing_frame)
        if len(self.layer_bytes) != n or any(len(r) and not 0 <= int(r.min()) <= int(r.max()) < n for r in rows):
            raise DataError("sequences: rows of frames that there are not; measure the clips again")


def path_of(bundle: Bundle) -> Path:
    """The path of the table of `bundle`, whether there is one or not."""
    return bundle.folder / FILE


def networks_of(bundle: Bundle) -> str:
    """The hash of all that the table depends on: both halves' files, how features are coded, the operating points' order.

    What else a bundle says may change: how answers age is counted from such a table and written into the bundle.
    """
    m = bundle.manifest
    files = sorted((name, digest) for name, digest in m.files.items() if not name.endswith(".npz"))
    points = [(p.width, p.exit, p.step, p.layers) for p in m.points]
    # Only what every version of a manifest says in the same words: a new key of it must not make older tables worthless.
    evidence = msgspec.json.encode((files, m.bottleneck.steps, m.bottleneck.tables, points, m.boxes, m.input))
    return hashlib.sha256(evidence).hexdigest()


def load(bundle: Bundle, path: Path | None = None) -> Sequences:
    """Read the table of `bundle`; raises DataError saying how to make it when it is missing or of other networks."""
    path, name = path or path_of(bundle), bundle.folder.name
    way_out = f"run `isthmus models clips {name} FOLDER` with a folder of clips and their boxes"
    if not path.is_file():
        raise DataError(f"{path}: not there; {way_out}")
    try:
        with np.load(path, allow_pickle=False) as table:
            measured_with = str(table["networks_sha256"])
            sequences = Sequences(**{field: table[field] for field in Sequences.__dataclass_fields__})
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path}: not a table of clips ({error}); {way_out}") from error
    if measured_with != networks_of(bundle):
        raise DataError(f"{path}: measured with other networks ({measured_with[:12]}…); {way_out}")
    return sequences


def save(bundle: Bundle, table: Sequences, path: Path | None = None) -> Path:
    """Write the table beside the bundle that it was measured with, or at `path`. Raises DataError when it cannot be written."""
    path = path or path_of(bundle)
    fields = {name: getattr(table, name) for name in Sequences.__dataclass_fields__}
    try:
        np.savez_compressed(path, networks_sha256=np.array(networks_of(bundle)), **fields)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; copy the bundle to a folder of your own") from error
    return path
