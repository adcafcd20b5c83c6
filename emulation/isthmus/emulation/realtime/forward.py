"""TCP connections from inside a namespace to a server outside it, passed on as they are, nothing shaped."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from isthmus.emulation.realtime.child import STOP_FD, Announce
from isthmus.emulation.realtime.lag import Lags, LagSummary
from isthmus.emulation.realtime.relay import abort

_READ_BYTES = 65_536


@dataclass(frozen=True)
class Forwarder:
    """The job: accept on `listener`, a bound TCP socket's descriptor, and connect each to `host`:`port`."""

    listener: int
    host: str
    port: int

    def run(self, ready: Announce) -> LagSummary:
        """See `child.ChildJob`; its lag is nil, for nothing is due."""
        asyncio.run(self._serve(ready))
        return Lags().summary()

    async def _serve(self, ready: Announce) -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_reader(STOP_FD, stopped.set)
        server = await asyncio.start_server(self._accept, sock=socket.socket(fileno=self.listener))
        ready({})
        await stopped.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
            for end in (writer, far_writer):
                end.close()
                await end.wait_closed()  # once everything written has left
        except (OSError, asyncio.CancelledError):
            pass  # either side has gone, or the run is over; closing lets the other side know
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    abort(one)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
