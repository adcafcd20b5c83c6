"""What a role does with Python's garbage collector once it is ready."""

from __future__ import annotations

import gc


def freeze() -> None:
    """Let the collector look no more at what there is now: modules, networks, tables, which stay until the end.

    A full collection goes through every object that was ever made, and nothing else runs meanwhile: 30 to 50 ms of a PC's
    processor for a role's hundred thousand, against the 4 ms before a deadline in which an answer has to be out. What comes later
    is little.
    """
    gc.collect()
    gc.freeze()
