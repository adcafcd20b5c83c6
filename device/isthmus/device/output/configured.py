"""The sinks that an agent's configuration names. What they need is imported where it is needed: most agents have none."""

from __future__ import annotations

import secrets
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.device import sensors
from isthmus.device.capture.sources.address import public
from isthmus.device.config import AgentConfig, page_address
from isthmus.device.output.presence import Presence
from isthmus.device.output.sinks import Sink
from isthmus.models.bundle import Manifest
from isthmus.proto.errors import ConfigError
from isthmus.proto.operations.version import version

if TYPE_CHECKING:
    from isthmus.device.monitoring.monitor import Monitor

Metrics = Callable[[], tuple[bytes, str]]
MOST_NAMED = 20
"""Of a bundle's classes, in an error."""


def sinks_of(config: AgentConfig, manifest: Manifest, fps: float) -> list[Sink]:
    """Every sink that is configured, for pictures that come at about `fps` a second. Raises ConfigError."""
    sinks, labels, watched = list[Sink](), manifest.labels, _watched(config, manifest)
    monitor = _monitor(config, manifest, fps)
    if monitor is not None:
        sinks.append(monitor)
    if config.page is not None:
        sinks.append(_page(config, config.page, manifest, None if monitor is None else monitor.metrics.page))
    if config.mqtt is not None:
        sinks.append(_mqtt(config, manifest, watched))
    if config.webhook is not None:
        from isthmus.device.output.webhook import Webhook

        sinks.append(Webhook(config.webhook, config.client_id, labels, Presence(watched)))
    if config.traces is not None:
        sinks.append(_traces(config, config.traces))
    if config.overlay is not None:
        from isthmus.device.output.overlay import Overlay

        sinks.append(Overlay(Path(config.overlay), fps, labels))
    if config.clips is not None:
        from isthmus.device.output.clips import Clips

        sinks.append(Clips(Path(config.clips), config.clips_total_bytes, fps, labels, Presence(watched)))
    return sinks


def _monitor(config: AgentConfig, manifest: Manifest, fps: float) -> Monitor | None:
    """Counters for `metrics`, and for the page where they can be had."""
    if config.metrics is None and config.page is None:
        return None
    try:
        from isthmus.device.monitoring.metrics import AgentMetrics
        from isthmus.device.monitoring.monitor import Monitor
    except ImportError as error:
        if config.metrics is None:
            return None
        raise ConfigError("metrics: prometheus-client is not installed; the 'metrics' extra brings it") from error
    info = {"bundle": manifest.name, "client_id": config.client_id, "version": version()}
    counted = AgentMetrics(info | {"policy": config.policy}, sensors=sensors.read)
    return Monitor(counted, config.metrics, period_s=1 / fps)


def _page(config: AgentConfig, address: str, manifest: Manifest, metrics: Metrics | None) -> Sink:
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
        version=version(),
        labels=manifest.labels,
    )
    browse = webbrowser.open if config.open_page else None
    return Page(host, port, token, facts, made_up=config.page_token is None, browse=browse, metrics=metrics)


def _traces(config: AgentConfig, collector: str) -> Sink:
    try:
        from isthmus.device.output.traces import Traces
        from isthmus.proto.monitoring.tracer import tracer_to
    except ImportError as error:
        raise ConfigError(f"traces: {error.name} is not installed; the 'otel' extra brings it") from error
    tracer = tracer_to(collector, config.traces_share, half="agent", instance=config.client_id)
    return Traces(tracer, config.client_id)


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
    labels, presence = manifest.labels, Presence(watched)
    card = Card(config.client_id, bundle=manifest.name, version=version(), labels=labels, presence=presence)
    return Mqtt(Broker.of(config.mqtt), card, manifest.labels)
