"""The gRPC face of `Streams`: performs what it decides, and is the one place on the server that reads the clock.

One event loop carries all streams; the tail runs in one worker thread beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from isthmus.edge_server import connections
from isthmus.edge_server.admission import Close, Ending, Limits
from isthmus.edge_server.batcher import Batcher, RunBatch
from isthmus.edge_server.engines import Engine
from isthmus.edge_server.journal import Journal
from isthmus.edge_server.loop_watch import LoopWatch
from isthmus.edge_server.metrics import Metrics
from isthmus.edge_server.outbox import Outbox
from isthmus.edge_server.streams import Compute, Ready, Reply, Served, Streams
from isthmus.edge_server.tail_health import TailHealth
from isthmus.edge_server.tail_times import TailTimes
from isthmus.edge_server.tail_worker import TailHungError, TailWorker, compute
from isthmus.proto import edge_pb2, edge_pb2_grpc, wire
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import WireError
from isthmus.proto.frame_codec import blank
from isthmus.proto.messages import Hello, Layer, Result, ServerHeartbeat, Welcome
from isthmus.proto.printable import printable
from isthmus.proto.tasks.task import Packed

log = logging.getLogger(__name__)

SERVICE = "isthmus.v1.Edge"
WARM_UP_RUNS, WARM_UP_S = 5, 1.0
"""The best of so many runs is undisturbed on most machines; a slow tail is run for so long at most at each size."""
HUNG_S, HUNG_TIMES = 5.0, 20.0
"""A batch that takes longer than both this and so many times the usual is not slow, it hangs; no budget is so long."""
MOST_WORDS = 300
"""Characters of an engine's error that are logged."""
UNREAD = 1024
"""Replies that a device may leave unread before its stream is closed."""
UNREAD_S = 10.0
"""How long one reply may wait to be read before its stream is closed."""
CALLS_A_PLACE = 16
"""Calls of any kind that one connection may have open, for each place in the lobby."""
GOODBYE_S = 1.0
"""How long a closed stream's last words may take before its connection is cut."""
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
        another: Callable[[], Engine] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`another` makes an engine for the thread that takes the place of one that hangs; `metrics` are the server's."""
        limits = limits or Limits()
        self.max_message_bytes = wire.max_message_bytes(served.codec)
        self.max_calls = CALLS_A_PLACE * limits.lobby
        self.metrics = metrics or Metrics()
        self._counted = self.metrics.bundle(served.name, served.sha256)
        times = TailTimes(warm_up(engine, served, max_batch), max_batch=max_batch)
        batcher: Batcher[Ready] = Batcher(times, max_batch=max_batch, stream_credits=limits.stream_credits)
        self._streams = Streams(served, batcher, server_id=server_id, limits=limits)
        self._unwatch = self._counted.watch(streams=lambda: self._streams.count, pending=lambda: self._streams.waiting)
        self._journal = Journal()
        self._outboxes: dict[int, Outbox] = {}
        self._empty = asyncio.Event()
        self._worker = TailWorker(engine, another=another)
        self._health, self._healthy = TailHealth(), True
        self.on_health: Callable[[bool], Awaitable[None]] | None = None
        """Told whenever every batch fails, and when that is over."""
        self._computing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._watch = LoopWatch()
        self._tail_ended_s = 0.0

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
        """Let go of the worker thread; nothing is counted any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._worker.close()
        self._unwatch()
        self.metrics.forget(self._streams.served.name, self._streams.served.sha256)

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
                came_s = self._watch.came_s()
                message = wire.from_device_pb(request)
                if isinstance(message, Layer):
                    self._counted.on_layer(message, outbox.label)
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
                outbox = self._outboxes[stream]
                self._counted.on_reply(message, outbox.label)
                outbox.replies.put_nowait(action)
                if isinstance(message, Welcome):
                    outbox.welcome = True
                    self._counted.on_welcome(outbox.label)
                    self._journal.write("welcome", f"{outbox.who}: welcome", now=time.monotonic())
                if outbox.replies.qsize() == UNREAD:
                    self._streams.on_unread(stream, f"{UNREAD} replies unread; read what the server says")

    async def _compute(self, batch: RunBatch[Ready]) -> None:
        began, answers = time.monotonic(), None
        try:
            patience_s = max(HUNG_S, HUNG_TIMES * self._streams.usual_s(len(batch.items)))
            frames = [item.payload.features for item in batch.items]
            computed = await self._worker.run(frames, patience_s=patience_s)
            answers, tail_s, self._tail_ended_s = computed.answers, computed.tail_s, computed.ended_s
            self._streams.shedder.on_batch(self._worker.stretch(computed))
        except TailHungError as error:
            self._failed("hung", str(error))
        except Exception as error:  # whatever an engine throws costs its batch, not the server
            self._failed("failed", f"failed on a batch of {len(batch.items)}: {type(error).__name__}: {error}")
        else:
            self._look_through(answers)
            self._counted.on_batch(len(batch.items), tail_s)
        now = time.monotonic()
        self._streams.on_computed(batch, answers, now - began if answers is None else tail_s, now=now)
        self._pump()
        if self.on_health is not None and self._health.serving != self._healthy:
            self._healthy = self._health.serving
            await self.on_health(self._healthy)

    def _look_through(self, answers: Sequence[Packed | None]) -> None:
        nan = sum(answer is None for answer in answers)
        if nan < len(answers):
            self._health.on_success()
        if nan:
            self._failed("nan", f"{nan} of {len(answers)} answers are not a number", nan, whole=nan == len(answers))

    def _failed(self, reason: str, why: str, count: int = 1, *, whole: bool = True) -> None:
        self._counted.on_tail_failure(reason, count)
        if (line := self._health.on_failure(printed(why), now=time.monotonic(), whole=whole)) is not None:
            log.error("%s", line)


def printed(why: str) -> str:
    """An engine's words on one line, and no more of them than anybody reads."""
    words = " ".join(why.split())
    return words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}…"


def warm_up(engine: Engine, served: Served, max_batch: int) -> dict[int, float]:
    """Best of a few runs for batches of 1, 2, 4 … and `max_batch`, in seconds; it is the prior of what is learnt.

    It ends with the first batch that takes longer than WARM_UP_S: what larger ones take follows from it.
    """
    sizes = sorted({min(2**power, max_batch) for power in range(max_batch.bit_length() + 1)})
    best: dict[int, float] = {}
    for size in sizes:
        frames = [blank(served.codec)] * size
        runs: list[float] = []
        while len(runs) < WARM_UP_RUNS and sum(runs) < WARM_UP_S:
            runs.append(max(1e-6, compute(engine, frames).tail_s))
        best[size] = min(runs)
        if best[size] > WARM_UP_S:
            break
    return best
