"""A device as Home Assistant's MQTT integration knows it: what it announces, what it says, what it listens to. Pure.

`isthmus/DEVICE/availability` is `online` or, by the broker's word, `offline`. Everything is retained, and said again on every
connection and whenever Home Assistant says that it is online, so that whoever comes late, in whatever order, finds it right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from isthmus.device.output.presence import Presence
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import LinkState

TOPIC = "isthmus"
DISCOVERY = "homeassistant"
"""Home Assistant's own prefix, unless somebody changed it there."""
STATUS = f"{DISCOVERY}/status"
"""Where Home Assistant says that it is `online`."""
FIGURES_S = 5.0
"""The link's figures and the last answer are said again after so long, if they changed."""
ONLINE, OFFLINE, ON, OFF = "online", "offline", "ON", "OFF"


class Message(NamedTuple):
    """What is published, retained: an empty payload takes back what was."""

    topic: str
    payload: str | bytes


class Card:
    """One device: its link, its last answer, its picture, and every class that it has ever seen."""

    def __init__(
        self, device: str, *, bundle: str, version: str, labels: tuple[str, ...], presence: Presence | None = None
    ) -> None:
        """`device` names it in topics; what may not stand there becomes `_`. `presence` says which classes matter."""
        self.device = re.sub(r"[^A-Za-z0-9_-]", "_", device)
        self._base, self._node, self._labels = f"{TOPIC}/{self.device}", f"isthmus_{self.device}", labels
        self._about = {
            "identifiers": [self._node],
            "name": device,
            "manufacturer": "Isthmus",
            "model": bundle,
            "sw_version": version,
        }
        self._presence = presence or Presence()
        self._known = set(self._presence.watched or ())
        """Classes that Home Assistant has a sensor for: those that are watched from the beginning, others once they are seen."""
        self._said: dict[str, str | bytes] = {self._state_of(label): OFF for label in sorted(self._known)}
        """What stands at each topic of a state."""
        self._figures_s = float("-inf")
        self._link = LinkState.DOWN

    @property
    def will(self) -> Message:
        """What the broker says when the device is gone."""
        return Message(f"{self._base}/availability", OFFLINE)

    @property
    def listens_to(self) -> tuple[str, ...]:
        """Topics: Home Assistant's word, and what an earlier run of this device has announced."""
        return STATUS, f"{DISCOVERY}/binary_sensor/{self._node}/+/config"

    @property
    def due_at(self) -> float | None:
        """When a class may have gone out of view."""
        return self._presence.due_at

    def connected(self) -> list[Message]:
        """All of it: announcements before states, and availability last."""
        announced = [*self._fixed(), *(self._sensor_of(label) for label in sorted(self._known))]
        said = [Message(topic, payload) for topic, payload in self._said.items()]
        return [*announced, *said, Message(f"{self._base}/availability", ONLINE)]

    def heard(self, topic: str, payload: bytes) -> list[Message]:
        """What is to be said about what somebody else said."""
        if topic == STATUS:
            return self.connected() if payload == ONLINE.encode() else []
        name = topic.rpartition("/config")[0].rpartition("/")[2]
        label = int(name.removeprefix("class_")) if re.fullmatch(r"class_[0-9]{1,9}", name) else -1
        if not payload or label in self._known:
            return []
        if not 0 <= label < len(self._labels) or not self._presence.watches(label):
            return [Message(topic, "")]  # of a bundle that this device no longer has, or no longer watched
        return self._announced(label)

    def answered(self, row: FrameRecord, link: LinkState) -> list[Message]:
        """What an answer changes."""
        changes = self._presence.answered(row)
        messages = [m for change in changes for m in self._seen(change.label, seen=True)]
        if (
            link is not self._link
            or f"{self._base}/link" not in self._said
            or row.answered_s >= self._figures_s + FIGURES_S
        ):
            self._link, self._figures_s = link, row.answered_s
            messages += self._figures(row, link)
        return messages

    def step(self, now: float) -> list[Message]:
        """What time changes: classes that have gone."""
        return [m for change in self._presence.step(now) for m in self._seen(change.label, seen=False)]

    def picture(self, jpeg: bytes) -> list[Message]:
        """The newest picture, with its answer drawn on it."""
        return list(self._changed(f"{self._base}/picture", jpeg))

    def _seen(self, label: int, *, seen: bool) -> Iterator[Message]:
        if label not in self._known:
            yield from self._announced(label)
        yield from self._changed(self._state_of(label), ON if seen else OFF)

    def _announced(self, label: int) -> list[Message]:
        self._known.add(label)
        state = ON if label in self._presence.labels else OFF
        return [self._sensor_of(label), *self._changed(self._state_of(label), state, always=True)]

    def _figures(self, row: FrameRecord, link: LinkState) -> Iterable[Message]:
        figures = {
            "goodput_Mbps": None if row.goodput_Bps is None else round(row.goodput_Bps * 8e-6, 3),
            "latency_ms": round(row.latency_s * 1e3, 1),
            "answered_by": row.source.value,
            "because": row.reason.value,
        }
        yield from self._changed(f"{self._base}/link", link.value)
        yield from self._changed(f"{self._base}/link/figures", msgspec.json.encode(figures).decode())

    def _changed(self, topic: str, payload: str | bytes, *, always: bool = False) -> Iterator[Message]:
        if always or self._said.get(topic) != payload:
            self._said[topic] = payload
            yield Message(topic, payload)

    def _state_of(self, label: int) -> str:
        return f"{self._base}/class/{label}"

    def _sensor_of(self, label: int) -> Message:
        return self._entity(
            "binary_sensor",
            f"class_{label}",
            self._labels[label],
            state_topic=self._state_of(label),
            device_class="occupancy",
        )

    def _fixed(self) -> list[Message]:
        link = f"{self._base}/link"
        return [
            self._entity(
                "sensor", "link", "Link", state_topic=link, json_attributes_topic=f"{link}/figures", device_class="enum",
                options=[state.value for state in LinkState], entity_category="diagnostic", icon="mdi:lan-connect",
            ),
            self._entity("camera", "picture", "Picture", topic=f"{self._base}/picture"),
        ]  # fmt: skip

    def _entity(self, kind: str, key: str, name: str, **more: Any) -> Message:
        told = {
            "name": name,
            "unique_id": f"{self._node}_{key}",
            "availability_topic": f"{self._base}/availability",
            "device": self._about,
            **more,
        }
        return Message(f"{DISCOVERY}/{kind}/{self._node}/{key}/config", msgspec.json.encode(told).decode())
