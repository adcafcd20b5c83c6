"""Where real traces lie, for the tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("ISTHMUS_TRACES", Path(__file__).parents[2] / "shared" / "traces"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"absent: {REAL} (set ISTHMUS_TRACES)")
