"""Which Isthmus this is. Asked of what is installed when somebody wants to know it: what reads that takes 5 MB of memory."""

from __future__ import annotations


def version() -> str:
    """The version that is installed."""
    from importlib import metadata

    return metadata.version("isthmus")
