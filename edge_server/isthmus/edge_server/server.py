"""The server as a process: a bundle on a port, from its configuration to its last answer. It reads clock and signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.engines import Tail
from isthmus.edge_server.security import certificates
from isthmus.edge_server.service import SERVICE, EdgeService
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto.errors import BindError, ConfigError
from isthmus.proto.signals import end_at_once_from_now_on

log = logging.getLogger(__name__)

BYTES_PER_MBIT = 125_000.0
LOOK_S = 1.0
"""How often it is looked for what no message and no timer tells."""


def bind(
    service: EdgeService, listen: str, credential: grpc.ServerCredentials | None, *, debug: bool = False
) -> tuple[grpc.aio.Server, health.aio.HealthServicer, str]:
    """A server for `service` on HOST:PORT, not yet started; its health, and the address it got. Raises BindError."""
    # Far beyond what is served, so that a refusal can say why; yet what is never finished is bounded on a connection.
    options = [*wire.server_options(service.max_message_bytes), ("grpc.max_concurrent_streams", service.max_calls)]
    server = grpc.aio.server(options=options)
    edge_pb2_grpc.add_EdgeServicer_to_server(service, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    if debug:
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(listen) if credential is None else server.add_secure_port(listen, credential)
    except RuntimeError:
        port = 0
    if port == 0:
        raise BindError(f"{listen}: cannot listen; is it in use already? choose another with --listen HOST:PORT")
    return server, status, f"{listen.rpartition(':')[0]}:{port}"


async def serve(config: ServerConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve a bundle until SIGTERM (drains) or cancellation; `ready` is told the address once devices can connect.

    Raises SecurityError, BundleError, ConfigError and BindError before that.
    """
    _on_hangup(lambda: None)  # a server that still loads is not ended by it either
    shown = certificates(config)
    bundle = bundles.load(config.bundle, half="tail")

    def tail() -> Tail:
        return Tail(bundle, config.threads, engine=config.engine)

    service = EdgeService(
        Served(bundle.manifest.name, bundle.sha256, bundle.codec),
        tail(),
        server_id=f"{socket.gethostname()}/{secrets.token_hex(2)}",  # machines may be called alike, and have several
        limits=Limits(config.max_streams, config.credits, config.max_fps, config.max_mbps * BYTES_PER_MBIT),
        max_batch=config.max_batch,
        another=tail,
    )
    credential = None if shown is None else shown.credentials()
    server, status, address = bind(service, config.listen, credential, debug=config.debug)
    if config.metrics is not None:
        service.metrics.serve(config.metrics)
    told = (lambda: ready(address)) if ready else (lambda: None)
    announcing = _announcing(address, bundle.sha256, service) if config.announce else None
    await run(service, server, status, grace_s=config.grace_s, ready=told, shown=shown, announcing=announcing)


def _announcing(address: str, sha256: bytes, service: EdgeService) -> AbstractAsyncContextManager[None]:
    """Says in the local network that the server is there. Raises ConfigError where that cannot be."""
    try:
        from isthmus.edge_server.announcement import announced
    except ImportError as error:
        raise ConfigError(f"announce: {error.name} is not installed; this needs the 'discovery' extra") from error
    return announced(address, [sha256], service.server_id)


async def run(
    service: EdgeService,
    server: grpc.aio.Server,
    status: health.aio.HealthServicer,
    *,
    grace_s: float,
    ready: Callable[[], None],
    shown: Certificates | None = None,
    announcing: AbstractAsyncContextManager[None] | None = None,
) -> None:
    """Serve until SIGTERM, then drain; cancellation stops at once, and a second signal ends the process at once.

    SIGHUP reads the certificates that are `shown` anew. The server is open for new devices within `announcing`.
    """
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: no draining there
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _on_hangup(lambda: _look(service, shown, again=True))
    looking = asyncio.create_task(_keep_looking(service, shown))

    async def tell(serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await status.set(name, states.SERVING if serving else states.NOT_SERVING)

    service.on_health = tell
    try:
        if shown is not None:
            service.revoke(shown.revoked)
        await server.start()
        await tell(True)
        ready()
        async with announcing or contextlib.nullcontext():
            await stop.wait()
        end_at_once_from_now_on()
        log.info("draining for at most %g s", grace_s)
        await status.enter_graceful_shutdown()
        await service.drain(grace_s)
    finally:
        looking.cancel()
        await service.drain(0.0)
        await server.stop(None)
        service.close()


async def _keep_looking(service: EdgeService, shown: Certificates | None) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        _look(service, shown)


def _look(service: EdgeService, shown: Certificates | None, *, again: bool = False) -> None:
    service.look()
    if shown is not None and shown.look(again=again):
        service.revoke(shown.revoked)


def _on_hangup(act: Callable[[], None]) -> None:
    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has no such signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)
