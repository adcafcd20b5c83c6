"""The sinks that an agent's configuration names. What they need is imported where it is needed: most agents have none."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from isthmus.device.config import AgentConfig
from isthmus.device.output.sinks import Sink
from isthmus.models.bundle import Manifest
from isthmus.proto.errors import ConfigError


def sinks_of(config: AgentConfig, manifest: Manifest, fps: float) -> list[Sink]:
    """Every sink that is configured, for pictures that come at about `fps` a second. Raises ConfigError."""
    sinks, labels = list[Sink](), manifest.labels
    if config.mqtt is not None:
        sinks.append(_mqtt(config, manifest))
    if config.webhook is not None:
        from isthmus.device.output.webhook import Webhook

        sinks.append(Webhook(config.webhook, config.client_id, labels))
    if config.overlay is not None:
        from isthmus.device.output.overlay import Overlay

        sinks.append(Overlay(Path(config.overlay), fps, labels))
    if config.clips is not None:
        from isthmus.device.output.clips import Clips

        sinks.append(Clips(Path(config.clips), config.clips_total_bytes, fps, labels))
    return sinks


def _mqtt(config: AgentConfig, manifest: Manifest) -> Sink:
    try:
        from isthmus.device.output.mqtt import Broker, Mqtt
    except ImportError as error:
        raise ConfigError("mqtt: paho-mqtt is not installed; the 'mqtt' extra brings it") from error
    from isthmus.device.output.home_assistant import Card

    assert config.mqtt is not None
    card = Card(config.client_id, bundle=manifest.name, version=metadata.version("isthmus"), labels=manifest.labels)
    return Mqtt(Broker.of(config.mqtt), card, manifest.labels)
