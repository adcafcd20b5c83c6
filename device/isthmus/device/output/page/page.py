"""The sink that is the live page: pictures with their answers drawn on them, to a few viewers, read-only.

What viewers cannot take in time they miss; it is counted, and nobody waits for it. Pictures are drawn in a thread, only while
somebody looks, at most ten a second, once for all viewers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.device.output.drawing import marked
from isthmus.device.output.page.access import COOKIE, Access
from isthmus.device.output.page.window import LastMinute, shown
from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink, Sinks
from isthmus.proto.errors import BindError
from isthmus.proto.monitoring import http
from isthmus.proto.vocabulary import Box

log = logging.getLogger(__name__)

EVERY_S = 0.1
"""Viewers are shown at most so many pictures: faster than anybody reads."""
FIGURES_EVERY_S = 0.5
LONGEST_PX = 640
"""A picture is shown no larger: more bytes, and no more to see."""
QUALITY = 80
"""Of JPEG: text drawn on it stays clean."""
MOST_VIEWERS = 16
BEHIND_BYTES = 1 << 20
"""A viewer who is so far behind misses what comes."""
GONE_S = 30.0
"""A viewer that takes nothing for so long, a telephone out of reach say, is let go, and its place is free."""
HTML = Path(__file__).with_name("index.html")


@dataclass(frozen=True)
class Facts:
    """What does not change while the agent runs."""

    bundle: str
    source: str
    client_id: str
    policy: str
    server: str | None
    deadline_s: float
    version: str
    labels: tuple[str, ...]


@dataclass
class _Viewer:
    """One who looks on."""

    known: int = 0
    """How many answers it has been told of."""
    behind_since_s: float | None = None


class Page(Sink):
    """The page at HOST:PORT."""

    name = "page"
    capacity = 8

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        facts: Facts,
        *,
        made_up: bool = False,
        browse: Callable[[str], object] | None = None,
        metrics: Callable[[], tuple[bytes, str]] | None = None,
    ) -> None:
        """With a `token`, only who has it may look; one that was `made_up` is told in the log, one that somebody knows is not.

        `browse` is given the address once it can be looked at. `metrics` are what /metrics shows, and their content type.
        """
        self._browse, self._made_up, self._metrics = browse, made_up, metrics
        self._host, self._port, self._access, self._facts = host, port, Access(token), facts
        self._minute = LastMinute(facts.deadline_s)
        self._newest: AnsweredPicture | None = None
        self._picture: bytes | None = None
        """The newest drawn picture, JPEG."""
        self._viewers: dict[asyncio.StreamWriter, _Viewer] = {}
        self._missed = 0
        """Events that a viewer was too far behind for."""
        self._changed, self._wanted = asyncio.Event(), asyncio.Event()
        self._figures_at_s = -FIGURES_EVERY_S
        self._figures: dict[str, Any] = {}
        self._server: asyncio.Server | None = None
        self._sinks: Sinks | None = None

    @property
    def address(self) -> str:
        """Where a browser finds it, token and all."""
        return self._place + (f"?token={self._access.token}" if self._access.token else "")

    @property
    def _place(self) -> str:
        host = socket.gethostname() if self._host in ("0.0.0.0", "::") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def beside(self, sinks: Sinks) -> None:
        """Note whose drops are shown."""
        self._sinks = sinks

    async def open(self) -> None:
        """Listen. Raises BindError."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self._port, limit=http.REQUEST_BYTES, backlog=MOST_VIEWERS
            )
        except OSError as error:
            where = f"{self._host}:{self._port}"
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise BindError(f"{where}: page: {why}; choose another --page HOST:PORT") from error
        self._port = self._server.sockets[0].getsockname()[1]
        log.warning("page: %s", self.address if self._made_up else self._place)
        if self._browse is not None:
            await asyncio.to_thread(self._browse, self.address)

    async def run(self, inbox: Inbox) -> None:
        """Show what comes, until the end."""
        assert self._server is not None
        drawing = asyncio.ensure_future(self._draw())
        try:
            async for answered in inbox:
                self._minute.add(answered.row, answered.link)
                self._newest = answered
                self._changed.set()
        finally:
            drawing.cancel()
            self._server.close()
            for viewer in list(self._viewers):
                viewer.close()

    async def _draw(self) -> None:
        """Draw the newest answer again and again, while somebody looks, and send it to whoever looks."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            await self._changed.wait()
            self._changed.clear()
            began_s, newest = loop.time(), self._newest
            if newest is not None:
                said = await self._drawn(newest)
                self._send_all(newest, said, now=loop.time())
            await asyncio.sleep(EVERY_S - (loop.time() - began_s))

    async def _drawn(self, answered: AnsweredPicture) -> str:
        """Draw one, in a thread; what is said of it."""
        self._picture, said = await asyncio.to_thread(jpeg, answered, self._facts.labels)
        return said

    def _send_all(self, newest: AnsweredPicture, said: str, *, now: float) -> None:
        told = shown(newest.row, newest.link) | {"said": said, "figures": self._state(now)}
        if self._picture is not None:
            told["jpeg"] = base64.b64encode(self._picture).decode()
        whole: dict[int, bytes] = {}
        for writer, viewer in list(self._viewers.items()):
            if writer.transport.get_write_buffer_size() > BEHIND_BYTES:
                self._missed += 1
                viewer.behind_since_s = now if viewer.behind_since_s is None else viewer.behind_since_s
                if now - viewer.behind_since_s > GONE_S:
                    writer.transport.abort()
                continue
            known, viewer.behind_since_s = viewer.known, None
            if known not in whole:  # most know the same
                marks = self._minute.since(known)
                whole[known] = http.event("answer", msgspec.json.encode(told | {"marks": marks, "now": now}))
            writer.write(whole[known])
            viewer.known = self._minute.count

    def _state(self, now: float) -> dict[str, Any]:
        """The figures, not made anew for every picture."""
        if now - self._figures_at_s >= FIGURES_EVERY_S:
            self._figures_at_s = now
            dropped = {} if self._sinks is None else self._sinks.dropped
            self._figures = self._minute.figures(now) | {"dropped": dropped, "missed": self._missed}
        return self._figures

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await http.read_request(reader)
            if request is not None:
                await self._answer(request, reader, writer)
                await asyncio.wait_for(writer.drain(), http.REQUEST_S)
        except (ConnectionError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: http.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.method != "GET":
            writer.write(http.answer(405, b"this page is to be looked at\n"))
        elif (given := request.query.get("token")) is not None and self._access.fits(given):
            cookie = f"Set-Cookie: {COOKIE}={given}; Path=/; HttpOnly; SameSite=Strict\r\n"
            writer.write(http.answer(303, more=f"Location: /\r\n{cookie}"))
        elif not self._access.granted(request.headers):
            writer.write(http.answer(403, b"the address with its token is in the agent's log\n"))
        elif request.path == "/":
            writer.write(http.answer(200, HTML.read_bytes(), "text/html; charset=utf-8"))
        elif request.path == "/state.json":
            writer.write(http.answer(200, self._snapshot(), "application/json"))
        elif request.path == "/metrics":
            writer.write(await self._counters())
        elif request.path == "/picture.jpg":
            await self._show_picture(writer)
        elif request.path == "/events":
            await self._stream(reader, writer)
        else:
            writer.write(http.answer(404, b"nothing here\n"))

    def _snapshot(self) -> bytes:
        """All that the page knows but the picture, for programs."""
        told: dict[str, Any] = {"facts": self._facts, "figures": self._state(asyncio.get_running_loop().time())}
        if self._newest is not None:
            told["answer"] = shown(self._newest.row, self._newest.link) | {"label": self._newest.row.answer}
        return msgspec.json.encode(told)

    async def _counters(self) -> bytes:
        if self._metrics is None:
            return http.answer(404, b"the 'metrics' extra is not installed\n")
        return http.answer(200, *await asyncio.to_thread(self._metrics))

    async def _show_picture(self, writer: asyncio.StreamWriter) -> None:
        if self._newest is None or self._newest.pixels is None:
            writer.write(http.answer(404, b"no picture yet\n"))
            return
        await self._drawn(self._newest)
        writer.write(http.answer(200, self._picture or b"", "image/jpeg"))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Show answers to a viewer until it goes away, or the agent ends."""
        if len(self._viewers) >= MOST_VIEWERS:
            writer.write(http.answer(503, b"enough viewers\n"))
            return
        writer.write(http.stream_head() + http.event("facts", msgspec.json.encode(self._facts)))
        self._viewers[writer] = _Viewer()
        self._wanted.set()
        self._changed.set()
        try:
            while await reader.read(1024):
                pass  # a viewer has nothing more to say
        finally:
            del self._viewers[writer]
            if not self._viewers:
                self._wanted.clear()


def jpeg(answered: AnsweredPicture, labels: tuple[str, ...]) -> tuple[bytes | None, str]:
    """A picture with its answer drawn on it, as JPEG (None where there is no picture), and what is said of the answer."""
    pixels = _visible(answered.pixels)
    drawn, said = marked(pixels, answered.answer, labels)
    if isinstance(answered.answer.detail, tuple) and answered.answer.detail:
        said = _found(answered.answer.detail, labels)
    elif answered.row.answer is not None:
        said = answered.row.answer
    if answered.pixels is None:
        return None, said
    return cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), said


def _found(boxes: tuple[Box, ...], labels: tuple[str, ...]) -> str:
    counts: dict[str, int] = {}
    for box in boxes:
        name = labels[box.label] if box.label < len(labels) else str(box.label)
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.items())


def _visible(pixels: NDArray[Any] | None) -> NDArray[np.uint8]:
    """Pixels as they are shown: bytes, and no larger than need be."""
    if pixels is None:
        return np.zeros((1, 1, 3), np.uint8)
    shrink = min(1.0, LONGEST_PX / max(pixels.shape[:2]))
    if shrink < 1:
        pixels = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.asarray(pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 255), np.uint8)
