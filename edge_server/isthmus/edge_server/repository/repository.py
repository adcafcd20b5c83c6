"""A folder of bundles, kept in step with the service that serves them: loaded, reloaded and unloaded while it runs.

All that takes long happens beside the event loop, one bundle at a time. Whatever is wrong with a bundle costs that bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from isthmus.edge_server.repository import catalogue as actions
from isthmus.edge_server.repository import folder
from isthmus.edge_server.repository.catalogue import Catalogue
from isthmus.edge_server.repository.lane import Served, described
from isthmus.edge_server.repository.loading import Loader
from isthmus.edge_server.repository.off_loop import off_loop
from isthmus.edge_server.repository.tail import WarmTail
from isthmus.edge_server.service import EdgeService
from isthmus.proto.errors import BundleError

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often it is looked into the folder."""


class Repository:
    """The bundles of one folder on one service."""

    def __init__(self, root: Path, service: EdgeService, loader: Loader) -> None:
        self.root = root
        self._service, self._loader = service, loader
        self._catalogue = Catalogue()
        self._changing, self._fetching = asyncio.Lock(), asyncio.Lock()
        self._asked = asyncio.Event()
        self._unreadable = False
        self._tasks: set[asyncio.Task[None]] = set()
        service.on_fetch = self._on_fetch
        service.metrics.watch_repository(
            offered=lambda: len(service.offered), loaded=lambda: len(service.loaded), failed=lambda: len(self.faults)
        )

    @property
    def faults(self) -> dict[str, str]:
        """Why what lies in a place of the folder is not served, by place."""
        return self._catalogue.faults

    async def begin(self) -> None:
        """Serve what lies in the folder. Raises BundleError where the folder itself cannot be read."""
        try:
            await self._look(again=True)
        except OSError as error:
            raise BundleError(f"{self.root}: {error.strerror}; --models names a folder of bundles") from error
        if not self._service.offered:
            log.warning("%s: holds no bundle that can be served yet; it is looked at again and again", self.root)

    async def keep_looking(self) -> None:
        """Follow the folder until cancelled."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_S)
            again = self._asked.is_set()
            self._asked.clear()
            try:
                await self._look(again=again)
            except OSError as error:  # an unmounted disk deletes no bundles
                if not self._unreadable:
                    log.warning("%s: cannot be read (%s); what is served stays", self.root, error.strerror)
                self._unreadable = True
            except Exception:  # a fault of ours: it costs this look, and is not hidden
                log.exception("%s: failed", self.root)
            else:
                self._unreadable = False

    def look_again(self) -> None:
        """Look now, and try again what has failed before."""
        self._asked.set()

    def serves(self, sha256: bytes) -> Served | None:
        """The bundle of this hash, where devices may have it."""
        return next((served for served in self._service.offered if served.sha256 == sha256), None)

    async def take(self, arrived: Path, place: str, put: Callable[[], None]) -> Served:
        """A whole bundle has arrived in a folder of its own: `put` moves it to its place once it was loaded.

        Raises IsthmusError where it cannot be served; nothing has changed then.
        """
        async with self._changing:
            found, served = await off_loop(lambda: self._loader.find(arrived, place))
            if (why := self._catalogue.refusal(place, served)) is not None:
                raise BundleError(f"push: {why}")
            tail = await off_loop(lambda: self._loader.load(found, served.version))
            await off_loop(put)
            stamp = await off_loop(lambda: folder.stamp(self.root / place))
            self._admit(place, stamp, tail)
        await self._service.tell_health()
        return tail.served

    async def _look(self, *, again: bool) -> None:
        async with self._changing:
            found = await off_loop(lambda: folder.bundles_in(self.root))
            self._catalogue.look(found, now=time.monotonic(), again=again)
            for check in self._perform():
                await self._check(check)
            needed = {served.sha256 for served in self._service.offered} | self._service.loaded
            await off_loop(lambda: self._loader.keep_only(needed))
        await self._service.tell_health()

    async def _check(self, check: actions.Check) -> None:
        place, stamp = check.place, check.stamp
        try:
            found, served = await off_loop(lambda: self._loader.find(self.root / place, place))
            if self.serves(served.sha256) is not None or self._catalogue.refusal(place, served) is not None:
                self._tell(place, stamp, served)  # there is nothing to load
            else:
                self._admit(place, stamp, await off_loop(lambda: self._loader.load(found, served.version)))
        except Exception as error:  # whatever a bundle's files bring about costs that bundle
            self._tell(place, stamp, _said(error))

    def _tell(self, place: str, stamp: folder.Stamp, found: Served | str) -> None:
        self._catalogue.on_checked(place, stamp, found)
        self._perform()

    def _admit(self, place: str, stamp: folder.Stamp, tail: WarmTail) -> None:
        """A bundle can be loaded: it is offered if nothing else is in its way, and kept loaded if there is room."""
        sha256 = tail.served.sha256
        self._tell(place, stamp, tail.served)
        if self.serves(sha256) is not None and sha256 not in self._service.loaded and not self._service.full:
            self._service.add(tail)

    def _perform(self) -> list[actions.Check]:
        """Carry out what the catalogue decides; what is to be checked first is returned."""
        checks = []
        for action in self._catalogue.actions():
            match action:
                case actions.Offer(served):
                    self._service.offer(served)
                case actions.Withdraw(sha256):
                    self._service.withdraw(sha256)
                case actions.Say(line, wrong):
                    log.log(logging.WARNING if wrong else logging.INFO, "%s", line)
                case actions.Check():
                    checks.append(action)
        return checks

    def _on_fetch(self, sha256: bytes) -> None:
        task = asyncio.create_task(self._fetch(sha256))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, sha256: bytes) -> None:
        """Load the tail that a device waits for."""
        served = self.serves(sha256)
        if served is None:
            self._service.not_loaded(sha256, "this bundle was withdrawn a moment ago")
            return
        try:
            async with self._fetching:
                tail = await off_loop(lambda: self._loader.again(served))
        except Exception as error:  # as above
            log.warning("%s: not loaded: %s", described(served), _said(error))
            self._service.not_loaded(sha256, f"bundle {served.name}: cannot be loaded now, see the server's log")
            return
        if sha256 not in self._service.loaded:
            self._service.add(tail)
            log.info("%s: loaded", described(served))
        await self._service.tell_health()


def _said(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
