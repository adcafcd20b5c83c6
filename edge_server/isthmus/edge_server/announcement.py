"""Says by mDNS that a server is there, and with which bundle to come, until it stops. A thin adapter around zeroconf."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

import ifaddr
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from isthmus.edge_server.config import split_address
from isthmus.proto import discovery
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import BindError

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often it is looked which bundles are served."""
EVERYWHERE = ("", "0.0.0.0", "::")


def service(address: str, hashes: Iterable[bytes], server_id: str) -> ServiceInfo:
    """What is announced of a server that listens at HOST:PORT. Raises OSError where HOST does not resolve."""
    host, port = split_address(address)
    label = server_id.replace(".", "-").replace("/", "-")
    return ServiceInfo(
        discovery.SERVICE,
        f"{label}.{discovery.SERVICE}",
        port=port,
        parsed_addresses=_addresses(host),
        properties=discovery.properties(hashes, codec_version=CODEC_VERSION),
        server=f"{label}.local.",
    )


def _addresses(host: str) -> list[str]:
    """Where a server can be reached that listens at `host`: for everywhere, all addresses but those of this machine alone."""
    if host not in EVERYWHERE:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
    ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    ours = [str(ip.ip) if ip.is_IPv4 else str(ip.ip[0]) for ip in ips]
    return [ip for ip in ours if not ip.startswith(("127.", "::1", "fe80"))]


@contextlib.asynccontextmanager
async def announced(address: str, hashes: Callable[[], Iterable[bytes]], server_id: str) -> AsyncIterator[None]:
    """Announce a server while the block lasts, with the bundles whose `hashes` it has at each time; then say goodbye.

    Raises BindError where there is no network to do so in.
    """
    try:
        told, network = service(address, hashes(), server_id), AsyncZeroconf()
    except OSError as error:
        why = error.strerror or error
        raise BindError(
            f"{address}: cannot be announced by mDNS ({why}); leave --announce out, or --listen elsewhere"
        ) from error
    following: asyncio.Task[None] | None = None
    try:
        await network.async_register_service(told)
        log.info("announced by mDNS as %s at %s", told.name, ", ".join(told.parsed_addresses()))
        following = asyncio.create_task(_follow(network, told, partial(_now, address, hashes, server_id)))
        yield
        goodbyes = await network.async_unregister_service(told)
        await goodbyes
    finally:
        if following is not None:
            following.cancel()
        await network.async_close()


def _now(address: str, hashes: Callable[[], Iterable[bytes]], server_id: str) -> ServiceInfo:
    return service(address, hashes(), server_id)


async def _follow(network: AsyncZeroconf, told: ServiceInfo, anew: Callable[[], ServiceInfo]) -> None:
    """Say it anew whenever other bundles are served."""
    while True:
        await asyncio.sleep(LOOK_S)
        if (said := anew()).properties != told.properties:
            told = said
            await network.async_update_service(told)
