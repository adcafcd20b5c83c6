"""Finds servers in the local network by mDNS, and tells a host of those that serve its bundle. A thin adapter around zeroconf."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from isthmus.proto import discovery
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

ASK_MS = 3000
"""How long a server that was named may take to say where it is."""


class Finder(Protocol):
    """Who is told what is found."""

    def found(self, servers: Iterable[str]) -> None:
        """These addresses are there."""

    def vanished(self, server: str) -> None:
        """A server has said goodbye."""


class Discovery:
    """Looks for servers of one bundle as long as it is open."""

    def __init__(self, network: AsyncZeroconf, sha256: bytes, finder: Finder) -> None:
        self._network, self._sha256, self._finder = network, sha256, finder
        self._addresses: dict[str, str] = {}
        """Where each service is that fits, by its name."""
        self._asking: set[asyncio.Task[None]] = set()
        self._browser = AsyncServiceBrowser(network.zeroconf, discovery.SERVICE, handlers=[self._changed])

    async def close(self) -> None:
        """Look no longer."""
        await self._browser.async_cancel()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            self._gone(name)
            return
        task = asyncio.ensure_future(self._ask(name))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, name: str) -> None:
        info = AsyncServiceInfo(discovery.SERVICE, name)
        if not await info.async_request(self._network.zeroconf, ASK_MS):
            log.info("%s: named by mDNS, and does not say where it is", printable(name))
            return
        address = _address(info)
        if address is None or not discovery.fits(info.properties, self._sha256, codec_version=CODEC_VERSION):
            log.info("%s: found by mDNS, and serves another bundle, or none that we can use", printable(name))
            self._gone(name)
            return
        if self._addresses.get(name) != address:
            self._gone(name)
            self._addresses[name] = address
            log.warning("server %s: found by mDNS", address)
            self._finder.found([address])

    def _gone(self, name: str) -> None:
        if (address := self._addresses.pop(name, None)) is not None:
            self._finder.vanished(address)


def _address(info: AsyncServiceInfo) -> str | None:
    """HOST:PORT, the first of a service's addresses, those of IPv4 before others."""
    said = sorted(info.parsed_scoped_addresses(), key=lambda text: ipaddress.ip_address(text.partition("%")[0]).version)
    if not said or not info.port:
        return None
    return f"[{said[0]}]:{info.port}" if ":" in said[0] else f"{said[0]}:{info.port}"


@contextlib.asynccontextmanager
async def looking(sha256: bytes, finder: Finder) -> AsyncIterator[None]:
    """Look for servers of a bundle while the block lasts. Raises OSError where this machine has no network to look in."""
    network = AsyncZeroconf()
    try:
        look = Discovery(network, sha256, finder)
        try:
            yield
        finally:
            await look.close()
    finally:
        await network.async_close()
