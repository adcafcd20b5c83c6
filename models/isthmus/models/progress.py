"""The function by which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str], None]
"""Takes one line of text each time there is something to say; an indented line is a detail of the one before it."""
