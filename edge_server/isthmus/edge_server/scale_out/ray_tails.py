"""Tails that Ray Serve places, scales and restarts on a cluster, behind the same batcher and the same deadlines.

A deployment's replicas each hold one tail, made from the bundle's files, which travel with it: no node needs the folder. This
server keeps the streams, decodes, batches, and keeps every replica busy: one batch runs while the next is on its way. A
replica that dies costs the frames of its batches at most. Ray is imported when the first of these is made, by nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.edge_server.engines import Engine, Frame, Tail
from isthmus.edge_server.scale_out import ray_cluster
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks.task import Packed

START_S = 120.0
"""How long the first replica may take to start: it loads ONNX Runtime, perhaps on a machine that is being made."""
PATIENCE_S = 30.0
"""A batch is given up after so long; the server has given it up long before, and this frees the thread that waits."""
BUSY_SHARE = 0.7
"""More replicas are started while each is at work for more than this share of the time, where there may be more."""
ROUTER = "isthmus.edge_server.scale_out.ray_router.LeastBusy"
DEPTH = 2
"""Batches under way for each replica. Ray takes some milliseconds from one to the next, in which it would have nothing to do."""
ROOM = DEPTH + 1
"""What Ray lets a replica have: it says a little late that a batch is done."""
DELETE_S = 2.0
"""What a replica that is told to end may take for its batch."""


@dataclass(frozen=True)
class Replicas:
    """How many tails Ray runs: so many at least, so many at most where the load asks for them; and what each takes."""

    least: int = 1
    most: int = 1
    cpus: float = 1.0
    """Processors that Ray sets aside for each."""

    @classmethod
    def parse(cls, text: str, *, cpus: float) -> Replicas:
        """`3`, or `1-4`. Raises ConfigError."""
        least, dash, most = text.partition("-")
        words = (least, most) if dash else (least, least)
        if not all(word.isdecimal() for word in words) or not 1 <= int(words[0]) <= int(words[1]) <= MOST:
            raise ConfigError(
                f"replicas = '{text}', expected a number such as 2, or a range such as 1-4, {MOST} at most"
            )
        return cls(int(words[0]), int(words[1]), cpus)


MOST = 256
"""Replicas behind one server: its one event loop feeds no more."""


class RayTails:
    """A tail whose every batch runs on some replica; may be called by as many threads at once as there are replicas."""

    def __init__(
        self, make: Callable[[], Engine], replicas: Replicas, *, name: str, address: str | None = None
    ) -> None:
        """`make` makes a replica's tail there. `address` is a cluster's, None for RAY_ADDRESS or else a Ray of our own.

        Returns when all of the least number run. Raises ConfigError when Ray is not there or has no room for them.
        """
        self.name, self._replicas = name, replicas
        self._ray = ray_cluster.connect(address)
        from ray import serve
        from ray.serve.config import RequestRouterConfig

        serve.start(proxy_location="Disabled")  # devices come in through this server
        self._serve: Any = serve
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="ray")
        scale: dict[str, Any] = {"num_replicas": replicas.least}
        if replicas.most > replicas.least:
            auto = {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "target_ongoing_requests": BUSY_SHARE * DEPTH,
            }
            scale = {"autoscaling_config": auto}
        deployment = self._serve.deployment(
            Replica,
            name="tail",
            max_ongoing_requests=ROOM,
            request_router_config=RequestRouterConfig(request_router_class=ROUTER),
            graceful_shutdown_timeout_s=DELETE_S,
            ray_actor_options={"num_cpus": replicas.cpus},
            **scale,
        )
        self._handle = self._placed(deployment.bind(make))

    @property
    def running(self) -> int:
        """How many replicas run now; asks the cluster, which takes some milliseconds."""
        return self._counted().get("RUNNING", 0)

    @property
    def batches(self) -> int:
        """How many batches should be under way; asks the cluster as `running` does."""
        return DEPTH * max(1, self.running)

    def run(self, frames: Sequence[Frame]) -> Sequence[Packed | None]:
        """What crossed for each of B frames, to B answers. Raises whatever the tail does, or Ray where a replica died."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._answers(frames)
        return self._aside.submit(self._answers, frames).result()  # Ray lets nobody wait on an event loop: warming up

    def close(self) -> None:
        """End the replicas, and Ray itself where it is our own."""
        with contextlib.suppress(Exception):  # a cluster that is gone has none to end
            self._serve.delete(self.name)
        self._aside.shutdown(wait=False)
        self._ray.shutdown()

    def _answers(self, frames: Sequence[Frame]) -> Sequence[Packed | None]:
        response = self._handle.remote(list(frames))
        try:
            answers: Sequence[Packed | None] = response.result(timeout_s=PATIENCE_S)
        except TimeoutError:
            response.cancel()
            raise
        return answers

    def _placed(self, application: Any) -> Any:
        try:
            run = functools.partial(self._serve.run, application, name=self.name, route_prefix=None)
            return self._aside.submit(run).result(START_S)
        except Exception as error:  # Ray has many, and a timeout is a concurrent.futures one
            states, why = self._counted(), " ".join(str(error).split()) or f"not within {START_S:g} s"
            with contextlib.suppress(Exception):
                self._serve.delete(self.name, _blocking=False)
            self._ray.shutdown()
            raise ConfigError(
                f"ray: {self._replicas.least} replicas of {self._replicas.cpus:g} CPUs did not start ({why}; {states}); is there "
                "room for them (--replica-cpus), and the same Isthmus on every node?"
            ) from error

    def _counted(self) -> dict[str, int]:
        applications = self._serve.status().applications
        if self.name not in applications:
            return {}
        counts = [deployment.replica_states for deployment in applications[self.name].deployments.values()]
        return {str(getattr(state, "value", state)): n for each in counts for state, n in each.items()}


class Replica:
    """One replica, on whatever machine Ray put it."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._engine, self._turn = make(), threading.Lock()

    def __call__(self, frames: Sequence[Frame]) -> list[Packed | None]:
        """Compute a batch, one after the other: Ray calls it from several threads, and an engine knows one."""
        with self._turn:
            return list(self._engine.run(frames))


def tail_of(bundle: Bundle, threads: int) -> Callable[[], Tail]:
    """What makes the bundle's tail on any machine that has Isthmus, its files included."""
    files = {str(path.relative_to(bundle.folder)): path.read_bytes() for path in _files(bundle.folder)}
    return functools.partial(_unpacked, files, threads)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _unpacked(files: dict[str, bytes], threads: int) -> Tail:
    with tempfile.TemporaryDirectory(prefix="isthmus-tail-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Tail(bundles.load(folder, half="tail"), threads)
