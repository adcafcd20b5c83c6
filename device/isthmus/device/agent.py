"""The agent: performs what the session asks for. The one place on the device that reads the clock.

Frames come from a source in a thread of its own, stages run in another, everything else happens on the event loop, in
order: an event is passed to the session with the time at which it is handled, then the session's actions are performed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from isthmus.device import actions
from isthmus.device.executor import Executor
from isthmus.device.session import Session
from isthmus.device.sources import Picture, Source
from isthmus.proto.codec import checksum
from isthmus.proto.errors import DataError
from isthmus.proto.messages import DeviceMessage, Heartbeat, Layer, ServerMessage, Welcome
from isthmus.proto.plan import Answer, Frame, Guess, Reason, StageResult
from isthmus.proto.plan import Source as From

log = logging.getLogger(__name__)

DEFAULT_FPS = 10.0


class Uplink(Protocol):
    """What the agent asks of its transport."""

    def send(self, message: DeviceMessage) -> None:
        """Pass a message on, if there is a connection."""

    def reconnect(self) -> None:
        """Drop the stream and open another."""


Told = Callable[[Frame, str, Answer, Guess | None], None]
"""Who is given every answer, with its frame, its picture's name, and what the device's last early exit said."""


class Agent:
    """One stream of frames, one session, one executor, at most one server. It is its transport's listener."""

    def __init__(self, session: Session, executor: Executor, told: Told) -> None:
        self._session, self._executor, self._told = session, executor, told
        self.uplink: Uplink | None = None
        self._loop = asyncio.get_running_loop()
        self._head = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._timer: asyncio.TimerHandle | None = None
        self._frames: dict[int, tuple[Frame, str]] = {}
        self._local: dict[int, Guess] = {}
        self._answered_all = asyncio.Event()
        self._answered_all.set()

    async def run(self, source: Source, *, deadline_s: float, fps: float | None, frames: int | None) -> None:
        """Answer the frames of `source` until it ends, or `frames` of them; returns when the last one is answered."""
        period_s = 1 / (fps or source.fps or DEFAULT_FPS)
        began_s, count = self._loop.time(), 0
        with ThreadPoolExecutor(1, thread_name_prefix="source") as reader:
            while frames is None or count < frames:
                picture = await self._loop.run_in_executor(reader, source.read)
                if picture is None:
                    break
                if not source.live:
                    await asyncio.sleep(began_s + count * period_s - self._loop.time())
                self._take(picture, count, deadline_s)
                count += 1
        await self._answered_all.wait()
        self._head.shutdown()

    def connected(self, welcome: Welcome) -> None:
        """The transport has a stream."""
        log.warning("server %s: connected", welcome.server_id)
        self._session.on_connected(welcome, now=self._loop.time())
        self._perform()

    def received(self, message: ServerMessage) -> None:
        """The transport has a message."""
        self._session.on_message(message, now=self._loop.time())
        self._perform()

    def disconnected(self, why: str) -> None:
        """The transport has no stream."""
        log.warning("%s; answering from the device", why)
        self._session.on_disconnected(now=self._loop.time())
        self._perform()

    def _take(self, picture: Picture, frame_id: int, deadline_s: float) -> None:
        now = self._loop.time()
        frame = Frame(frame_id, now, now + deadline_s, picture.label)
        try:
            if picture.pixels is None:
                raise DataError(picture.why)
            self._executor.hold(frame_id, picture.pixels)
        except DataError as error:
            log.warning("%s", error)
            self._told(frame, picture.name, _unusable(frame, now), None)
            return
        self._frames[frame_id] = frame, picture.name
        self._answered_all.clear()
        self._session.on_frame(frame, now=now)
        self._perform()

    def _perform(self) -> None:
        """Carry out what the session asks, until it asks nothing more; then wait for its next wake-up."""
        while asked := self._session.actions():
            for action in asked:
                self._perform_one(action)
        if self._timer is not None:
            self._timer.cancel()
        due = self._session.due_at
        self._timer = None if due is None else self._loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._session.step(self._loop.time())
        self._perform()

    def _perform_one(self, action: actions.Action) -> None:
        match action:
            case actions.RunStage(frame_id, stage, width):
                job = self._executor.job(frame_id, stage, width)
                self._loop.run_in_executor(self._head, job).add_done_callback(self._stage_done)
            case actions.Send():
                self._send(action)
            case actions.Emit(answer):
                self._told(*self._frames[answer.frame_id], answer, self._local.pop(answer.frame_id, None))
            case actions.Forget(frame_id):
                self._executor.forget(frame_id)
                del self._frames[frame_id]
                if not self._frames:
                    self._answered_all.set()
            case actions.Beat(sequence):
                self._pass_on(Heartbeat(sequence))
            case actions.Reconnect():
                if self.uplink is not None:
                    self.uplink.reconnect()

    def _stage_done(self, done: asyncio.Future[StageResult]) -> None:
        result = done.result()
        if result.frame_id in self._frames and result.guess is not None:
            self._local[result.frame_id] = result.guess
        self._session.on_stage(result, now=self._loop.time())
        self._perform()

    def _send(self, action: actions.Send) -> None:
        began_s = self._loop.time()
        payload = self._executor.encode(action.frame_id, action.step, action.layer)
        encoded_s = self._loop.time()
        self._pass_on(
            Layer(
                frame_id=action.frame_id,
                layer=action.layer,
                last=action.last,
                budget_s=action.budget_s - (encoded_s - began_s),
                payload=payload,
                crc=checksum(payload),
            )
        )
        self._session.on_sent(action.frame_id, action.layer, len(payload), now=encoded_s, encode_s=encoded_s - began_s)

    def _pass_on(self, message: DeviceMessage) -> None:
        if self.uplink is not None:
            self.uplink.send(message)


def _unusable(frame: Frame, now: float) -> Answer:
    """The honest answer to a picture that nobody can read: none."""
    return Answer(
        frame_id=frame.id,
        label=None,
        confidence=0.0,
        source=From.NONE,
        reason=Reason.INVALID,
        point=None,
        answered_s=now,
        latency_s=now - frame.captured_s,
        on_time=now <= frame.deadline_s,
        bytes_up=0,
    )
