"""How many replicas Ray Serve should run. Imported by its controller alone, by its name; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BUSY_SHARE = 0.7
"""More replicas are started while they are at work for more than this share of the time, where there may be more."""


def by_their_work(context: Any) -> tuple[int, dict[str, Any]]:
    """As many as bring the share of the time in which each is at work to BUSY_SHARE, by what they say of themselves.

    `context` is Ray Serve's; bounds and delays are its own and come after. Until any has said something, as many as there are.
    """
    shares: Mapping[Any, float] = (context.aggregated_metrics or {}).get("busy", {})
    if not shares:
        return int(context.target_num_replicas), {}
    mean = sum(shares.values()) / len(shares)
    return max(1, math.ceil(context.current_num_replicas * mean / BUSY_SHARE)), {}
