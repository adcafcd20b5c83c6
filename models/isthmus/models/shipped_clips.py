"""The clips that come with Isthmus: three of the drone detection data set's (Svanström et al. 2021, CC0), with their boxes.

They are test clips: no shipped network was trained on them, nor on any of their places.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "footage"


def paths() -> tuple[Path, ...]:
    """The videos, by name; beside each NAME.mp4 lies NAME.boxes.csv."""
    return tuple(sorted(FOLDER.glob("*.mp4")))
