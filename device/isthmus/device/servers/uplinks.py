"""The transports to all of a device's servers, each made when its server is first dialled. A thin adapter: it decides nothing.

Servers may refuse what they are said. One that refuses the first hello serves another bundle, or speaks another version; where
all that are known do so, and nobody has ever taken the device on, that is an error of whoever set it up, and ends `run`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from isthmus.device.transport import Listener, Transport
from isthmus.proto.errors import HandshakeError
from isthmus.proto.messages import DeviceMessage, ServerMessage, Welcome

log = logging.getLogger(__name__)


class Hearer(Protocol):
    """Who is told of all streams."""

    def connected(self, server: str, welcome: Welcome) -> None:
        """A server took us on."""

    def received(self, server: str, message: ServerMessage) -> None:
        """A message came from it."""

    def disconnected(self, server: str, why: str) -> None:
        """Its stream ended or never came about."""


@dataclass(frozen=True)
class _Line:
    """One server's transport at work, and what hears it."""

    transport: Transport
    task: asyncio.Task[None]


class Uplinks:
    """One transport for each server that was ever dialled."""

    def __init__(self, make: Callable[[str, Listener], Transport], hearer: Hearer, *, listed: int) -> None:
        """`make` makes the transport to an address; `listed` servers must refuse us before we believe that all do; 0: never."""
        self._make, self._hearer, self._listed = make, hearer, listed
        self._lines: dict[str, _Line] = {}
        self._refusals: dict[str, HandshakeError] = {}
        self._welcomed = False
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, server: str, message: DeviceMessage) -> None:
        """Pass a message on; dropped where there is no stream."""
        if (line := self._lines.get(server)) is not None:
            line.transport.send(message)

    def dial(self, server: str) -> None:
        """Try once to open a stream."""
        line = self._lines.get(server)
        if line is None or line.task.done():
            transport = self._make(server, _Ear(self, server))
            line = self._lines[server] = _Line(transport, asyncio.ensure_future(self._at_work(server, transport)))
        line.transport.dial()

    def hang_up(self, server: str) -> None:
        """End a stream, after all that was sent."""
        if (line := self._lines.get(server)) is not None:
            line.transport.hang_up()

    def reload(self) -> None:
        """Read the certificates anew, for the next connections."""
        for line in self._lines.values():
            line.transport.reload()

    async def run(self) -> None:
        """Be at work until it is cancelled. Raises HandshakeError when every server refuses the first hello."""
        try:
            await self._failed
        finally:
            for line in self._lines.values():
                line.task.cancel()
            await asyncio.gather(*(line.task for line in self._lines.values()), return_exceptions=True)

    async def _at_work(self, server: str, transport: Transport) -> None:
        try:
            await transport.run()
        except HandshakeError as error:
            self._refusals[server] = error
            if len(self._refusals) == self._listed and not self._welcomed:
                self._fail(error)
            else:
                self._hearer.disconnected(server, str(error))
        except Exception as error:  # a fault of ours: not hidden
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    def connected(self, server: str, welcome: Welcome) -> None:
        """A server took us on."""
        self._welcomed = True
        self._hearer.connected(server, welcome)

    @property
    def hearer(self) -> Hearer:
        """Who is told of all streams."""
        return self._hearer


class _Ear:
    """Hears one server's transport."""

    def __init__(self, uplinks: Uplinks, server: str) -> None:
        self._uplinks, self._server = uplinks, server

    def connected(self, welcome: Welcome) -> None:
        self._uplinks.connected(self._server, welcome)

    def received(self, message: ServerMessage) -> None:
        self._uplinks.hearer.received(self._server, message)

    def disconnected(self, why: str) -> None:
        self._uplinks.hearer.disconnected(self._server, why)
