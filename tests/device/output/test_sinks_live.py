"""Sinks that write and post: a real web server that fails and comes back, files that are films and pictures."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from device.output.test_presence import row
from isthmus.device.config import AgentConfig
from isthmus.device.output import webhook
from isthmus.device.output.clips import Clips
from isthmus.device.output.configured import sinks_of
from isthmus.device.output.mqtt import Broker
from isthmus.device.output.overlay import Overlay
from isthmus.device.output.presence import Presence
from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink
from isthmus.device.output.webhook import Webhook
from isthmus.models import bundle
from isthmus.proto.errors import ConfigError, DataError
from isthmus.proto.vocabulary import Answer, LinkState

LABELS = ("person", "car")
PIXELS = np.full((48, 64, 3), 90, np.uint8)


def shown(sink: Sink, *answers: AnsweredPicture) -> None:
    """Give a sink these answers, to the end."""

    async def run() -> None:
        inbox = Inbox(1000)
        await sink.open()
        for answered in answers:
            inbox.offer(answered)
        inbox.close()
        await sink.run(inbox)

    asyncio.run(run())


def answered(at_s: float, *boxes: int) -> AnsweredPicture:
    told = row(at_s, boxes=boxes)
    answer = Answer(0, 1, 0.9, told.source, told.reason, None, at_s, 0.0, True, 0, detail=told.boxes)
    return AnsweredPicture(told, PIXELS, LinkState.DOWN, answer)


class Receiver(HTTPServer):
    """A web server that gives the answers it is told to, then 200."""

    def __init__(self, *codes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes, self.news = list(codes), list[dict[str, Any]]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.server.codes.pop(0) if self.server.codes else 200
        if code == 200:
            self.server.news.append(told)
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(webhook, "RETRY_S", 0.01)
    monkeypatch.setattr(webhook, "CLOSING_S", 30.0)
    server = Receiver(503, 500)
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_is_told_once_what_came_though_its_receiver_failed_before(receiver: Receiver) -> None:
    sink, now = Webhook(receiver.url, "door", LABELS, Presence()), time.monotonic()
    shown(sink, answered(now, 0), answered(now, 0), answered(now, 0, 1))
    assert [(told["event"], told["class"]) for told in receiver.news] == [("came", "person"), ("came", "car")]
    assert receiver.news[0]["device"] == "door"
    assert receiver.news[0]["confidence"] == 0.8
    assert receiver.news[0]["boxes"] == [{"score": 0.8, "top": 0.1, "left": 0.1, "bottom": 0.5, "right": 0.5}]
    assert sink.lost == 0


def test_a_receiver_that_will_never_take_it_is_not_asked_again(receiver: Receiver) -> None:
    receiver.codes = [404]
    sink, now = Webhook(receiver.url, "door", LABELS, Presence()), time.monotonic()
    shown(sink, answered(now, 0), answered(now, 0, 1))
    assert [told["class"] for told in receiver.news] == ["car"]
    assert sink.lost == 1


def test_an_overlay_is_a_video_at_the_pace_of_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    times = [0.0, 0.1, 0.2, 1.0, 1.1]
    shown(Overlay(path, 10.0, LABELS), *(answered(at_s, 0) for at_s in times))
    film = cv2.VideoCapture(str(path))
    count = 0
    while film.read()[0]:
        count += 1
    assert count == 12
    with pytest.raises(DataError, match="is there already"):
        shown(Overlay(path, 10.0, LABELS))
    with pytest.raises(DataError, match=r"name a file that ends in \.mp4"):
        shown(Overlay(tmp_path / "out.txt", 10.0, LABELS))
    with pytest.raises(DataError, match="there is no folder"):
        shown(Overlay(tmp_path / "nowhere" / "out.mp4", 10.0, LABELS))


def test_what_comes_leaves_a_snapshot_and_a_clip_with_what_was_before_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "20200101-000000-person.jpg").write_bytes(bytes(1_000_000))
    (tmp_path / "mine.jpg").write_bytes(bytes(900_000))
    walk = [answered(i / 10, *((0,) if 50 <= i < 60 else ())) for i in range(200)]
    shown(Clips(tmp_path, 1_000_000, 10.0, LABELS, Presence()), *walk)
    (snapshot,) = tmp_path.glob("2*-person.jpg")
    (clip,) = tmp_path.glob("*.mp4")
    assert snapshot.stem == clip.stem
    assert cv2.imread(str(snapshot)) is not None
    film = cv2.VideoCapture(str(clip))
    assert 60 <= int(film.get(cv2.CAP_PROP_FRAME_COUNT)) <= 90
    assert (tmp_path / "mine.jpg").exists()
    assert not (tmp_path / "20200101-000000-person.jpg").exists()


@pytest.mark.parametrize("url", ["", "broker", "http://broker", "mqtt://", "mqtt://host:x", "mqtt://host/path"])
def test_what_is_no_broker_is_refused_and_no_password_is_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="expected mqtt://") as caught:
        Broker.of(url)
    assert "secret" not in str(caught.value)


def test_a_broker_s_address_is_said_without_its_password() -> None:
    broker = Broker.of("mqtts://me:se%40cret@broker.lan")
    assert (broker.user, broker.password, broker.port, broker.tls) == ("me", "se@cret", 8883, True)
    assert str(broker) == "mqtts://broker.lan:8883"


def test_the_room_for_clips_is_checked() -> None:
    with pytest.raises(ValueError, match="clips_total_bytes"):
        AgentConfig(clips_total_bytes=10)


def test_what_is_watched_is_named_as_the_bundle_names_it() -> None:
    manifest = bundle.load("signs", half="head").manifest
    sinks = sinks_of(AgentConfig(watch="stop, yield", webhook="http://door.lan/hook"), manifest, 10.0)
    assert [sink.name for sink in sinks] == ["webhook http://door.lan"]
    with pytest.raises(ConfigError, match="watch: 'person' is no class of signs; known: nothing, stop"):
        sinks_of(AgentConfig(watch="person"), manifest, 10.0)
    with pytest.raises(ConfigError, match="webhook: expected http://"):
        sinks_of(AgentConfig(webhook="door"), manifest, 10.0)
