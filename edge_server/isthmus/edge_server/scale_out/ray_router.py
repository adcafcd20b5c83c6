"""Which replica of a tail gets the next batch: the one that has the fewest. Imported by Ray Serve alone, by its name.

One server sends all of a deployment's batches, no more at once than replicas run, so that its own count of what is under way
is the truth. Ray's usual choice between two at random meets a replica that is at work now and then, although another is idle,
and waits for tens of milliseconds before it tries again: a third of a frame's deadline.
"""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import FIFOMixin, RequestRouter


class LeastBusy(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Offers every replica; the router behind it takes the one with the fewest batches by its own count."""

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any | None = None
    ) -> list[list[Any]]:
        """All of them, as one rank."""
        return [list(candidate_replicas)]
