"""What the long-running commands share: durations as people write them, and running until told to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from isthmus.proto.errors import ConfigError


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
