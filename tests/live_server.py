"""A real server in the test's own process, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.repository.repository import Repository
from isthmus.edge_server.server import bind, run
from isthmus.edge_server.service import EdgeService

LONGEST_S = 60.0


@contextlib.asynccontextmanager
async def running(
    service: EdgeService,
    listen: str = "127.0.0.1:0",
    *,
    shown: Certificates | None = None,
    debug: bool = False,
    grace_s: float = 1.0,
    repository: Repository | None = None,
) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """Its address and its task; without certificates to show, in plain text."""
    server, status, address = bind(service, listen, shown.credentials() if shown else None, debug=debug)
    up = asyncio.Event()
    task = asyncio.create_task(
        run(service, server, status, grace_s=grace_s, ready=up.set, shown=shown, repository=repository)
    )
    await up.wait()
    try:
        yield address, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def live(test: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """The test, to its end; it fails when that does not come."""
    asyncio.run(asyncio.wait_for(test(*arguments), LONGEST_S))
