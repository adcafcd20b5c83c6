"""Frigate's requests on one side, the host on the other: every request is a frame, every answer a reply. No clock.

A ROUTER socket, so that several of Frigate's detectors may ask at a time, and one that gave up waiting costs the others
nothing. What cannot be a picture is replied to with zeros at once, and said once in a while.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import zmq
import zmq.asyncio

from isthmus.device.capture.sources import Picture
from isthmus.device.frigate import protocol
from isthmus.device.frigate.protocol import Channels
from isthmus.device.frigate.tally import Tally
from isthmus.device.host import Host
from isthmus.proto.errors import BindError, DataError
from isthmus.proto.fates import RunEnd
from isthmus.proto.printable import printable
from isthmus.proto.record import FrameRecord

log = logging.getLogger(__name__)

TALLY_S = 60.0
"""A line of the log for so long, where there was anything to say."""
MOST_WAITING = 64
"""Requests that the socket keeps for us; Frigate has one under way for each of its detectors."""


class Detector:
    """Answers Frigate at `endpoint`; must be made on the event loop that it is to run on."""

    name = "Frigate"

    def __init__(self, endpoint: str, *, deadline_s: float, channels: Channels = "rgb") -> None:
        """Listen at `ipc://PATH` or `tcp://HOST:PORT`. Raises BindError."""
        self._deadline_s, self._channels = deadline_s, channels
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, MOST_WAITING)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise BindError(
                f"{endpoint}: {error.strerror}; give --listen another ipc://PATH or tcp://HOST:PORT"
            ) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._asking: dict[int, Sequence[bytes]] = {}
        """Whom the answer to a frame is for: the parts of its address."""
        self._numbers = itertools.count()
        self._tally = Tally()

    async def serve(self, host: Host) -> None:
        """Give the host every picture that Frigate asks about, until it is stopped."""
        asking = [asyncio.ensure_future(self._take_all(host)), asyncio.ensure_future(self._say())]
        try:
            await host.serve()
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    def write(self, row: FrameRecord) -> None:
        """Reply with a frame's answer."""
        self._tally.add(row)
        self._reply(self._asking.pop(row.frame_id), protocol.detections(row.boxes or ()))

    def end(self, end: RunEnd) -> None:
        """Frigate is told of pictures alone."""

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self._context.term()

    async def _take_all(self, host: Host) -> None:
        while True:
            parts = await self._socket.recv_multipart()
            await self._take(host, parts)

    async def _take(self, host: Host, parts: list[bytes]) -> None:
        """One request: the asker's address, an empty part, and what it says."""
        empty = parts.index(b"") if b"" in parts else 0
        address, said = parts[: empty + 1], parts[empty + 1 :]
        try:
            told = protocol.header(said[0] if said else b"")
            if told.model_request or told.model_data:
                log.info("a detector of Frigate's asks for its model '%s'; it gets ours", printable(told.model_name))
                self._reply(address, protocol.model_is_here(told))
                return
            pixels = protocol.picture(told, said[1] if len(said) > 1 else b"", self._channels)
        except DataError as error:
            if not self._tally.refused:
                log.warning("%s; answered with no boxes", printable(str(error)))
            self._tally.refused += 1
            self._reply(address, protocol.detections(()))
            return
        number = next(self._numbers)
        self._asking[number] = address
        host.take(Picture(f"request {number}", pixels), number, deadline_s=self._deadline_s)

    def _reply(self, address: Sequence[bytes], parts: Sequence[bytes]) -> None:
        asyncio.ensure_future(self._socket.send_multipart([*address, *parts])).add_done_callback(_sent)

    def _say_now(self) -> None:
        for line in self._tally.lines():
            log.info("%s", line)
        self._tally = Tally()

    async def _say(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            waiting: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(TALLY_S, waiting.set_result, None)
            try:
                await waiting
            finally:
                timer.cancel()
                self._say_now()


def _sent(done: asyncio.Future[Any]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.info("a reply could not be sent: %s", error)  # whoever asked has gone
