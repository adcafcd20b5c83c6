"""The agent's host: performs what the session asks for. The one place on the device that reads the clock.

Frames come from a source in a thread of its own, stages run in another, everything else happens on the event loop, in
order: an event is passed to the session with the time at which it is handled, then the session's actions are performed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from isthmus.device import actions
from isthmus.device.capture.gate import sketched
from isthmus.device.capture.live import LiveReader
from isthmus.device.capture.reader import Reader
from isthmus.device.capture.sources import Picture, Source
from isthmus.device.executor import Executor
from isthmus.device.servers.notices import Notices
from isthmus.device.session import Session
from isthmus.device.tracking.pictures import Followed, Pictures
from isthmus.proto.codec import checksum
from isthmus.proto.errors import DataError, IsthmusError
from isthmus.proto.messages import DeviceMessage, Heartbeat, Layer, ServerMessage, Welcome
from isthmus.proto.vocabulary import (
    Answer,
    AnswerSource,
    FilterResult,
    Frame,
    Guess,
    LinkState,
    Reason,
    Skipped,
    StageResult,
)

log = logging.getLogger(__name__)


EARLY = 0.25
"""A picture of a live source is taken up to this share of a period before its time."""


class Uplink(Protocol):
    """What the agent asks of its transports, one for each server."""

    def send(self, server: str, message: DeviceMessage) -> None:
        """Pass a message on, if there is a connection."""

    def dial(self, server: str) -> None:
        """Try once to open a stream."""

    def hang_up(self, server: str) -> None:
        """Drop the stream."""


@dataclass(frozen=True)
class Taken:
    """A picture that was taken up."""

    frame: Frame
    picture: Picture
    unix_s: float
    """When it was captured, by the wall clock."""
    skipped: Skipped
    """What was let go since the one before."""


@dataclass(frozen=True)
class AnsweredFrame:
    """One answer and what belongs to it."""

    taken: Taken
    answer: Answer
    link: LinkState
    """What was known of the server at the time of the answer."""
    local: Guess | None = None
    """What the device's last early exit said."""
    goodput_Bps: float | None = None
    """What the uplink is believed to deliver; None without a server."""
    sent_crc: int | None = None
    """The checksum of the first layer that was sent last: a server may be given it after another. None: none was."""


class Host:
    """One stream of frames, one session, one executor. It hears what becomes of each server's stream."""

    def __init__(self, session: Session, executor: Executor, on_answer: Callable[[AnsweredFrame], None]) -> None:
        self._session, self._executor, self._on_answer = session, executor, on_answer
        self.uplink: Uplink | None = None
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Fails when answers can no longer be told."""
        self._head = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._flow = ThreadPoolExecutor(1, thread_name_prefix="flow")
        self._pictures = Pictures()
        self._timer: asyncio.TimerHandle | None = None
        self._taken: dict[int, Taken] = {}
        self._sent_crcs: dict[int, int] = {}
        self._answered_all = asyncio.Event()
        self._answered_all.set()
        self._stopped = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._reader: Reader | LiveReader | None = None
        self._early = self._aged = 0
        """Pictures that were read and not taken up: they came too soon, or were too old already."""
        self._given = 0
        """Pictures that no reader gave."""
        self._told_skipped = Skipped()
        self._notices = Notices(session.servers)

    async def run(self, source: Source, *, deadline_s: float, period_s: float, frames: int | None) -> None:
        """Answer the frames of `source`, one every `period_s`, until it ends, or `frames` of them, or `stop`.

        A live source gives its pictures when it has them: while the head is occupied only the newest is kept, and those
        that come sooner than `period_s` after the one before are let go. However it ends, what was captured before is
        answered and the source closed. Raises SourceError when the source goes away; one that hangs is waited for, and
        `stop` ends that too.
        """
        self._reader = LiveReader(source) if source.live else Reader(source)
        try:
            if not self._stopped.is_set():
                await self._take_all(source.live, self._reader, deadline_s, period_s, frames)
        finally:
            await self._answered_all.wait()
            await self._reader.close()
            self._head.shutdown()
            self._flow.shutdown()

    @property
    def captured(self) -> int:
        """All pictures that came, taken up or skipped."""
        return self._given + (0 if self._reader is None else self._reader.captured)

    @property
    def skipped(self) -> Skipped:
        """All pictures that were let go."""
        stale = 0 if self._reader is None else self._reader.stale
        return Skipped(stale + self._aged, self._early)

    async def serve(self) -> None:
        """Answer what is given to `take`, until `stop`; what was taken before is answered all the same."""
        try:
            await self._stopped.wait()
        finally:
            await self._answered_all.wait()
            self._head.shutdown()

    def stop(self) -> None:
        """Take no further frames."""
        self._stopped.set()
        if self._reader is not None:
            self._reader.stop()

    async def _take_all(
        self, live: bool, reader: Reader | LiveReader, deadline_s: float, period_s: float, frames: int | None
    ) -> None:
        due_s, count = self._loop.time(), 0
        while (frames is None or count < frames) and not self._stopped.is_set():
            if live:
                await self._free.wait()
            picture = await reader.read()
            if picture is None:
                break
            if not live:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), max(0.0, due_s - self._loop.time()))
            now = self._loop.time()
            if now < due_s - EARLY * period_s:
                self._early += 1
                continue
            if now > (picture.captured_s or now) + deadline_s:
                self._aged += 1
                continue
            due_s = period_s + (due_s if now < due_s + period_s else now)  # what was missed is not made up for
            self.take(picture, count, deadline_s=deadline_s)
            count += 1

    def connect(self) -> None:
        """Begin to turn to servers, by way of `uplink`."""
        self._session.connect(now=self._loop.time())
        self._perform()

    def found(self, servers: Iterable[str]) -> None:
        """These servers are there."""
        self._session.servers.on_found(servers, now=self._loop.time())
        self._perform()

    def vanished(self, server: str) -> None:
        """A server is no longer there to be found."""
        self._session.servers.on_vanished(server, now=self._loop.time())
        self._perform()

    def connected(self, server: str, welcome: Welcome) -> None:
        """There is a stream to a server."""
        self._session.on_connected(welcome, now=self._loop.time(), server=server)
        self._notices.connected(server, welcome)
        self._perform()

    def received(self, server: str, message: ServerMessage) -> None:
        """A server said something."""
        self._session.on_message(message, now=self._loop.time(), server=server)
        self._perform()

    def disconnected(self, server: str, why: str) -> None:
        """There is no stream to a server."""
        self._session.on_disconnected(now=self._loop.time(), server=server)
        self._notices.ended(server, why)
        self._perform()

    def take(self, picture: Picture, frame_id: int, *, deadline_s: float) -> None:
        """Answer a picture that is there now within `deadline_s`; its one answer carries `frame_id`, which nobody else has."""
        now = self._loop.time()
        self._given += self._reader is None
        captured_s = now if picture.captured_s is None else picture.captured_s
        frame = Frame(frame_id, captured_s, captured_s + deadline_s, picture.label)
        taken = Taken(frame, picture, time.time() - (now - captured_s), self._skipped_since())
        try:
            if picture.pixels is None:
                raise DataError(picture.why)
            self._executor.hold(frame_id, picture.pixels)
        except DataError as error:
            log.warning("%s", error)
            self._report(AnsweredFrame(taken, _unusable(frame, now), self._session.state))
            return
        self._taken[frame_id] = taken
        self._answered_all.clear()
        sketch = sketched(picture.pixels) if self._session.gated else None
        if self._session.tracking:
            self._pictures.keep(frame_id, picture.pixels)
        self._session.on_frame(frame, now=self._loop.time(), sketch=sketch)
        self._perform()

    def _skipped_since(self) -> Skipped:
        """What was let go since this was asked last."""
        now, before = self.skipped, self._told_skipped
        self._told_skipped = now
        return Skipped(now.stale - before.stale, now.rate - before.rate)

    def _perform(self) -> None:
        """Carry out what the session asks, until it asks nothing more; then wait for its next wake-up."""
        while asked := self._session.actions():
            for action in asked:
                self._perform_one(action)
        if self._session.free:
            self._free.set()
        else:
            self._free.clear()
        if self._timer is not None:
            self._timer.cancel()
        due = self._session.due_at
        self._timer = None if due is None else self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._session.step(self._loop.time())
        self._perform()

    def _perform_one(self, action: actions.Action) -> None:
        match action:
            case actions.RunFilter(frame_id):
                result = self._loop.run_in_executor(self._head, self._executor.filter_job(frame_id))
                result.add_done_callback(partial(self._on_filter, frame_id))
            case actions.RunStage(frame_id, stage, width, reference):
                if reference is not None:
                    self._executor.refer(frame_id, reference)
                job = self._executor.job(frame_id, stage, width)
                done = self._loop.run_in_executor(self._head, job)
                done.add_done_callback(partial(self._stage_done, frame_id))
            case actions.Send():
                self._send(action)
            case actions.Emit(answer, local):
                taken, link = self._taken[answer.frame_id], self._session.state
                sent_crc = self._sent_crcs.get(answer.frame_id)
                self._report(AnsweredFrame(taken, answer, link, local, self._goodput_Bps, sent_crc))
            case actions.Forget(frame_id):
                self._executor.forget(frame_id)
                del self._taken[frame_id]
                self._sent_crcs.pop(frame_id, None)
                if not self._taken:
                    self._answered_all.set()
            case actions.Beat(sequence, server):
                self._pass_on(server, Heartbeat(sequence))
            case actions.Follow(frame_ids, places):
                followed = self._loop.run_in_executor(self._flow, self._pictures.job(frame_ids, places))
                followed.add_done_callback(partial(self._followed, len(places)))
            case actions.Dial(server):
                if self.uplink is not None:
                    self.uplink.dial(server)
            case actions.HangUp(server):
                if self.uplink is not None:
                    self.uplink.hang_up(server)

    @property
    def _goodput_Bps(self) -> float | None:
        return self._session.link.goodput_Bps if self._session.state is LinkState.UP else None

    def _report(self, answered: AnsweredFrame) -> None:
        try:
            self._on_answer(answered)
        except (IsthmusError, OSError) as error:  # nobody hears us any more: a full disk, a reader that went away
            self._on_answer = _to_nobody
            self.broken.set_exception(error)

    def _on_filter(self, frame_id: int, done: asyncio.Future[FilterResult]) -> None:
        if (error := done.exception()) is not None:
            log.error("frame %d: the filter failed on it; the head sees it", frame_id, exc_info=error)
        result = done.result() if error is None else FilterResult(frame_id, dismissed=False, guess=None, compute_s=0.0)
        self._session.on_filter(result, now=self._loop.time())
        self._perform()

    def _followed(self, count: int, done: asyncio.Future[Followed]) -> None:
        if (error := done.exception()) is not None:
            log.error("boxes could not be followed, and are lost", exc_info=error)
        places = done.result() if error is None else (None,) * count
        self._session.on_followed(places, now=self._loop.time())
        self._perform()

    def _stage_done(self, frame_id: int, done: asyncio.Future[StageResult]) -> None:
        now = self._loop.time()
        if (error := done.exception()) is not None:
            log.error("frame %d: the head failed on it", frame_id, exc_info=error)
            self._session.on_stage_failed(frame_id, now=now)
        else:
            self._session.on_stage(done.result(), now=now)
        self._perform()

    def _send(self, action: actions.Send) -> None:
        began_s = self._loop.time()
        if (job := self._executor.coding_job(action.frame_id, action.step)) is None:
            self._hand_over(action, began_s)
        else:
            coded = self._loop.run_in_executor(self._head, job)
            coded.add_done_callback(lambda _: self._hand_over(action, began_s))

    def _hand_over(self, action: actions.Send, began_s: float) -> None:
        """Send what is coded, unless the frame was answered while it was."""
        if action.frame_id not in self._taken:
            return
        payload, seal = self._payload(action)
        encoded_s, crc = self._loop.time(), checksum(payload, seal)
        if action.layer == 0:
            self._sent_crcs[action.frame_id] = crc
        self._pass_on(
            action.server,
            Layer(
                frame_id=action.frame_id,
                layer=action.layer,
                last=action.last,
                budget_s=action.budget_s - (encoded_s - began_s),
                payload=payload,
                crc=crc,
                reference=None if action.reference is None else action.reference.frame_id,
            ),
        )
        encode_s = encoded_s - began_s
        self._session.on_sent(
            action.frame_id, action.layer, len(payload), now=encoded_s, encode_s=encode_s, server=action.server
        )

    def _payload(self, action: actions.Send) -> tuple[bytes, int]:
        """What to write, and the seal of what it is coded against; 0 where it stands alone."""
        if action.reference is None:
            return self._executor.encode(action.frame_id, action.step, action.layer), 0
        return self._executor.delta(action.frame_id, action.step, action.layers, action.reference)

    def _pass_on(self, server: str, message: DeviceMessage) -> None:
        if self.uplink is not None:
            self.uplink.send(server, message)


def _to_nobody(_: AnsweredFrame) -> None:
    """Where answers go when nobody hears us."""


def _unusable(frame: Frame, now: float) -> Answer:
    """The honest answer to a picture that nobody can read: none."""
    return Answer(
        frame_id=frame.id,
        label=None,
        confidence=0.0,
        source=AnswerSource.NONE,
        reason=Reason.INVALID,
        point=None,
        answered_s=now,
        latency_s=now - frame.captured_s,
        on_time=now <= frame.deadline_s,
        bytes_up=0,
    )
