"""A stand-in for Home Assistant's MQTT integration: finds entities as it does, and knows nothing but what it was told.

https://www.home-assistant.io/integrations/mqtt: discovery topics, `homeassistant/status` as birth and will, availability.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

STATUS = "homeassistant/status"


@dataclass
class Entity:
    """One thing on a card."""

    topic: str
    """Where it was discovered."""
    config: dict[str, Any]
    state: bytes | None = None
    attributes: bytes | None = None
    available: bool = False
    states: list[bytes] = field(default_factory=list)
    """Every change of its state, in order."""


class HomeAssistant:
    """Runs from when it is made until it is closed; started again, it begins with nothing."""

    def __init__(self, port: int) -> None:
        self.entities: dict[str, Entity] = {}
        """By unique id."""
        self.duplicates: list[str] = []
        """Ids that were announced in two places: Home Assistant would refuse the second."""
        self._lock = threading.Lock()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id="home-assistant")
        client.on_connect, client.on_message, client.on_disconnect = self._connected, self._heard, self._cut_off
        client.will_set(STATUS, "offline")
        client.reconnect_delay_set(1, 1)
        client.connect_async("127.0.0.1", port, 10)
        client.loop_start()

    def close(self) -> None:
        """End as a restart ends it."""
        self._client.publish(STATUS, "offline")
        self._client.disconnect()
        self._client.loop_stop()

    def shown(self) -> dict[str, str | None]:
        """Names and states as the card shows them: a camera is `picture` once there is one."""
        with self._lock:
            return {entity.config["name"]: self._state(entity) for entity in self.entities.values()}

    @staticmethod
    def _state(entity: Entity) -> str | None:
        if not entity.available:
            return "unavailable"
        if "topic" in entity.config:
            return "picture" if (entity.state or b"").startswith(b"\xff\xd8") else None
        return None if entity.state is None else entity.state.decode()

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe("homeassistant/+/+/+/config")
        with self._lock:
            for entity in self.entities.values():
                self._listen(entity)
        client.publish(STATUS, "online")

    def _cut_off(self, *_: Any) -> None:
        """Without its broker, nothing is available."""
        with self._lock:
            for entity in self.entities.values():
                entity.available = False

    def _listen(self, entity: Entity) -> None:
        keys = ("state_topic", "topic", "availability_topic", "json_attributes_topic")
        self._client.subscribe([(entity.config[key], 0) for key in keys if key in entity.config])

    def _heard(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        payload = bytes(message.payload)
        with self._lock:
            if message.topic.startswith("homeassistant/") and message.topic.endswith("/config"):
                self._discovered(message.topic, payload)
            for entity in self.entities.values():
                self._told(entity, message.topic, payload)

    def _discovered(self, topic: str, payload: bytes) -> None:
        if not payload:
            self.entities = {key: entity for key, entity in self.entities.items() if entity.topic != topic}
            return
        config = json.loads(payload)
        key = config["unique_id"]
        if key in self.entities and self.entities[key].topic != topic:
            self.duplicates.append(key)
        elif key not in self.entities:
            self.entities[key] = Entity(topic, config)
            self._listen(self.entities[key])

    @staticmethod
    def _told(entity: Entity, topic: str, payload: bytes) -> None:
        if topic == entity.config["availability_topic"]:
            entity.available = payload == b"online"
        elif topic == entity.config.get("json_attributes_topic"):
            entity.attributes = payload
        elif topic in (entity.config.get("state_topic"), entity.config.get("topic")) and payload != entity.state:
            entity.state = payload
            entity.states.append(payload)
