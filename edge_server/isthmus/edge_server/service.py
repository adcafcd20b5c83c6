"""The gRPC face of `Streams`: performs what it decides, and is the one place on the server that reads the clock.

One event loop carries all streams; each bundle's tail runs in a worker thread beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from isthmus.edge_server import connections
from isthmus.edge_server.admission import Close, Ending, Limits, revoked
from isthmus.edge_server.batcher import RunBatch
from isthmus.edge_server.engines import Engine, Frame
from isthmus.edge_server.journal import Journal
from isthmus.edge_server.loop_watch import LoopWatch
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.outbox import STATUS, Outbox
from isthmus.edge_server.repository import description
from isthmus.edge_server.repository.lane import described
from isthmus.edge_server.repository.tail import TailRunner, WarmTail
from isthmus.edge_server.scale_out.ages import Ages
from isthmus.edge_server.streams import Action, Compute, Drop, Fetch, Ready, Reply, Served, Streams
from isthmus.proto import edge_pb2, edge_pb2_grpc, wire
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import WireError
from isthmus.proto.messages import Hello, Layer, Result, ServerMessage, Welcome
from isthmus.proto.operations import probe
from isthmus.proto.printable import printable

log = logging.getLogger(__name__)

SERVICE = "isthmus.v1.Edge"
Messages = AsyncIterator[edge_pb2.PushMessage]
Context = grpc.aio.ServicerContext[edge_pb2.PushMessage, edge_pb2.Pushed]
TAKES_NONE = (
    "takes none; start it with --models DIR and --push-from NAME, or, in plaintext for its own machine alone, --push"
)

UNREAD = 1024
"""Replies that a device may leave unread before its stream is closed."""
UNREAD_S = 10.0
"""How long one reply may wait to be read before its stream is closed."""
MOST_MESSAGE_BYTES = 4 << 20
"""The largest message of a server to which bundles may still come: what gRPC takes of itself."""
CALLS_A_PLACE = 16
"""Calls of any kind that one connection may have open, for each place in the lobby."""
GOODBYE_S = 1.0
"""How long a closed stream's last words may take before its connection is cut."""


class EdgeService(edge_pb2_grpc.EdgeServicer):
    """The service for one bundle, or for as many as are added. Must live on one running event loop."""

    def __init__(
        self,
        served: Served | None = None,
        engine: Engine | None = None,
        *,
        server_id: str = "edge",
        limits: Limits | None = None,
        max_batch: int = 8,
        another: Callable[[], Engine] | None = None,
        batches: int | None = None,
        ages: Ages | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`served` is the first bundle, `engine` its tail, warmed up here; `another` makes one for the thread that takes the
        place of one that hangs. None: there is no bundle yet. An engine that runs elsewhere is given so many `batches` at
        once; `resize` says when that changes. `metrics` are the server's.
        """
        self._limits = limits = limits or Limits()
        self.max_message_bytes = MOST_MESSAGE_BYTES if served is None else wire.max_message_bytes(served.codec)
        self.max_calls = CALLS_A_PLACE * limits.lobby
        self.metrics = metrics or Metrics()
        self._streams = Streams(server_id=server_id, limits=limits, ages=ages)
        self.metrics.watch(streams=lambda: self._streams.count)
        self._journal = Journal()
        self._outboxes: dict[int, Outbox] = {}
        self._asked: dict[int, asyncio.Future[ServerMessage]] = {}
        """Who waits for a reply without a stream."""
        self._revoked: frozenset[str] = frozenset()
        self._empty = asyncio.Event()
        self._tails: dict[bytes, TailRunner] = {}
        self._health: dict[str, bool] = {}
        self.on_health: Callable[[Mapping[str, bool]], Awaitable[None]] | None = None
        """Told whenever `health` changes."""
        self.on_fetch: Callable[[bytes], None] | None = None
        """Asked to load the tail of an offered bundle: a device waits for `add` or `not_loaded`."""
        self.on_push: Callable[[Messages, Context], Awaitable[edge_pb2.Pushed]] | None = None
        """Takes a bundle that is pushed; None: nobody may."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._watch = LoopWatch()
        self._tail_ended_s = 0.0
        if served is not None and engine is not None:
            self.offer(served)
            self.add(WarmTail.of(served, engine, max_batch=max_batch, another=another, batches=batches))
            if batches is not None:
                self.resize(batches)

    @property
    def offered(self) -> tuple[Served, ...]:
        """The bundles that a device may have, loaded or not."""
        return self._streams.offered

    @property
    def loaded(self) -> frozenset[bytes]:
        """The hashes of the bundles whose tails are loaded."""
        return frozenset(self._tails)

    @property
    def health(self) -> dict[str, bool]:
        """Which bundles work, by name: one of which some version does. The empty name is the server, as long as any does."""
        health = {"": False}
        for served in self.offered:
            works = served.sha256 not in self._tails or self._tails[served.sha256].serving
            health[served.name] = works or health.get(served.name, False)
            health[""] = works or health[""]
        return health

    def offer(self, served: Served) -> None:
        """Devices may have this bundle from now on; its tail is added before, or when one asks for it."""
        self._streams.offer(served)

    def withdraw(self, sha256: bytes) -> None:
        """No device is told of this bundle any more; those that have it are served until they are gone."""
        self._streams.withdraw(sha256)

    def add(self, tail: WarmTail) -> None:
        """A bundle's tail is loaded; whoever has waited for it is welcome."""
        served, batcher = tail.served, tail.batcher(self._limits.stream_credits)
        counted = self.metrics.bundle(served.name, served.sha256)
        self._tails[served.sha256] = TailRunner(tail, counted)
        self._streams.add(served, batcher, codec=tail.codec, now=time.monotonic())
        if (lane := self._streams.lanes.get(served.sha256)) is not None:
            counted.watch(served.sha256, devices=lambda: lane.streams, pending=lambda: batcher.waiting)
        self._pump()

    def not_loaded(self, sha256: bytes, why: str) -> None:
        """A bundle's tail could not be loaded; whoever has waited for it is sent away."""
        self._streams.on_not_loaded(sha256, why)
        self._pump()

    @property
    def full(self) -> bool:
        """Whether a tail has to leave before another is loaded."""
        return self._streams.full

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
                if isinstance(action.message, Result):
                    self._streams.sending.note((now := time.monotonic()) - self._tail_ended_s, now=now)
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
        now, offered = time.monotonic(), self.offered
        described = edge_pb2.Description(
            server_id=self._streams.server_id,
            codec_version=CODEC_VERSION,
            load=description.load_pb(self._streams.load(now)),
            bundles=[self._described(served, now) for served in offered],
        )
        if len(offered) == 1:
            described.bundle_name, described.bundle_sha256 = offered[0].name, offered[0].sha256
        return described

    async def Push(self, request_iterator: Messages, context: Context) -> edge_pb2.Pushed:
        """A bundle for the repository, where there is one."""
        if self.on_push is not None:
            return await self.on_push(request_iterator, context)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"push: this server {TAKES_NONE}")
        raise AssertionError("abort raises")

    def _described(self, served: Served, now: float) -> edge_pb2.ServedBundle:
        if (lane := self._streams.lanes.get(served.sha256)) is None:
            return description.unloaded(served)
        serving, load = self._tails[served.sha256].serving, self._streams.lanes.load_of(lane, now)
        return description.loaded(served, serving=serving, streams=lane.streams, load=load)

    async def ask(self, sha256: bytes, frames: Sequence[Frame], *, due_s: float) -> list[ServerMessage] | None:
        """A reply to each of these frames, which belong to no stream: a Result, or why there is none.

        None where they are not taken: the server drains, or the bundle's tail is not loaded yet.
        """
        now, loop = time.monotonic(), asyncio.get_running_loop()
        guests = [self._streams.ask(sha256, frame, due_s=due_s, now=now) for frame in frames]
        asked = {guest: loop.create_future() for guest in guests if guest is not None}
        self._asked |= asked
        self._empty.clear()
        self._pump()
        try:
            replies: list[ServerMessage] = await asyncio.gather(*asked.values())
        finally:
            for guest in asked:
                self._streams.on_gone(guest)
                del self._asked[guest]
            self._note_empty()
            self._pump()
        return None if len(replies) < len(frames) else replies

    @property
    def server_id(self) -> str:
        """What this server calls itself."""
        return self._streams.server_id

    async def echo(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """As many bytes as are asked for: what a tool measures the link by. A revoked device gets none."""
        if (name := connections.certificate_of(context)) in self._revoked:
            await context.abort(STATUS[Ending.REVOKED], revoked(name))
        return probe.reply(request)

    async def drain(self, grace_s: float) -> None:
        """Say goodbye to every device; returns when all streams are closed, or a moment after the grace."""
        self._streams.drain(grace_s, now=time.monotonic())
        self._pump()
        if self._outboxes or self._asked:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace_s + GOODBYE_S)

    def revoke(self, names: Iterable[str]) -> None:
        """Turn away whoever has a certificate of one of these names, and no others."""
        self._revoked = frozenset(names)
        self._streams.revoke(self._revoked)
        self._pump()

    def resize(self, batches: int) -> None:
        """So many batches may be under way now."""
        self._streams.resize(batches, now=time.monotonic())
        self._pump()

    def close(self) -> None:
        """Let go of the worker threads."""
        if self._timer is not None:
            self._timer.cancel()
        for tail in self._tails.values():
            tail.close()

    def look(self) -> None:
        """Close the streams whose devices have stopped to read, drop tails that nobody needs; to be called now and then."""
        late_s = (now := time.monotonic()) - UNREAD_S
        self._streams.tidy(now)
        for outbox in self._outboxes.values():
            if outbox.writing_since_s is not None and outbox.writing_since_s < late_s:
                self._streams.on_unread(outbox.stream, f"a reply has not been read for {UNREAD_S:g} s")
        self._pump()

    async def _read(self, outbox: Outbox, requests: AsyncIterator[edge_pb2.DeviceMessage]) -> None:
        stream = outbox.stream
        try:
            async for request in requests:
                came_s = self._watch.came_s()
                message = wire.from_device_pb(request)
                if isinstance(message, Layer):
                    outbox.on_layer(message)
                elif isinstance(message, Hello) and not outbox.welcome:
                    outbox.client_id = message.client_id
                self._streams.on_message(stream, message, now=time.monotonic(), came_s=came_s)
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
        self._note_empty()
        self._pump()

    def _note_empty(self) -> None:
        if not self._outboxes and not self._asked:
            self._empty.set()

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

    def _perform(self, action: Action) -> None:
        match action:
            case Compute(batch, sha256):
                self._begin(self._compute(batch, self._tails[sha256]))
            case Close(stream, ending):
                self.metrics.on_close(ending.value)
                outbox = self._outboxes[stream]
                outbox.closed = action
                outbox.replies.put_nowait(action)
                asyncio.get_running_loop().call_later(GOODBYE_S, self._cut, stream)
            case Reply():
                self._reply(action)
            case Fetch(sha256):
                if self.on_fetch is not None:
                    self.on_fetch(sha256)
            case Drop(sha256):
                tail = self._tails.pop(sha256)
                tail.close()
                self.metrics.forget(tail.served.name, sha256)
                log.info("%s %s…: its tail is let go", tail.served.name, sha256.hex()[:12])

    def _reply(self, reply: Reply) -> None:
        if (asked := self._asked.get(reply.stream)) is not None:
            if not asked.done():
                asked.set_result(reply.message)
            return
        outbox = self._outboxes[reply.stream]
        outbox.on_reply(reply.message)
        outbox.replies.put_nowait(reply)
        if isinstance(reply.message, Welcome) and (served := self._streams.served_to(reply.stream)) is not None:
            outbox.on_welcome(self.metrics, served)
            which = f", with {described(served)}" if len(self._tails) > 1 else ""
            self._journal.write("welcome", f"{outbox.who}: welcome{which}", now=time.monotonic())
        if outbox.replies.qsize() == UNREAD:
            self._streams.on_unread(reply.stream, f"{UNREAD} replies unread; read what the server says")

    async def _compute(self, batch: RunBatch[Ready], tail: TailRunner) -> None:
        began = time.monotonic()
        computed = await tail.run(batch)
        now = time.monotonic()
        if computed is None:
            self._streams.on_computed(batch, None, now - began, now=now)
        else:
            self._tail_ended_s = computed.ended_s
            self._streams.shedder.on_batch(tail.stretch(computed))
            self._streams.on_computed(batch, computed.answers, computed.tail_s, now=now)
        self._pump()
        await self.tell_health()

    async def tell_health(self) -> None:
        """Tell `on_health` where something has changed."""
        if self.on_health is not None and (health := self.health) != self._health:
            self._health = health
            await self.on_health(health)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
