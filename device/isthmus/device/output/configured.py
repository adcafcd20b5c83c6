"""The sinks that an agent's configuration names. What they need is imported where it is needed: most agents have none."""

from __future__ import annotations

import secrets
import webbrowser
from importlib import metadata
from pathlib import Path

from isthmus.device.capture.sources.address import public
from isthmus.device.config import AgentConfig, page_address
from isthmus.device.output.presence import Presence
from isthmus.device.output.sinks import Sink
from isthmus.models.bundle import Manifest
from isthmus.proto.errors import ConfigError

MOST_NAMED = 20
"""Of a bundle's classes, in an error."""


def sinks_of(config: AgentConfig, manifest: Manifest, fps: float) -> list[Sink]:
    """Every sink that is configured, for pictures that come at about `fps` a second. Raises ConfigError."""
    sinks, labels, watched = list[Sink](), manifest.labels, _watched(config, manifest)
    if config.page is not None:
        sinks.append(_page(config, config.page, manifest))
    if config.mqtt is not None:
        sinks.append(_mqtt(config, manifest, watched))
    if config.webhook is not None:
        from isthmus.device.output.webhook import Webhook

        sinks.append(Webhook(config.webhook, config.client_id, labels, Presence(watched)))
    if config.overlay is not None:
        from isthmus.device.output.overlay import Overlay

        sinks.append(Overlay(Path(config.overlay), fps, labels))
    if config.clips is not None:
        from isthmus.device.output.clips import Clips

        sinks.append(Clips(Path(config.clips), config.clips_total_bytes, fps, labels, Presence(watched)))
    return sinks


def _page(config: AgentConfig, address: str, manifest: Manifest) -> Sink:
    """The live page: for this machine alone, or for whoever has its token."""
    from isthmus.device.output.page.access import is_loopback
    from isthmus.device.output.page.page import Facts, Page

    host, port = page_address(address)
    token = config.page_token or (None if is_loopback(host) else secrets.token_urlsafe(16))
    facts = Facts(
        bundle=manifest.name,
        source=public(config.source),
        client_id=config.client_id,
        policy=config.policy,
        server=", ".join(config.servers) or None,
        deadline_s=config.deadline_s,
        version=metadata.version("isthmus"),
        labels=manifest.labels,
    )
    browse = webbrowser.open if config.open_page else None
    return Page(host, port, token, facts, made_up=config.page_token is None, browse=browse)


def _watched(config: AgentConfig, manifest: Manifest) -> frozenset[int] | None:
    """The classes that `watch` names; None where it names none. Raises ConfigError."""
    if config.watch is None:
        return None
    names = [name.strip() for name in config.watch.split(",")]
    for name in names:
        if name not in manifest.labels:
            known = ", ".join(manifest.labels[:MOST_NAMED]) + (", …" if len(manifest.labels) > MOST_NAMED else "")
            raise ConfigError(f"watch: '{name}' is no class of {manifest.name}; known: {known}")
    return frozenset(manifest.labels.index(name) for name in names)


def _mqtt(config: AgentConfig, manifest: Manifest, watched: frozenset[int] | None) -> Sink:
    try:
        from isthmus.device.output.mqtt import Broker, Mqtt
    except ImportError as error:
        raise ConfigError("mqtt: paho-mqtt is not installed; the 'mqtt' extra brings it") from error
    from isthmus.device.output.home_assistant import Card

    assert config.mqtt is not None
    version, presence = metadata.version("isthmus"), Presence(watched)
    card = Card(config.client_id, bundle=manifest.name, version=version, labels=manifest.labels, presence=presence)
    return Mqtt(Broker.of(config.mqtt), card, manifest.labels)
