"""The seeds of a target, or inputs that were found, once: `python tests/fuzz/replay.py NAME [FILE…]`.

A process of its own, as a target may end it and changes what it needs changed. The last line says which input it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fuzz.targets import TARGETS


def _seeds(name: str) -> Iterator[tuple[str, bytes]]:
    """What the search begins with, of which there is some, and what is hardly anything."""
    seeds = list(TARGETS[name].seeds())
    assert seeds, f"{name}: no seeds"
    return ((f"seed {number}", data) for number, data in enumerate((*seeds, b"", b"\0", b"\xff")))


def main(name: str, paths: list[str]) -> None:
    """Every input is taken by the target as it should be."""
    for source, data in ((path, Path(path).read_bytes()) for path in paths) if paths else _seeds(name):
        print(source, flush=True)
        TARGETS[name].run(data)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
