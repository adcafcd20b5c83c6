"""The live page over real connections: who may look, what is shown, what a slow viewer costs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from isthmus.device.output.page import page as pages
from isthmus.device.output.page.page import Facts, Page
from isthmus.device.output.sinks import AnsweredPicture, Sinks
from isthmus.proto.errors import BindError
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import Answer, AnswerSource, Box, Frame, LinkState, OperatingPoint, Reason

FACTS = Facts("signs", "rtsp://camera/x", "porch", "local-only", None, 0.1, "1.2.3", ("cat", "dog"))
PIXELS = np.full((240, 320, 3), 120, np.uint8)


def answered(i: int, pixels: NDArray[np.uint8] | None = PIXELS) -> AnsweredPicture:
    boxes = (Box(1, 0.9, 0.1, 0.1, 0.9, 0.5), Box(1, 0.8, 0.1, 0.6, 0.9, 0.9))
    answer = Answer(
        i, 1, 0.9, AnswerSource.EXIT, Reason.CONFIDENT, OperatingPoint(1.0, 0), 1.0 + i, 0.05, True, 0, detail=boxes
    )
    row = FrameRecord.from_answer(Frame(i, 0.95 + i, 1.05 + i), answer, answer_name="dog")
    return AnsweredPicture(row, pixels, LinkState.DOWN, answer)


async def ask(page: Page, path: str, *headers: str, method: str = "GET", host: str = "localhost") -> tuple[int, bytes]:
    """A request's status and all of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page._port)
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode())
    content = await reader.read()
    writer.close()
    return int(content.split(b" ", 2)[1]), content


def with_page(job: Callable[[Page, Sinks], Awaitable[None]], token: str | None = None) -> None:
    async def run() -> None:
        page = Page("127.0.0.1", 0, token, FACTS, metrics=lambda: (b"a_metric 1\n", "text/plain"))
        sinks = Sinks([page])
        async with sinks:
            await job(page, sinks)

    asyncio.run(asyncio.wait_for(run(), 30))


async def events(page: Page, count: int, name: bytes = b"answer") -> list[dict[str, object]]:
    """The next so many events of a viewer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page._port, limit=1 << 22)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    found: list[dict[str, object]] = []
    while len(found) < count:
        if await reader.readline() == b"event: " + name + b"\n":
            found.append(json.loads((await reader.readline()).removeprefix(b"data: ")))
    writer.close()
    return found


def test_a_viewer_sees_the_picture_with_its_answer_on_it() -> None:
    async def job(page: Page, sinks: Sinks) -> None:
        watching = asyncio.ensure_future(events(page, 2))
        for i in range(40):
            sinks.offer(answered(i))
            await asyncio.sleep(0.02)
            if watching.done():
                break
        (first, *_) = await watching
        assert first["said"] == "2 × dog"
        jpeg = np.frombuffer(base64.b64decode(str(first["jpeg"])), np.uint8)
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[:2] == (320, 427), "enlarged, so that words can be read"
        assert np.ptp(picture) > 80, "boxes are drawn on it"

    with_page(job)


def test_what_is_asked_for_is_given_and_nothing_else() -> None:
    async def job(page: Page, sinks: Sinks) -> None:
        assert (await ask(page, "/picture.jpg"))[0] == 404
        sinks.offer(answered(3))
        while (await ask(page, "/picture.jpg"))[0] == 404:
            await asyncio.sleep(0.01)
        status, html = await ask(page, "/")
        assert status == 200
        assert b"default-src 'none'" in html
        for elsewhere in (b"http://", b"https://", b"@import", b'src="/'):
            assert elsewhere not in html.partition(b"\r\n\r\n")[2], "nothing comes from the network"
        state = json.loads((await ask(page, "/state.json"))[1].partition(b"\r\n\r\n")[2])
        assert state["facts"]["source"] == "rtsp://camera/x"
        assert state["answer"]["frame"] == 3
        assert state["figures"]["dropped"] == {"page": 0}
        assert (await ask(page, "/metrics"))[1].endswith(b"\r\n\r\na_metric 1\n")
        assert (await ask(page, "/picture.jpg"))[1].endswith(b"\xff\xd9")
        assert (await ask(page, "/etc/passwd"))[0] == 404
        assert (await ask(page, "/", method="POST"))[0] == 405
        assert (await ask(page, "/", host="evil.example"))[0] == 403

    with_page(job)


def test_a_token_is_asked_for_once_and_leaves_the_address(caplog: pytest.LogCaptureFixture) -> None:
    token = "a-token-of-some-length"

    async def job(page: Page, _: Sinks) -> None:
        assert token in page.address
        assert token not in caplog.text, "whoever set it knows it"
        assert "page: http://127.0.0.1:" in caplog.text
        for path in ("/", "/state.json", "/events", "/?token=wrong"):
            assert (await ask(page, path))[0] == 403
        status, content = await ask(page, f"/?token={token}")
        assert status == 303
        assert b"Location: /\r\n" in content
        assert b"HttpOnly; SameSite=Strict" in content
        assert (await ask(page, "/", f"Cookie: isthmus_page={token}"))[0] == 200
        assert (await ask(page, "/state.json", f"Authorization: Bearer {token}"))[0] == 200

    with_page(job, token)


@pytest.mark.parametrize(
    "garbage", [b"\0" * 100, b"GET\r\n\r\n", b"GET / SPDY\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"x" * 20_000]
)
def test_garbage_costs_its_own_connection(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.proto.monitoring.http.REQUEST_S", 0.2)

    async def job(page: Page, _: Sinks) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", page._port)
        writer.write(garbage)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        assert (await ask(page, "/"))[0] == 200

    with_page(job)


def test_a_viewer_that_does_not_read_misses_what_comes_and_costs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "EVERY_S", 0.0)
    monkeypatch.setattr(pages, "BEHIND_BYTES", 10_000)
    monkeypatch.setattr(pages, "GONE_S", 0.5)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)

    async def job(page: Page, sinks: Sinks) -> None:
        stuck = await asyncio.open_connection("127.0.0.1", page._port)
        stuck[1].write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for i in range(2000):
            sinks.offer(answered(i, noise))
            await asyncio.sleep(0.005)
            if page._missed > 3:
                break
        assert page._missed > 3
        watching = asyncio.ensure_future(events(page, 3))
        for i in range(2000):
            sinks.offer(answered(i, noise))
            await asyncio.sleep(0.005)
            if watching.done():
                break
        assert len(await watching) == 3, "another viewer is shown everything"
        assert sinks.dropped == {"page": 0}
        for i in range(2000):
            sinks.offer(answered(i, noise))
            await asyncio.sleep(0.005)
            if not page._viewers:
                break
        assert not page._viewers, "it is let go"
        stuck[1].close()

    with_page(job)


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_VIEWERS", 1)

    async def job(page: Page, _: Sinks) -> None:
        await events(page, 1, b"facts")
        held = await asyncio.open_connection("127.0.0.1", page._port)
        held[1].write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await held[0].readline()
        assert (await ask(page, "/events"))[0] == 503
        held[1].close()

    with_page(job)


def test_an_address_that_is_taken_is_named() -> None:
    async def job(page: Page, _: Sinks) -> None:
        with pytest.raises(BindError, match="choose another --page"):
            await Page("127.0.0.1", page._port, None, FACTS).open()

    with_page(job)


def test_a_picture_that_could_not_be_read_has_an_answer_all_the_same() -> None:
    jpeg, said = pages.jpeg(answered(0, None), FACTS.labels)
    assert jpeg is None
    assert said == "2 × dog"
