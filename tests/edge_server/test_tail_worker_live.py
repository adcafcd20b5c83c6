"""The tail's thread, and a server whose tail raises, hangs or answers nonsense: with real threads and a real stream."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from isthmus.edge_server.repository import tail as tails
from isthmus.edge_server.server import bind, run
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.edge_server.tail_health import FAILURES
from isthmus.edge_server.tail_worker import MOST_LEFT_BEHIND, Computed, TailHungError, TailWorker
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto import messages as m

PATIENCE_S = 30.0
FEATURES = [np.ones((1, 1, 1), np.float32)] * 2


class Moody:
    """A tail that works, raises, hangs or answers NaN, as it is told."""

    def __init__(self) -> None:
        self.mood, self.gate = "well", threading.Event()

    def run(self, frames: Sequence[np.ndarray[Any, Any]]) -> list[tuple[float, ...]]:
        if self.mood == "raises":
            raise RuntimeError("out of\neverything")
        if self.mood == "hangs":
            self.gate.wait(PATIENCE_S)
        answer = float("nan") if self.mood == "nan" else 1.0
        return [(answer, 0.0)] * len(frames)


def live(check: Any) -> None:
    asyncio.run(asyncio.wait_for(check(), 60.0))


def test_answers_come_from_one_thread_that_is_not_the_loops() -> None:
    threads: set[int] = set()

    class Where(Moody):
        def run(self, frames: Sequence[np.ndarray[Any, Any]]) -> list[tuple[float, ...]]:
            threads.add(threading.get_ident())
            return super().run(frames)

    async def check() -> None:
        worker = TailWorker(Where())
        for _ in range(3):
            assert (await worker.run(FEATURES, patience_s=PATIENCE_S)).answers == [(1.0, 0.0)] * 2
        worker.close()

    live(check)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_hung_tail_is_left_behind_and_another_takes_its_place() -> None:
    async def check() -> None:
        hung, fresh = Moody(), Moody()
        worker = TailWorker(hung, another=lambda: fresh)
        hung.mood = "hangs"
        with pytest.raises(TailHungError, match=r"no answer to a batch of 2 in 0\.05 s; its thread is replaced"):
            await worker.run(FEATURES, patience_s=0.05)
        assert (await worker.run(FEATURES, patience_s=PATIENCE_S)).answers == [(1.0, 0.0)] * 2
        hung.gate.set()  # what it says after all is heard by nobody
        assert (await worker.run(FEATURES, patience_s=PATIENCE_S)).answers == [(1.0, 0.0)] * 2

    live(check)


def test_a_tail_that_always_hangs_leaves_so_many_threads_and_no_more() -> None:
    async def check() -> None:
        engine = Moody()
        engine.mood = "hangs"
        worker = TailWorker(engine, another=lambda: engine)
        before = threading.active_count()
        for _ in range(MOST_LEFT_BEHIND + 5):
            with pytest.raises(TailHungError):
                await worker.run(FEATURES, patience_s=0.01)
        assert threading.active_count() - before <= MOST_LEFT_BEHIND
        with pytest.raises(TailHungError, match="restart the server"):
            await worker.run(FEATURES, patience_s=PATIENCE_S)
        engine.gate.set()

    live(check)


def test_an_answer_that_is_not_a_number_is_none() -> None:
    async def check() -> None:
        engine = Moody()
        engine.mood = "nan"
        assert (await TailWorker(engine).run(FEATURES, patience_s=PATIENCE_S)).answers == [None, None]

    live(check)


def test_a_tail_that_waits_for_the_processor_is_stretched() -> None:
    """By the best share of it so far: a GPU's tail leaves its thread idle, and is not stretched by that."""
    worker = TailWorker(Moody())
    assert worker.stretch(Computed([], 0.010, 0.002, 0.0)) == 1.0
    assert worker.stretch(Computed([], 0.040, 0.002, 0.0)) == pytest.approx(4.0)
    assert worker.stretch(Computed([], 0.010, 0.010, 0.0)) == 1.0
    assert worker.stretch(Computed([], 0.010, 0.002, 0.0)) == pytest.approx(5.0)


def test_a_slow_tail_is_not_timed_at_every_size(served: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr(tails, "WARM_UP_S", 1e-9)
    engine = Moody()
    assert list(tails.warm_up(engine, served, 1024)) == [1]
    monkeypatch.setattr(tails, "WARM_UP_S", 1000.0)
    assert list(tails.warm_up(engine, served, 12)) == [1, 2, 4, 8, 12]


async def hear(call: Any, kind: type[Any]) -> Any:
    while not isinstance(message := wire.from_server_pb(await asyncio.wait_for(call.read(), PATIENCE_S)), kind):
        pass
    return message


@pytest.mark.parametrize("mood", ["raises", "nan", "hangs"])
def test_a_broken_tail_is_said_to_whoever_asks_and_once_to_the_log(
    served: Served, hello: m.Hello, frame: Any, caplog: pytest.LogCaptureFixture, monkeypatch: Any, mood: str
) -> None:
    """It used to be called healthy while every batch failed, and left a traceback for each."""
    monkeypatch.setattr(tails, "HUNG_S", 0.2)
    first, other = Moody(), Moody()

    async def check() -> None:
        service = EdgeService(served, first, another=lambda: other)
        server, status, address = bind(service, "127.0.0.1:0", None)
        up = asyncio.Event()
        task = asyncio.create_task(run(service, server, status, grace_s=1.0, ready=up.set))
        await up.wait()
        first.mood = other.mood = mood
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub  # its published types know no methods
            call, probe = edge_pb2_grpc.EdgeStub(channel).Stream(), stub(channel)
            await call.write(wire.to_device_pb(hello))
            for frame_id in range(FAILURES + 1):
                for layer in frame(frame_id):
                    await call.write(wire.to_device_pb(layer))
                assert (await hear(call, m.Invalid)).frame_id == frame_id
            states = health_pb2.HealthCheckResponse
            assert (await probe.Check(health_pb2.HealthCheckRequest())).status == states.NOT_SERVING
            first.mood = other.mood = "well"
            first.gate.set()
            other.gate.set()
            for layer in frame(99):
                await call.write(wire.to_device_pb(layer))
            assert (await hear(call, m.Result)).frame_id == 99
            assert (await probe.Check(health_pb2.HealthCheckRequest())).status == states.SERVING
            reason = {"raises": "failed", "nan": "nan", "hangs": "hung"}[mood]
            counted = service.metrics.registry.get_sample_value(
                "isthmus_tail_failures_total", {"bundle": "tiny", "reason": reason}
            )
            assert counted == FAILURES + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    live(check)
    lines = [record for record in caplog.records if record.getMessage().startswith("tail:")]
    assert len(lines) == 1
    assert lines[0].exc_info is None
    assert "\n" not in lines[0].getMessage()


HANGING = """
    import asyncio, sys, threading
    import numpy as np
    from isthmus.edge_server.server import bind, run
    from isthmus.edge_server.service import EdgeService
    from isthmus.edge_server.streams import Served
    from isthmus.proto import codec
    samples = np.random.default_rng(0).normal(size=(64, 4, 4, 8)).astype(np.float32)
    served = Served("tiny", bytes(range(32)), codec.fit(samples, (0.0,) * 8, (0.5, 1.0)))
    class Hangs:
        warm = False
        def run(self, frames):
            if self.warm:
                print("hangs", flush=True)
                threading.Event().wait()
            return [(1.0, 0.0)] * len(frames)
    async def main():
        engine = Hangs()
        service = EdgeService(served, engine)
        engine.warm = True
        server, status, address = bind(service, "127.0.0.1:0", None)
        await run(service, server, status, grace_s=1.0, ready=lambda: print(address, flush=True))
    asyncio.run(main())
"""


def test_sigterm_during_a_hung_tail_ends_within_the_grace(hello: m.Hello, frame: Any) -> None:
    """The process used to wait for the tail's thread: 18 s of a hang of 20."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HANGING)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()

        async def send() -> float:
            async with grpc.aio.insecure_channel(address) as channel:
                call = edge_pb2_grpc.EdgeStub(channel).Stream()
                await call.write(wire.to_device_pb(hello))
                for layer in frame(1):
                    await call.write(wire.to_device_pb(layer))
                loop = asyncio.get_running_loop()
                assert process.stdout is not None
                assert await loop.run_in_executor(None, process.stdout.readline) == "hangs\n"
                os.kill(process.pid, signal.SIGTERM)
                began = time.monotonic()
                assert await loop.run_in_executor(None, process.wait) == 0
                return time.monotonic() - began

        took_s = asyncio.run(asyncio.wait_for(send(), 60.0))
        assert took_s < 15.0, "the grace is a second; the rest is the machine's"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
