"""What the log says of servers that come and go: each piece of news once, and where answers come from then."""

from __future__ import annotations

import logging

from isthmus.device.servers.servers import Servers
from isthmus.proto.messages import Welcome
from isthmus.proto.printable import printable
from isthmus.proto.vocabulary import LinkState

log = logging.getLogger(__name__)


class Notices:
    """Writes about the streams of one device."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._why: dict[str, str] = {}
        """What each server's stream ended with: the same again and again is no news."""

    def connected(self, server: str, welcome: Welcome) -> None:
        """A server took us on; of several, it is named by its address too, since many call themselves alike."""
        self._why.pop(server, None)
        theirs = printable(welcome.server_id)
        called = f"{theirs} ({server})" if self._several else theirs
        log.warning("server %s: connected%s", called, "" if self._servers.used.name == server else ", stands by")

    def ended(self, server: str, why: str) -> None:
        """A stream ended, or never came about."""
        news = why != self._why.get(server)
        self._why[server] = why
        log.log(logging.WARNING if news else logging.INFO, "%s; %s", why, self._instead)

    @property
    def _several(self) -> bool:
        return len(self._servers.names) > 1

    @property
    def _instead(self) -> str:
        up = self._servers.state is LinkState.UP
        return f"served by {self._servers.used.name}" if up else "answering from the device"
