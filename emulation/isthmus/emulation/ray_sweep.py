"""A sweep's jobs as tasks of a Ray cluster; results, manifest and going on again are those of `sweep`, to the last bit.

What a task plays comes back as its files' bytes and is written here: the nodes need no folder in common. Each must have the
same Isthmus, traces and bundles; one that has others fails its tasks, since their results would have another key.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from isthmus.edge_server.scale_out import ray_cluster
from isthmus.emulation import sweep
from isthmus.emulation.sweep import Ended, Play, SweepJob, SweepManifest
from isthmus.proto.errors import ConfigError

RETRIES = 3
"""How often a task is given to another worker when its own is killed; a result depends on nothing that a worker remembers."""

Files = dict[str, bytes]


def run(
    folder: Path, made: SweepManifest, jobs: Sequence[SweepJob], *, address: str | None, cpus: int | None, play: Play
) -> Iterator[Ended]:
    """Play the jobs on the cluster at `address` (None: see `ray_cluster`), and yield each as it ends.

    An error costs its job only. When the iterator is left early, what is being played is given up and what was played stays.
    Raises ConfigError without a cluster, DataError when the folder cannot be written.
    """
    sweep.keep(folder, made)
    if not jobs:
        return
    ray = ray_cluster.connect(address, cpus=cpus)
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_played)
    playing = {task.remote(play, job, made.command, made.version): job for job in jobs}
    try:
        while playing:
            (first, *_), _ = ray.wait(list(playing), num_returns=1)
            ended = _ended(ray, first, playing.pop(first), folder)
            if ended.error is not None:
                made = sweep.failing(made, ended)
                sweep.keep(folder, made)
            yield ended
    finally:
        for left in playing:
            ray.cancel(left, force=True)
        ray.shutdown()


def _ended(ray: Any, done: Any, job: SweepJob, folder: Path) -> Ended:
    try:
        files: Files | str = ray.get(done)
    except ray.exceptions.RayError as error:
        return Ended(job, f"{type(error).__name__}: {error}")
    if isinstance(files, str):
        return Ended(job, files)
    try:
        with sweep.result(folder, job) as part:
            for name, content in files.items():
                (part / name).write_bytes(content)
    except OSError as error:
        return Ended(job, sweep.said(error))
    return Ended(job, None)


def _played(play: Play, job: SweepJob, command: str, version: str) -> Files | str:
    """One job's files, made on whatever machine this is; or what went wrong."""
    try:
        (here,) = sweep.jobs([job.scenario], sweep.code_sha256())
        if here.name != job.name:
            raise ConfigError(
                "ray: a node has another Isthmus, trace, bundle or profile; install the same on all of them"
            )
        with tempfile.TemporaryDirectory(prefix="isthmus-sweep-") as scratch:
            sweep.save(play(job.scenario), Path(scratch), command, version)
            return {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    except Exception as error:  # it costs this job, as it does in a process of our own
        return sweep.said(error)
