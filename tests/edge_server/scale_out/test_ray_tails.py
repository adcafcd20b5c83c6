"""What of the tails on Ray needs no Ray: how many, what travels to a replica, and who imports it."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.engines import Frame, Tail
from isthmus.edge_server.scale_out.ray_tails import Replicas, tail_of
from isthmus.edge_server.tail_worker import TailWorkers
from isthmus.models import bundle as bundles
from isthmus.proto import config
from isthmus.proto.errors import ConfigError
from isthmus.proto.frame_codec import blank


@pytest.mark.parametrize(("text", "least", "most"), [("3", 3, 3), ("1-4", 1, 4), ("2-2", 2, 2)])
def test_a_number_or_a_range(text: str, least: int, most: int) -> None:
    assert Replicas.parse(text, cpus=0.5) == Replicas(least, most, 0.5)


@pytest.mark.parametrize("text", ["0", "-1", "4-1", "two", "1-", "", "1-2-3", "1000"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"replicas = '{text}', expected a number such as 2"):
        Replicas.parse(text, cpus=1.0)


@pytest.mark.parametrize("text", ['replicas = "1-4"', 'ray = "auto"', "replica_cpus = 0.5"])
def test_keys_of_ray_need_ray(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{text.split()[0]} is for engine = 'ray' only"):
        config.load(ServerConfig, path, {}, prefix="ISTHMUS_SERVER")
    path.write_text(f'engine = "ray"\n{text}')
    assert config.load(ServerConfig, path, {}, prefix="ISTHMUS_SERVER").engine == "ray"


def test_a_replica_has_the_bundle_s_own_tail_without_its_folder() -> None:
    bundle = bundles.load("signs", half="tail")
    made = pickle.loads(pickle.dumps(tail_of(bundle, 1)))
    frames = [blank(bundle.codec) + np.float32(i) for i in range(3)]
    assert made().run(frames) == Tail(bundle, 1).run(frames)


def test_several_batches_run_at_once_and_no_thread_is_made_for_each() -> None:
    both, threads = threading.Barrier(2), set[int]()

    class Elsewhere:
        def run(self, frames: Sequence[Frame]) -> list[tuple[float, ...]]:
            both.wait(30.0)
            threads.add(threading.get_ident())
            return [(1.0, 0.0)] * len(frames)

    async def check() -> None:
        workers = TailWorkers(Elsewhere())
        for _ in range(3):
            batch = [np.ones((1, 1, 1), np.float32)]
            await asyncio.gather(*(workers.run(batch, patience_s=30.0) for _ in range(2)))
        workers.close()

    asyncio.run(asyncio.wait_for(check(), 60.0))
    assert len(threads) == 2


def test_nothing_imports_ray_before_it_is_asked_for() -> None:
    program = (
        "import sys, isthmus.cli.main, isthmus.cli.serve, isthmus.cli.sweep, isthmus.edge_server.server\n"
        "assert not [name for name in sys.modules if name == 'ray' or name.startswith('ray.')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
