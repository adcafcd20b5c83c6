"""The clock: certificates, webhooks and records go by it, and a small board has none of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from isthmus.cli.doctoring.finding import Finding, failure, ok, warning

SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
SYNCHRONISING = Path("/run/systemd/timesync")
SLACK_S = 86_400.0
"""Files may come from a machine in another time zone that took it for UTC."""
SET = "sudo timedatectl set-ntp true, and let it reach a time server"


@dataclass(frozen=True)
class Facts:
    """What the clock says, and what speaks against it."""

    now_s: float
    """Seconds since 1970."""
    installed_s: float
    """When this software was written to disk."""
    synchronised: bool | None
    """None where nothing tells."""
    keeps_time: bool
    """Whether there is a clock that runs while the power is off."""


def facts() -> Facts:
    """What the clock of this machine says, and what is known of it."""
    synchronised = SYNCHRONISED.exists() if SYNCHRONISING.is_dir() else None
    clocks = any(Path("/dev").glob("rtc*"))
    return Facts(time.time(), Path(__file__).stat().st_mtime, synchronised, clocks)


def findings(seen: Facts) -> list[Finding]:
    """Judge it."""
    now = f"{datetime.fromtimestamp(seen.now_s, timezone.utc):%Y-%m-%d %H:%M} UTC"
    if seen.now_s < seen.installed_s - SLACK_S:
        return [failure("clock", f"{now}, before this software was installed", SET)]
    if seen.synchronised is False:
        lost = "" if seen.keeps_time else ", and it stands still while the power is off"
        return [warning("clock", f"{now}, not set by a time server{lost}", SET)]
    return [ok("clock", now + (", set by a time server" if seen.synchronised else ""))]
