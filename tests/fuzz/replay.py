"""Inputs that were found, once more: `python tests/fuzz/replay.py NAME FILE…`; the last line says which one it was."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fuzz.targets import TARGETS

if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(name, flush=True)
        TARGETS[sys.argv[1]].run(Path(name).read_bytes())
