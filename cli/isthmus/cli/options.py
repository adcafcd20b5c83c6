"""What several commands share: options, values as people write them, missing extras, and running until stopped."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from isthmus.proto.errors import ConfigError, DataError

CONFIG = typer.Option(None, "--config", "-c", help="TOML file; flags and environment win over it.")
Format = Literal["text", "json"]
FORMAT = typer.Option("text", "--format", help="text or json.")
INSECURE = typer.Option(None, "--insecure", help="Plaintext instead of TLS.")
CHECKPOINTS, BUNDLES = Path("checkpoints"), Path("bundles")
"""The folders for trainings and bundles where no other is named."""


def seconds(text: str | None, flag: str) -> float | None:
    """'100ms' or '0.1s' or '0.1' as seconds; ConfigError names the flag."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9.]+)\s*(ms|s|)", text.strip())
    try:
        value = float(match[1]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise ConfigError(f"{flag}: '{text}' is not a duration; write 100ms or 0.1s")
    return value / 1000 if match[2] == "ms" else value


def run_role(role: Coroutine[Any, Any, None]) -> None:
    """Run a role to its end; a reader that went away (`| head`) ends it quietly."""
    try:
        asyncio.run(role)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def check(flag: str, value: str | None, known: Sequence[str] | Any) -> None:
    """Raises ConfigError unless `value` is one of `known`, or none."""
    if value is not None and value not in known:
        raise ConfigError(f"{flag}: '{value}' is not one of {', '.join(known)}")


def lines(path: Path | None) -> list[str]:
    """The lines of a file of names; an empty list for None. Raises DataError when it cannot be read."""
    if path is None:
        return []
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); one name a line is expected") from error


def missing(error: ImportError, extra: str) -> ConfigError:
    """The error for a package of `extra` that could not be imported; names it and the way out."""
    return ConfigError(f"{error.name}: not installed; this needs the '{extra}' extra: pip install -e '.[{extra}]'")
