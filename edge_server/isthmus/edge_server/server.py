"""The gRPC face of `Streams`: performs what it decides, and is the one place on the server that reads the clock.

One event loop carries all streams; the tail runs in one worker thread beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from isthmus.edge_server import connections
from isthmus.edge_server.admission import Close, Ending, Limits
from isthmus.edge_server.batcher import Batcher, RunBatch
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.engines import Engine, Frame, Tail
from isthmus.edge_server.journal import Journal
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.outbox import Outbox
from isthmus.edge_server.security import certificates
from isthmus.edge_server.streams import Compute, Ready, Reply, Served, Streams
from isthmus.edge_server.tail_times import TailTimes
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2, edge_pb2_grpc, wire
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import BindError, WireError
from isthmus.proto.frame_codec import blank
from isthmus.proto.messages import Hello, Layer, ServerHeartbeat, Welcome
from isthmus.proto.printable import printable
from isthmus.proto.signals import end_at_once_from_now_on
from isthmus.proto.tasks.task import Packed

log = logging.getLogger(__name__)

SERVICE = "isthmus.v1.Edge"
WARM_UP_RUNS = 5
BYTES_PER_MBIT = 125_000.0
UNREAD = 1024
"""Replies that a device may leave unread before its stream is closed."""
UNREAD_S = 10.0
"""How long one reply may wait to be read before its stream is closed."""
CALLS_A_PLACE = 16
"""Calls of any kind that one connection may have open, for each place in the lobby."""
GOODBYE_S = 1.0
"""How long a closed stream's last words may take before its connection is cut."""
LOOK_S = 1.0
"""How often it is looked for what no message and no timer tells."""
STATUS = {
    Ending.MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Ending.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Ending.OVERSIZED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.CROWDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.SILENT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Ending.UNREAD: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.REPLACED: grpc.StatusCode.ABORTED,
    Ending.REVOKED: grpc.StatusCode.PERMISSION_DENIED,
    Ending.DRAINED: grpc.StatusCode.UNAVAILABLE,
}


class EdgeService(edge_pb2_grpc.EdgeServicer):
    """The service for one bundle and one engine. Warms the engine up; must then live on one running event loop."""

    def __init__(
        self,
        served: Served,
        engine: Engine,
        *,
        server_id: str = "edge",
        limits: Limits | None = None,
        max_batch: int = 8,
    ) -> None:
        limits = limits or Limits()
        self.max_message_bytes = wire.max_message_bytes(served.codec)
        self.max_calls = CALLS_A_PLACE * limits.lobby
        self.metrics = Metrics()
        self._engine = engine
        times = TailTimes(warm_up(engine, served, max_batch), max_batch=max_batch)
        batcher: Batcher[Ready] = Batcher(times, max_batch=max_batch, stream_credits=limits.stream_credits)
        self._streams = Streams(served, batcher, server_id=server_id, limits=limits)
        self.metrics.watch(streams=lambda: self._streams.count, pending=lambda: self._streams.waiting)
        self._journal = Journal()
        self._outboxes: dict[int, Outbox] = {}
        self._empty = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tail")
        self._computing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def Stream(
        self,
        request_iterator: AsyncIterator[edge_pb2.DeviceMessage],
        context: grpc.aio.ServicerContext[edge_pb2.DeviceMessage, edge_pb2.ServerMessage],
    ) -> None:
        """One device's stream, from hello to goodbye."""
        peer, now = context.peer(), time.monotonic()
        certificate = connections.certificate_of(context)
        stream = self._streams.open(now=now, address=connections.address_of(peer), certificate=certificate)
        outbox = self._outboxes[stream] = Outbox(stream, peer, asyncio.current_task(), now)
        self._empty.clear()
        self._pump()
        reader = asyncio.create_task(self._read(outbox, request_iterator))
        try:
            while isinstance(action := await outbox.replies.get(), Reply):
                outbox.writing_since_s = time.monotonic()
                await context.write(wire.to_server_pb(action.message))
                outbox.writing_since_s = None
            if action is not None:
                await context.abort(STATUS[action.ending], action.why)
        except grpc.aio.InternalError as error:  # the connection went away under a reply
            raise asyncio.CancelledError from error
        finally:
            reader.cancel()
            self._leave(outbox)

    async def Describe(
        self,
        request: edge_pb2.DescribeRequest,
        context: grpc.aio.ServicerContext[edge_pb2.DescribeRequest, edge_pb2.Description],
    ) -> edge_pb2.Description:
        """What this server serves and how busy it is."""
        served, load = self._streams.served, self._streams.load(time.monotonic())
        return edge_pb2.Description(
            server_id=self._streams.server_id,
            bundle_name=served.name,
            bundle_sha256=served.sha256,
            codec_version=CODEC_VERSION,
            load=wire.to_server_pb(ServerHeartbeat(0, load)).load,
        )

    async def drain(self, grace_s: float) -> None:
        """Say goodbye to every device; returns when all streams are closed, or a moment after the grace."""
        self._streams.drain(grace_s, now=time.monotonic())
        self._pump()
        if self._outboxes:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace_s + GOODBYE_S)

    def revoke(self, names: Iterable[str]) -> None:
        """Turn away whoever has a certificate of one of these names, and no others."""
        self._streams.revoke(names)
        self._pump()

    def close(self) -> None:
        """Let go of the worker thread and of the metrics' port."""
        if self._timer is not None:
            self._timer.cancel()
        self._worker.shutdown(wait=False)
        self.metrics.close()

    def look(self) -> None:
        """Close the streams whose devices have stopped to read; to be called now and then."""
        late_s = time.monotonic() - UNREAD_S
        for outbox in self._outboxes.values():
            if outbox.writing_since_s is not None and outbox.writing_since_s < late_s:
                self._streams.on_unread(outbox.stream, f"a reply has not been read for {UNREAD_S:g} s")
        self._pump()

    async def _read(self, outbox: Outbox, requests: AsyncIterator[edge_pb2.DeviceMessage]) -> None:
        stream = outbox.stream
        try:
            async for request in requests:
                message = wire.from_device_pb(request)
                if isinstance(message, Layer):
                    self.metrics.on_layer(message)
                elif isinstance(message, Hello) and not outbox.welcome:
                    outbox.client_id = message.client_id
                self._streams.on_message(stream, message, now=time.monotonic())
                self._pump()
                if (pause_s := self._streams.pause_s(stream, time.monotonic())) > 0:
                    await asyncio.sleep(pause_s)
        except (WireError, DecodeError) as error:
            self._streams.on_malformed(stream, f"message: {printable(str(error))}")
            self._pump()
        except grpc.aio.AbortError:
            pass  # we have closed the stream ourselves
        except Exception:  # a fault of ours: it costs this stream, and is not hidden
            log.exception("stream %d: failed", stream)
        finally:
            outbox.replies.put_nowait(None)

    def _leave(self, outbox: Outbox) -> None:
        """Forget a stream. Waits for nothing: gRPC may cancel its task a second time."""
        self._streams.on_gone(outbox.stream)
        del self._outboxes[outbox.stream]
        now = time.monotonic()
        kind = "left" if outbox.welcome else "refused"
        self._journal.write(kind, f"{outbox.who}: after {now - outbox.opened_s:.1f} s {outbox.farewell}", now=now)
        if not self._outboxes:
            self._empty.set()
        self._pump()

    def _cut(self, stream: int) -> None:
        """A device that does not read would keep a closed stream for ever."""
        outbox = self._outboxes.get(stream)
        if outbox is not None and not connections.cut(outbox.peer) and outbox.writer is not None:
            outbox.writer.cancel()

    def _pump(self) -> None:
        """Take every due step, perform what came out, and ask to be woken for the next."""
        while (due := self._streams.due_at) is not None and due <= (now := time.monotonic()):
            self._streams.step(now)
        while actions := self._streams.actions():
            for action in actions:
                self._perform(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(due - now, self._pump)

    def _perform(self, action: Reply | Compute | Close) -> None:
        match action:
            case Compute(batch):
                task = asyncio.create_task(self._compute(batch))
                self._computing.add(task)
                task.add_done_callback(self._computing.discard)
            case Close(stream, ending):
                self.metrics.on_close(ending.value)
                outbox = self._outboxes[stream]
                outbox.closed = action
                outbox.replies.put_nowait(action)
                asyncio.get_running_loop().call_later(GOODBYE_S, self._cut, stream)
            case Reply(stream, message):
                self.metrics.on_reply(message)
                outbox = self._outboxes[stream]
                outbox.replies.put_nowait(action)
                if isinstance(message, Welcome):
                    outbox.welcome = True
                    self._journal.write("welcome", f"{outbox.who}: welcome", now=time.monotonic())
                if outbox.replies.qsize() == UNREAD:
                    self._streams.on_unread(stream, f"{UNREAD} replies unread; read what the server says")

    async def _compute(self, batch: RunBatch[Ready]) -> None:
        frames = [item.payload.features for item in batch.items]
        began = time.monotonic()
        answers: list[Packed] | None = None
        try:
            loop = asyncio.get_running_loop()
            answers, tail_s = await loop.run_in_executor(self._worker, timed, self._engine, frames)
        except Exception:  # whatever an engine throws costs its batch, not the server
            log.exception("tail: failed on a batch of %d", len(batch.items))
            tail_s = time.monotonic() - began
        self._streams.on_computed(batch, answers, tail_s, now=time.monotonic())
        self.metrics.on_batch(len(batch.items), tail_s)
        self._pump()


def timed(engine: Engine, frames: Sequence[Frame]) -> tuple[list[Packed], float]:
    """The tail's answers and how long it took, in the thread that runs it."""
    began = time.monotonic()
    answers = engine.run(frames)
    return answers, time.monotonic() - began


def warm_up(engine: Engine, served: Served, max_batch: int) -> dict[int, float]:
    """Best of a few runs for batches of 1, 2, 4 … and `max_batch`, in seconds; it is the prior of what is learnt."""
    sizes = sorted({min(2**power, max_batch) for power in range(max_batch.bit_length() + 1)})
    best = {}
    for size in sizes:
        frames = [blank(served.codec)] * size
        best[size] = max(1e-6, min(timed(engine, frames)[1] for _ in range(WARM_UP_RUNS)))
    return best


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
    service = EdgeService(
        Served(bundle.manifest.name, bundle.sha256, bundle.codec),
        Tail(bundle, config.threads, engine=config.engine),
        server_id=socket.gethostname(),
        limits=Limits(config.max_streams, config.credits, config.max_fps, config.max_mbps * BYTES_PER_MBIT),
        max_batch=config.max_batch,
    )
    credential = None if shown is None else shown.credentials()
    server, status, address = bind(service, config.listen, credential, debug=config.debug)
    if config.metrics is not None:
        service.metrics.serve(config.metrics)
    told = (lambda: ready(address)) if ready else (lambda: None)
    await run(service, server, status, grace_s=config.grace_s, ready=told, shown=shown)


async def run(
    service: EdgeService,
    server: grpc.aio.Server,
    status: health.aio.HealthServicer,
    *,
    grace_s: float,
    ready: Callable[[], None],
    shown: Certificates | None = None,
) -> None:
    """Serve until SIGTERM, then drain; cancellation stops at once, and a second signal ends the process at once.

    SIGHUP reads the certificates that are `shown` anew.
    """
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: no draining there
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _on_hangup(lambda: _look(service, shown, again=True))
    looking = asyncio.create_task(_keep_looking(service, shown))
    try:
        if shown is not None:
            service.revoke(shown.revoked)
        await server.start()
        for name in ("", SERVICE):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        ready()
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
