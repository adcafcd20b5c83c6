"""What a card says: every word is retained, said once, and said again to whoever comes late."""

from __future__ import annotations

import json

from device.output.test_presence import row
from isthmus.device.output.home_assistant import Card, Message
from isthmus.device.output.presence import HOLD_S, Presence
from isthmus.proto.vocabulary import LinkState

LABELS = ("person", "car")
CONFIG = "homeassistant/binary_sensor/isthmus_front_door/class_{}/config"


def card() -> Card:
    return Card("front door", bundle="street", version="1.0", labels=LABELS)


def topics(messages: list[Message]) -> list[str]:
    return [message.topic for message in messages]


def test_a_class_is_announced_when_it_is_first_seen_and_only_changes_are_said() -> None:
    c = card()
    first = c.answered(row(1.0, boxes=(0,)), LinkState.UP)
    assert topics(first) == [
        CONFIG.format(0),
        "isthmus/front_door/class/0",
        "isthmus/front_door/link",
        "isthmus/front_door/link/figures",
    ]
    assert json.loads(first[0].payload)["name"] == "person"
    assert first[1].payload == "ON"
    assert c.answered(row(1.1, boxes=(0,)), LinkState.UP) == []
    assert c.step(1.1 + HOLD_S) == [Message("isthmus/front_door/class/0", "OFF")]
    assert c.answered(row(4.0, boxes=(0,)), LinkState.DOWN)[0] == Message("isthmus/front_door/class/0", "ON")


def test_whoever_comes_late_is_told_everything_availability_last() -> None:
    c = card()
    c.answered(row(1.0, boxes=(0, 1)), LinkState.UP)
    c.picture(b"jpeg")
    told = dict(c.connected())
    assert list(told)[-1] == "isthmus/front_door/availability"
    assert told["isthmus/front_door/availability"] == "online"
    assert told["isthmus/front_door/class/1"] == "ON"
    assert told["isthmus/front_door/link"] == "up"
    assert told["isthmus/front_door/picture"] == b"jpeg"
    assert c.heard("homeassistant/status", b"online") == list(told.items())
    assert c.heard("homeassistant/status", b"offline") == []
    assert c.will == Message("isthmus/front_door/availability", "offline")


def test_ids_are_unique_and_every_entity_belongs_to_the_device() -> None:
    c = card()
    c.answered(row(1.0, boxes=(0, 1)), LinkState.UP)
    configs = [json.loads(m.payload) for m in c.connected() if m.topic.endswith("/config")]
    assert len({config["unique_id"] for config in configs}) == len(configs) == 4
    assert {tuple(config["device"]["identifiers"]) for config in configs} == {("isthmus_front_door",)}
    assert {config["availability_topic"] for config in configs} == {"isthmus/front_door/availability"}


def test_what_an_earlier_run_announced_is_taken_up_as_off_and_what_is_of_another_bundle_is_taken_back() -> None:
    c = card()
    assert c.heard(CONFIG.format(1), b"{}")[-1] == Message("isthmus/front_door/class/1", "OFF")
    assert c.heard(CONFIG.format(1), b"{}") == []
    assert c.heard(CONFIG.format(79), b"{}") == [Message(CONFIG.format(79), "")]
    assert c.heard(CONFIG.format(79), b"") == []
    assert c.heard(CONFIG.format(1).replace("class_1", "someone_else"), b"{}") == [
        Message(CONFIG.format(1).replace("class_1", "someone_else"), "")
    ]


def test_what_is_watched_is_announced_before_it_was_ever_seen_and_nothing_else_is() -> None:
    c = Card("front door", bundle="street", version="1.0", labels=LABELS, presence=Presence({1}))
    told = dict(c.connected())
    assert told["isthmus/front_door/class/1"] == "OFF"
    assert CONFIG.format(1) in told
    assert not c.heard(CONFIG.format(1), b"{}")
    assert c.heard(CONFIG.format(0), b"{}") == [Message(CONFIG.format(0), "")]
    assert "isthmus/front_door/class/0" not in topics(c.answered(row(1.0, boxes=(0,)), LinkState.UP))
