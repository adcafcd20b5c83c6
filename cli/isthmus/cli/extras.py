"""What to say when a command needs packages of an extra that is not installed."""

from __future__ import annotations

from isthmus.proto.errors import ConfigError


def missing(error: ImportError, extra: str) -> ConfigError:
    """The error for a package of `extra` that could not be imported; names it and the way out."""
    return ConfigError(f"{error.name}: not installed; this needs the '{extra}' extra: pip install -e '.[{extra}]'")
