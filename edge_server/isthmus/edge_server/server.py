"""The server as a process: a bundle on a port, from its configuration to its last answer. It reads clock and signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.config import DEFAULT_BUNDLE, RAY, ServerConfig
from isthmus.edge_server.engines import Engine, Tail
from isthmus.edge_server.inference import servicer
from isthmus.edge_server.inference.offers import Offers
from isthmus.edge_server.inference.servicer import Inference
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.repository.loading import Loader
from isthmus.edge_server.repository.push import MayPush, Receiver
from isthmus.edge_server.repository.repository import Repository
from isthmus.edge_server.repository.scratch import Scratch, sweep
from isthmus.edge_server.scale_out.ages import Ages
from isthmus.edge_server.scale_out.ray_tails import RayTails, Replicas, tail_of
from isthmus.edge_server.security import certificates
from isthmus.edge_server.service import SERVICE, EdgeService
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto.errors import BindError, ConfigError
from isthmus.proto.inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from isthmus.proto.operations import probe
from isthmus.proto.operations.notify import service_manager
from isthmus.proto.signals import end_at_once_from_now_on

if TYPE_CHECKING:
    from isthmus.proto.monitoring.tracer import Tracer

log = logging.getLogger(__name__)

BYTES_PER_MBIT = 125_000.0
COPIES = "isthmus-models-"
"""Of the folder for temporary files in which copies of what a repository serves lie."""
CONNECTION_AGE = 0.7
"""Of the age of a stream, which is four fifths of it at least: the connection, whose age gRPC spreads by a tenth, is older
then, so that the next stream makes a new one and a balancer that sees connections only can put it elsewhere too."""
LOOK_S = 1.0
"""How often it is looked for what no message and no timer tells."""


def bind(
    service: EdgeService,
    listen: str,
    credential: grpc.ServerCredentials | None,
    *,
    inference: Inference | None = None,
    debug: bool = False,
    stream_age_s: float | None = None,
) -> tuple[grpc.aio.Server, health.aio.HealthServicer, str]:
    """A server for `service` on HOST:PORT, not yet started; its health, and the address it got. Raises BindError.

    Where streams of `stream_age_s` are asked to come again, their connections take no new ones by then.
    """
    # Far beyond what is served, so that a refusal can say why; yet what is never finished is bounded on a connection.
    largest = max(service.max_message_bytes, 0 if inference is None else inference.max_message_bytes)
    options = [*wire.server_options(largest), ("grpc.max_concurrent_streams", service.max_calls)]
    if stream_age_s is not None:
        options.append(("grpc.max_connection_age_ms", round(CONNECTION_AGE * stream_age_s * 1e3)))
    server = grpc.aio.server(options=options)
    edge_pb2_grpc.add_EdgeServicer_to_server(service, server)
    if inference is not None:
        add_GRPCInferenceServiceServicer_to_server(inference, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    echo: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        probe.METHOD: grpc.unary_unary_rpc_method_handler(service.echo)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(probe.SERVICE, echo),))
    if debug:
        services = SERVICE, servicer.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME
        reflection.enable_server_reflection(services, server)
    try:
        port = server.add_insecure_port(listen) if credential is None else server.add_secure_port(listen, credential)
    except RuntimeError:
        port = 0
    if port == 0:
        raise BindError(f"{listen}: cannot listen; is it in use already? choose another with --listen HOST:PORT")
    return server, status, f"{listen.rpartition(':')[0]}:{port}"


async def serve(config: ServerConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve a bundle, or a folder of them, until SIGTERM (drains) or cancellation; `ready` is told the address once devices
    can connect.

    Raises SecurityError, BundleError, ConfigError and BindError before that.
    """
    _on_hangup(lambda: None)  # a server that still loads is not ended by it either
    shown = certificates(config)
    metrics = Metrics()
    tracer = _tracer(config)
    metrics.tracer = tracer
    if config.metrics is not None:  # before anything is loaded: probes are told that it starts
        metrics.serve(config.metrics)
    try:
        how = _serve_all if config.models is not None else _serve_on_ray if config.engine == RAY else _serve_alone
        await how(config, metrics, shown, ready)
    finally:
        metrics.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


def _tracer(config: ServerConfig) -> Tracer | None:
    """The way to the collector, where one is named. Raises ConfigError."""
    if config.traces is None:
        return None
    try:
        from isthmus.proto.monitoring.tracer import tracer_to
    except ImportError as error:
        raise ConfigError(f"traces: {error.name} is not installed; this needs the 'otel' extra") from error
    instance = f"{socket.gethostname()}:{config.listen.rpartition(':')[2]}"
    return tracer_to(config.traces, config.traces_share, half="server", instance=instance)


Told = Callable[[str], None] | None


async def _serve_all(config: ServerConfig, metrics: Metrics, shown: Certificates | None, ready: Told) -> None:
    """Serve a folder of bundles."""
    service = EdgeService(server_id=_name(), limits=_limits(config), ages=_ages(config), metrics=metrics)
    sweep(Path(tempfile.gettempdir()), COPIES)
    copies = Scratch(Path(tempfile.gettempdir()), COPIES)
    try:
        loader = Loader(config.threads, config.engine, config.max_batch, service.max_message_bytes, copies.path)
        repository = Repository(Path(config.models or ""), service, loader)
        await repository.begin()
        may = MayPush(config.pushers, anybody=config.push)
        service.on_push = Receiver(repository, may, _revoked(shown)).receive
        offers = Offers(lambda: service.offered, loader.copied)
        await _serve(config, service, offers, shown, ready, repository)
    finally:
        copies.close()


async def _serve_alone(config: ServerConfig, metrics: Metrics, shown: Certificates | None, ready: Told) -> None:
    """Serve one bundle, which stays as it is."""
    bundle = bundles.load(config.bundle or DEFAULT_BUNDLE, half="tail")

    def tail() -> Tail:
        return Tail(bundle, config.threads, engine=config.engine)

    service = _alone(config, bundle, tail(), another=tail, metrics=metrics)
    await _serve(config, service, _one(bundle, service), shown, ready)


async def _serve_on_ray(config: ServerConfig, metrics: Metrics, shown: Certificates | None, ready: Told) -> None:
    """Serve one bundle whose tail runs on a cluster, under a name that no other server there has."""
    bundle = bundles.load(config.bundle or DEFAULT_BUNDLE, half="tail")
    cpus = float(config.threads) if config.replica_cpus is None else config.replica_cpus
    replicas = Replicas.parse(str(config.replicas), cpus=cpus)
    name = f"isthmus-{bundle.manifest.name}-{socket.gethostname()}-{config.listen.rpartition(':')[2]}-{os.getpid()}"
    tails = RayTails(tail_of(bundle, config.threads), replicas, name=name, address=config.ray)
    try:
        service = _alone(config, bundle, tails, batches=tails.batches, metrics=metrics)
        following = asyncio.create_task(_follow(tails, service))
        try:
            await _serve(config, service, _one(bundle, service), shown, ready)
        finally:
            following.cancel()
    finally:
        tails.close()


def _one(bundle: Bundle, service: EdgeService) -> Offers:
    """What is offered to existing clients where there is one bundle."""
    return Offers(lambda: service.offered, lambda _: bundle)


def _alone(config: ServerConfig, bundle: Bundle, engine: Engine, **how: Any) -> EdgeService:
    """The service for one bundle with this engine; `how` gives further arguments of it."""
    return EdgeService(
        Served(bundle.manifest.name, bundle.sha256, bundle.codec),
        engine,
        server_id=_name(),
        limits=_limits(config),
        max_batch=config.max_batch,
        ages=_ages(config),
        **how,
    )


def _revoked(shown: Certificates | None) -> Callable[[], Collection[str]]:
    """The names of certificates that are turned away, as they are whenever it is asked."""
    return lambda: shown.revoked if shown is not None else ()


async def _follow(tails: RayTails, service: EdgeService) -> None:
    """Have as many batches under way as the replicas that run can take, whatever Ray does with them."""
    known = tails.batches
    while True:
        await asyncio.sleep(LOOK_S)
        batches = await asyncio.get_running_loop().run_in_executor(None, lambda: tails.batches)
        if batches != known:
            log.info("ray: replicas came or went; %d batches at once, %d before", batches, known)
            service.resize(batches)
            known = batches


def _ages(config: ServerConfig) -> Ages:
    return Ages(config.stream_age_s or math.inf, grace_s=config.grace_s)


def _limits(config: ServerConfig) -> Limits:
    workers = config.workers or max(1, (os.cpu_count() or 1) // config.threads)
    rate_Bps = config.max_mbps * BYTES_PER_MBIT
    return Limits(config.max_streams, config.credits, config.max_fps, rate_Bps, workers, config.max_tails)


async def _serve(
    config: ServerConfig,
    service: EdgeService,
    offers: Offers,
    shown: Certificates | None,
    ready: Callable[[str], None] | None,
    repository: Repository | None = None,
) -> None:
    credential = None if shown is None else shown.credentials()
    inference = Inference(service, offers, max_batch=config.max_batch, revoked=_revoked(shown))
    server, status, address = bind(
        service,
        config.listen,
        credential,
        inference=inference,
        debug=config.debug,
        stream_age_s=config.stream_age_s,
    )
    told = (lambda: ready(address)) if ready else (lambda: None)
    announcing = _announcing(address, service) if config.announce else None
    await run(
        service,
        server,
        status,
        grace_s=config.grace_s,
        ready=told,
        shown=shown,
        repository=repository,
        announcing=announcing,
    )


def _announcing(address: str, service: EdgeService) -> AbstractAsyncContextManager[None]:
    """Says in the local network that the server is there. Raises ConfigError where that cannot be."""
    try:
        from isthmus.edge_server.announcement import announced
    except ImportError as error:
        raise ConfigError(f"announce: {error.name} is not installed; this needs the 'discovery' extra") from error
    return announced(address, lambda: [served.sha256 for served in service.offered], service.server_id)


def _name() -> str:
    """What this server calls itself: machines may be called alike, and have several."""
    return f"{socket.gethostname()}/{secrets.token_hex(2)}"


async def run(
    service: EdgeService,
    server: grpc.aio.Server,
    status: health.aio.HealthServicer,
    *,
    grace_s: float,
    ready: Callable[[], None],
    shown: Certificates | None = None,
    repository: Repository | None = None,
    announcing: AbstractAsyncContextManager[None] | None = None,
) -> None:
    """Serve until SIGTERM, then drain; cancellation stops at once, and a second signal ends the process at once.

    SIGHUP reads the certificates that are `shown` anew, and looks into the `repository`. The server is open for new devices
    within `announcing`.
    """
    stop, manager = asyncio.Event(), service_manager()
    with contextlib.suppress(NotImplementedError):  # Windows: no draining there
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _on_hangup(lambda: _on_request(service, shown, repository))
    looking, vitals = [asyncio.create_task(_keep_looking(service, shown))], service.metrics.vitals
    if repository is not None:
        looking.append(asyncio.create_task(repository.keep_looking()))

    said: set[str] = set()

    async def tell(health: Mapping[str, bool]) -> None:
        states = health_pb2.HealthCheckResponse
        told = {SERVICE: health[""], **{_probed(name): well for name, well in health.items()}}
        for name, serving in told.items():
            await status.set(name, states.SERVING if serving else states.NOT_SERVING)
        for name in said.difference(told):
            await status.set(name, states.SERVICE_UNKNOWN)
        said.update(told)
        if health[""]:
            vitals.ready()
        else:
            vitals.not_ready("every tail fails on every batch")

    service.on_health = tell
    try:
        if shown is not None:
            service.revoke(shown.revoked)
        await server.start()
        await service.tell_health()
        ready()
        manager.ready(f"serving {', '.join(served.name for served in service.offered) or 'no bundle yet'}")
        async with announcing or contextlib.nullcontext():
            await stop.wait()
        manager.stopping()
        end_at_once_from_now_on()
        log.info("draining for at most %g s", grace_s)
        service.on_health = None
        vitals.not_ready("draining")
        await status.enter_graceful_shutdown()
        await service.drain(grace_s)
    finally:
        for task in looking:
            task.cancel()
        await service.drain(0.0)
        await server.stop(None)
        service.close()
        manager.close()


def _probed(bundle: str) -> str:
    """What a health probe calls a bundle; the whole server for no bundle."""
    return f"{SERVICE}/{bundle}" if bundle else ""


async def _keep_looking(service: EdgeService, shown: Certificates | None) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        _look(service, shown)


def _on_request(service: EdgeService, shown: Certificates | None, repository: Repository | None) -> None:
    _look(service, shown, again=True)
    if repository is not None:
        repository.look_again()


def _look(service: EdgeService, shown: Certificates | None, *, again: bool = False) -> None:
    service.look()
    service.metrics.vitals.beat(time.monotonic())
    if shown is not None and shown.look(again=again):
        service.revoke(shown.revoked)


def _on_hangup(act: Callable[[], None]) -> None:
    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has no such signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, act)
