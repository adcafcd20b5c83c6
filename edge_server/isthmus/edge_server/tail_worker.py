"""The thread that runs the tail. One that hangs is left behind, and another takes its place.

The threads are daemons: no tail, however it hangs, keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from isthmus.edge_server.engines import Engine, Frame
from isthmus.proto.errors import IsthmusError
from isthmus.proto.tasks.task import Packed

MOST_LEFT_BEHIND = 8
"""Hung threads, each with a tail of its own; a tail that hangs more often is a matter for whoever restarts the server."""


class TailHungError(IsthmusError):
    """A batch took so long that its thread is given up."""


class Computed(NamedTuple):
    """The answers to a batch, None for each that is not a number; the tail's time on the wall and on its processor."""

    answers: list[Packed | None]
    tail_s: float
    cpu_s: float
    """The calling thread's alone: all of `tail_s` for one thread on an idle machine, little of it for a GPU."""
    ended_s: float


class TailWorker:
    """One tail and its thread, which starts with the first batch."""

    def __init__(self, engine: Engine, *, another: Callable[[], Engine] | None = None) -> None:
        """`another` makes a tail for the next thread, since a hung one may hold what it was using."""
        self._engine, self._another = engine, another
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self.left_behind = 0
        self._most_cpu_share = 0.0

    def stretch(self, computed: Computed) -> float:
        """How many times longer a batch took than its processor time would take on an idle machine, by the best so far."""
        share = max(computed.cpu_s, 1e-9) / max(computed.tail_s, 1e-9)
        self._most_cpu_share = max(self._most_cpu_share, min(share, 1.0))
        return max(1.0, self._most_cpu_share / share)

    async def run(self, frames: Sequence[Frame], *, patience_s: float) -> Computed:
        """Compute a batch of what crossed. Raises TailHungError after `patience_s`, and whatever the engine raises."""
        if self.left_behind >= MOST_LEFT_BEHIND:
            raise TailHungError(f"hung {self.left_behind} times; restart the server")
        if self._jobs is None:
            self._jobs = _started(self._engine, self._another if self.left_behind else None)
        done: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(frames, done, asyncio.get_running_loop()))
        try:
            return await asyncio.wait_for(done, patience_s)
        except asyncio.TimeoutError:
            self.left_behind, self._jobs = self.left_behind + 1, None
            why = f"no answer to a batch of {len(frames)} in {patience_s:.3g} s; its thread is replaced"
            raise TailHungError(why) from None

    def close(self) -> None:
        """Let the thread end, when it has nothing left to do."""
        if self._jobs is not None:
            self._jobs.put(None)


class TailWorkers:
    """As many threads as batches run at once, all with one tail that may be called by several: one that runs elsewhere."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._idle: list[TailWorker] = []

    def stretch(self, computed: Computed) -> float:
        """Nothing is known of the processor that runs it, and this one is not it."""
        return 1.0

    async def run(self, frames: Sequence[Frame], *, patience_s: float) -> Computed:
        """Compute a batch beside those that run; see `TailWorker`."""
        worker = self._idle.pop() if self._idle else TailWorker(self._engine, another=lambda: self._engine)
        try:
            return await worker.run(frames, patience_s=patience_s)
        finally:
            self._idle.append(worker)

    def close(self) -> None:
        """Let the threads end, when they have nothing left to do."""
        for worker in self._idle:
            worker.close()


class _Job(NamedTuple):
    frames: Sequence[Frame]
    done: asyncio.Future[Computed]
    loop: asyncio.AbstractEventLoop


def _started(engine: Engine, another: Callable[[], Engine] | None) -> queue.SimpleQueue[_Job | None]:
    jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
    threading.Thread(target=_work, args=(jobs, engine, another), name="tail", daemon=True).start()
    return jobs


def _work(jobs: queue.SimpleQueue[_Job | None], engine: Engine, another: Callable[[], Engine] | None) -> None:
    while (job := jobs.get()) is not None:
        computed: Computed | Exception
        try:
            if another is not None:
                engine, another = another(), None
            computed = compute(engine, job.frames)
        except Exception as error:  # whatever an engine throws costs its batch
            computed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            job.loop.call_soon_threadsafe(_settle, job.done, computed)


def _settle(done: asyncio.Future[Computed], computed: Computed | Exception) -> None:
    if done.done():
        return  # given up
    if isinstance(computed, Exception):
        done.set_exception(computed)
    else:
        done.set_result(computed)


def compute(engine: Engine, frames: Sequence[Frame]) -> Computed:
    """The batch is put together by the engine, in the thread that runs it, since every copy on the loop delays all streams."""
    began, cpu_began = time.monotonic(), time.thread_time()
    answers = engine.run(frames)
    ended, cpu_s = time.monotonic(), time.thread_time() - cpu_began
    return Computed([None if is_nan(answer) else answer for answer in answers], ended - began, cpu_s, ended)


def is_nan(answer: Packed | None) -> bool:
    """Whether some logit is not a number."""
    return not isinstance(answer, bytes | None) and any(logit != logit for logit in answer)
