"""Tails that Ray Serve places, scales and restarts on a cluster, behind the same batcher and the same deadlines.

A deployment's replicas each hold one tail, made from the bundle's files, which travel with it: no node needs the folder. This
server keeps the streams, decodes, batches, and keeps every replica busy: one batch runs while the next is on its way, over
links that each replica holds to its server. A replica that dies costs the frames of its batches at most. Ray is imported when
the first of these is made, by nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.edge_server.engines import Engine, Frame, Tail
from isthmus.edge_server.scale_out import ray_cluster
from isthmus.edge_server.scale_out.replica import LEAVE_S, Replica
from isthmus.edge_server.scale_out.replica_links import ReplicaLinks
from isthmus.models import bundle as bundles
from isthmus.models.bundle import Bundle
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks.task import Packed

DIALLED_S = 10.0
"""A replica that runs has dialled already; the server has then heard its hello within so long."""
START_S = 120.0
"""How long the first replica may take to start: it loads ONNX Runtime, perhaps on a machine that is being made."""
POLICY = "isthmus.edge_server.scale_out.wanted_replicas:by_their_work"
DELETE_S = LEAVE_S + 1.0
"""What a replica that is told to end may take for its batches, and its process for the rest."""


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
    """A tail whose every batch runs on some replica; may be called by as many threads at once as there are links to them."""

    def __init__(
        self, make: Callable[[], Engine], replicas: Replicas, *, name: str, address: str | None = None
    ) -> None:
        """`make` makes a replica's tail there. `address` is a cluster's, None for RAY_ADDRESS or else a Ray of our own.

        Returns when all of the least number run. Raises ConfigError when Ray is not there or has no room for them.
        """
        self.name, self._replicas = name, replicas
        self._ray = ray_cluster.connect(address)
        from ray import serve

        serve.start(proxy_location="Disabled")  # devices come in through this server
        self._serve: Any = serve
        self._links = ReplicaLinks(self._ray.util.get_node_ip_address())
        self._place(self._deployment().bind(make, self._links.door))

    @property
    def running(self) -> int:
        """How many replicas run now."""
        return self._links.replicas

    @property
    def batches(self) -> int:
        """How many batches should be under way."""
        return max(1, self._links.count)

    def run(self, frames: Sequence[Frame]) -> Sequence[Packed | None]:
        """What crossed for each of B frames, to B answers. Raises ReplicaError, with what the tail raised or what became of
        its replica.
        """
        return self._links.run(frames)

    def close(self) -> None:
        """End the replicas, and Ray itself where it is our own."""
        self._links.close()
        with contextlib.suppress(Exception):  # a cluster that is gone has none to end
            self._serve.delete(self.name)
        self._ray.shutdown()

    def _deployment(self) -> Any:
        replicas, scale = self._replicas, dict[str, Any](num_replicas=self._replicas.least)
        if replicas.most > replicas.least:
            auto = {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "policy": {"policy_function": POLICY},
            }
            scale = {"autoscaling_config": auto}
        return self._serve.deployment(
            Replica,
            name="tail",
            graceful_shutdown_wait_loop_s=0.1,  # for requests of Ray Serve's, of which there are none
            graceful_shutdown_timeout_s=DELETE_S,
            ray_actor_options={"num_cpus": replicas.cpus},
            **scale,
        )

    def _place(self, application: Any) -> None:
        aside = ThreadPoolExecutor(1, thread_name_prefix="ray")
        try:
            run = functools.partial(self._serve.run, application, name=self.name, route_prefix=None)
            aside.submit(run).result(START_S)
            if not self._links.wait_for(self._replicas.least, DIALLED_S):
                raise TimeoutError("they run, and have not dialled in")
        except Exception as error:  # Ray has many, and a timeout is a concurrent.futures one
            states, why = self._counted(), " ".join(str(error).split()) or f"not within {START_S:g} s"
            self._links.close()
            with contextlib.suppress(Exception):
                self._serve.delete(self.name, _blocking=False)
            self._ray.shutdown()
            raise ConfigError(
                f"ray: {self._replicas.least} replicas of {self._replicas.cpus:g} CPUs did not start ({why}; {states}); is there "
                "room for them (--replica-cpus), and the same Isthmus on every node?"
            ) from error
        finally:
            aside.shutdown(wait=False)

    def _counted(self) -> dict[str, int]:
        applications = self._serve.status().applications
        if self.name not in applications:
            return {}
        counts = [deployment.replica_states for deployment in applications[self.name].deployments.values()]
        return {str(getattr(state, "value", state)): n for each in counts for state, n in each.items()}


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
