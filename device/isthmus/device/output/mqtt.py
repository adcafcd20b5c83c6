"""A sink that is a device of Home Assistant's, over MQTT. While the broker is away nothing is kept for it but the newest state.

Paho's own thread holds the connection; everything is decided on the event loop, where its news is handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from isthmus.device.output.home_assistant import Card, Message
from isthmus.device.output.shown import jpeg, with_answer
from isthmus.device.output.sinks import AnsweredPicture, Inbox, Sink
from isthmus.proto.errors import ConfigError
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEP_ALIVE_S = 10
"""A device that hangs or is cut off is offline after one and a half times that; Paho's own 60 s are long for a doorbell."""
RETRY_S = (1, 2)
"""From the first try to those after a long time: a broker that is back is found within seconds."""
SHORT_S, SHORT_TIMES = 5.0, 3
"""So many connections in a row that the broker ends sooner than that: it does so to whoever is pushed off by its own name."""
PICTURE_S = 1.0
"""A picture at most so often: it is for people who look."""


@dataclass(frozen=True)
class Broker:
    """Where it is, and who we are there."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None

    @classmethod
    def of(cls, url: str) -> Broker:
        """Of `mqtt://[USER[:PASSWORD]@]HOST[:PORT]` or `mqtts://…`. Raises ConfigError, which does not repeat the password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError("mqtt: expected mqtt://[USER[:PASSWORD]@]HOST[:PORT], or mqtts:// for TLS")
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        return cls(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts", user, password)

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


class Mqtt(Sink):
    """Publishes a `Card`."""

    capacity, pictures = 8, True

    def __init__(self, broker: Broker, card: Card, labels: tuple[str, ...]) -> None:
        self.name, self._broker, self._card, self._labels = str(broker), broker, card, labels
        self._up = self._leaving = False
        self._why = ""
        self._up_since_s, self._short = float("-inf"), 0
        self._picture_s = float("-inf")

    async def open(self) -> None:
        """Begin to look for the broker; that it is away now is no fault."""
        self._loop = asyncio.get_running_loop()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"isthmus-{self._card.device}")
        client.on_connect, client.on_message, client.on_disconnect = self._connected, self._heard, self._disconnected
        client.on_connect_fail = self._failed
        client.will_set(*self._card.will, qos=1, retain=True)
        client.reconnect_delay_set(*RETRY_S)
        client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls:
            client.tls_set()
        client.connect_async(self._broker.host, self._broker.port, KEEP_ALIVE_S)
        client.loop_start()

    async def run(self, inbox: Inbox) -> None:
        """Publish what changes, until the inbox ends; then say that we are gone."""
        try:
            while True:
                try:
                    answered = await asyncio.wait_for(inbox.next(), self._patience_s())
                except asyncio.TimeoutError:
                    self._publish(self._card.step(self._loop.time()))
                    continue
                if answered is None:
                    break
                await self._take(answered)
        finally:
            await self._leave()

    async def _take(self, answered: AnsweredPicture) -> None:
        row, now = answered.row, self._loop.time()
        self._publish(self._card.step(now))
        self._publish(self._card.answered(row, answered.link))
        if self._up and answered.pixels is not None and now >= self._picture_s + PICTURE_S:
            self._picture_s = now
            if (file := await asyncio.to_thread(self._file, answered)) is not None:
                self._publish(self._card.picture(file))

    def _file(self, answered: AnsweredPicture) -> bytes | None:
        pixels = with_answer(answered, self._labels)
        return None if pixels is None else jpeg(pixels)

    def _patience_s(self) -> float | None:
        due_s = self._card.due_at
        return None if due_s is None else max(0.0, due_s - self._loop.time())

    def _publish(self, messages: list[Message]) -> None:
        if self._up:  # or else the card says it when the broker is back
            for topic, payload in messages:
                self._client.publish(topic, payload, retain=True)

    async def _leave(self) -> None:
        self._leaving = True
        if self._up:
            last = self._client.publish(*self._card.will, qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):
                await asyncio.to_thread(last.wait_for_publish, 1.0)
        self._client.disconnect()  # its thread ends by itself; one that hangs in a name's look-up is waited for by nobody

    # What Paho's thread says, taken to the event loop.

    def _on_loop(self, what: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all is over
            self._loop.call_soon_threadsafe(partial(what, *arguments))

    def _connected(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._on_loop(self._on_connected, bool(reason.is_failure), str(reason))

    def _heard(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self._on_loop(self._on_heard, message.topic, bytes(message.payload))

    def _disconnected(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._on_loop(self._on_lost, f"connection lost ({reason})")

    def _failed(self, client: paho.Client, data: Any) -> None:
        self._on_loop(self._on_lost, "cannot be reached")

    # On the event loop.

    def _on_connected(self, refused: bool, reason: str) -> None:
        if refused:
            self._on_lost(f"refused us: {reason}; are user and password in the URL right?")
            return
        if self._short < SHORT_TIMES:
            log.warning("%s: connected", self.name)
            self._why = ""
        self._up, self._up_since_s = True, self._loop.time()
        for topic in self._card.listens_to:
            self._client.subscribe(topic)
        self._publish(self._card.connected())

    def _on_heard(self, topic: str, payload: bytes) -> None:
        self._publish(self._card.heard(topic, payload))

    def _on_lost(self, why: str) -> None:
        if self._up:
            self._short = self._short + 1 if self._loop.time() < self._up_since_s + SHORT_S else 0
        self._up = False
        if self._short >= SHORT_TIMES:
            device = self._card.device
            why = f"connected and lost again and again; does another agent call itself {device}? give each its own --client-id"
        if why != self._why and not self._leaving:  # the same again and again is no news
            log.warning("%s: %s; answers go on, and it is tried again", self.name, printable(why))
        self._why = why
