"""A loaded tail: warmed up, with its thread and its health. It is loaded off the event loop, and runs on it from then on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isthmus.edge_server.batcher import Batcher, RunBatch
from isthmus.edge_server.engines import Engine
from isthmus.edge_server.metrics import BundleMetrics
from isthmus.edge_server.repository.lane import Ready, Served
from isthmus.edge_server.tail_health import HUNG_S, HUNG_TIMES, TailHealth
from isthmus.edge_server.tail_times import TailTimes
from isthmus.edge_server.tail_worker import Computed, TailHungError, TailWorker, TailWorkers, compute
from isthmus.proto.frame_codec import FrameCodec, blank
from isthmus.proto.tasks.task import Packed

log = logging.getLogger(__name__)

WARM_UP_RUNS, WARM_UP_S = 5, 1.0
"""The best of so many runs is undisturbed on most machines; a slow tail is run for so long at most at each size."""
MOST_WORDS = 300
"""Characters of an engine's error that are logged."""


@dataclass(frozen=True)
class WarmTail:
    """A tail that is ready to be served, and what was measured of it."""

    served: Served
    engine: Engine
    times: TailTimes
    codec: FrameCodec
    max_batch: int
    another: Callable[[], Engine] | None = None
    """Makes an engine for the thread that takes the place of one that hangs."""
    batches: int | None = None
    """How many run at once, on an engine that several threads may call, since it runs elsewhere; None: one, here."""

    @classmethod
    def of(
        cls,
        served: Served,
        engine: Engine,
        *,
        max_batch: int = 8,
        another: Callable[[], Engine] | None = None,
        batches: int | None = None,
    ) -> WarmTail:
        """Warm an engine up. Takes seconds: not for the event loop of a server that serves already."""
        times = TailTimes(warm_up(engine, served, max_batch), max_batch=max_batch)
        return cls(served, engine, times, FrameCodec(served.codec), max_batch, another, batches)

    def batcher(self, stream_credits: int) -> Batcher[Ready]:
        """A queue in front of it, in which each stream may have so many frames."""
        engines = self.batches or 1
        return Batcher(self.times, max_batch=self.max_batch, stream_credits=stream_credits, engines=engines)


class TailRunner:
    """One tail's thread, and whether it works."""

    def __init__(self, tail: WarmTail, metrics: BundleMetrics) -> None:
        self.served, self._times = tail.served, tail.times
        here = tail.batches is None
        self._worker = TailWorker(tail.engine, another=tail.another) if here else TailWorkers(tail.engine)
        self._metrics = metrics
        self._health = TailHealth()

    @property
    def serving(self) -> bool:
        """Whether some of the last batches succeeded."""
        return self._health.serving

    def stretch(self, computed: Computed) -> float:
        """How many times longer a batch took than its processor time would take on an idle machine."""
        return self._worker.stretch(computed)

    async def run(self, batch: RunBatch[Ready]) -> Computed | None:
        """The answers to a batch; None when it failed, which the log and the metrics are told."""
        count = len(batch.items)
        try:
            patience_s = max(HUNG_S, HUNG_TIMES * self._times.p95_s(count))
            computed = await self._worker.run([item.payload.features for item in batch.items], patience_s=patience_s)
        except TailHungError as error:
            self._failed("hung", str(error))
        except Exception as error:  # whatever an engine throws costs its batch, not the server
            self._failed("failed", f"failed on a batch of {count}: {type(error).__name__}: {error}")
        else:
            self._look_through(computed.answers)
            self._metrics.on_batch(count, computed.tail_s)
            return computed
        return None

    def close(self) -> None:
        """Let go of the thread."""
        self._worker.close()

    def _look_through(self, answers: Sequence[Packed | None]) -> None:
        nan = sum(answer is None for answer in answers)
        if nan < len(answers):
            self._health.on_success()
        if nan:
            self._failed("nan", f"{nan} of {len(answers)} answers are not a number", nan, whole=nan == len(answers))

    def _failed(self, reason: str, why: str, count: int = 1, *, whole: bool = True) -> None:
        self._metrics.on_tail_failure(reason, count)
        line = self._health.on_failure(f"{self.served.name}: {printed(why)}", now=time.monotonic(), whole=whole)
        if line is not None:
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
