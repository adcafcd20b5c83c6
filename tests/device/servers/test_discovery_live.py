"""mDNS on this machine: a server is announced, found by whoever has its bundle, and says goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

pytest.importorskip("zeroconf")

from isthmus.device.servers.discovery import looking
from isthmus.edge_server.announcement import announced
from isthmus.proto.errors import BindError

SHA256, OTHER = b"\x07" * 32, b"\x08" * 32
PATIENCE_S = 30.0


class Finder:
    """Keeps what is found."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def found(self, servers: Iterable[str]) -> None:
        for server in servers:
            self.told.put_nowait(("found", server))

    def vanished(self, server: str) -> None:
        self.told.put_nowait(("vanished", server))

    async def next(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)


def test_a_server_is_found_by_its_bundle_and_says_goodbye() -> None:
    async def check() -> None:
        finder, stranger, served = Finder(), Finder(), [OTHER, SHA256]
        async with looking(SHA256, finder), looking(OTHER, stranger):
            async with announced("127.0.0.1:50551", lambda: [SHA256], "test/0001"):
                assert await finder.next() == ("found", "127.0.0.1:50551")
                async with announced("127.0.0.1:50552", lambda: served, "test/0002"):
                    assert await finder.next() == ("found", "127.0.0.1:50552")
                    assert await stranger.next() == ("found", "127.0.0.1:50552")
                    served.remove(OTHER)
                    assert await stranger.next() == ("vanished", "127.0.0.1:50552"), "other bundles are said anew"
                assert await finder.next() == ("vanished", "127.0.0.1:50552")
            assert await finder.next() == ("vanished", "127.0.0.1:50551")
        assert finder.told.empty()

    asyncio.run(check())


def test_a_host_that_does_not_resolve_is_no_place_to_announce() -> None:
    async def check() -> None:
        async with announced("no-such-host.invalid:1", lambda: [SHA256], "test/0003"):
            raise AssertionError("announced")

    with pytest.raises(BindError, match=r"^no-such-host.invalid:1: cannot be announced by mDNS"):
        asyncio.run(check())
