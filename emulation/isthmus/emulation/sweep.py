"""Sweeps: every combination of what a file lists, each played in a process of its own and kept as it ends.

FOLDER/sweep.json                            what is swept, how, and which results belong to it
FOLDER/results/NAME-KEY/0000.jsonl.zst, ...  one result: the records of each device

A result appears whole or not at all. Its key follows from everything that it depends on: the scenario's values, the
trace's and the bundle's contents, the machines' profiles, and Isthmus's own code. So a sweep that was interrupted goes on
where it stopped, one that was extended plays what is new, and nothing that has changed is taken for what it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import msgspec

import isthmus
from isthmus.device.deciding import outside
from isthmus.emulation import policies, traces
from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.virtual import scenario as scenarios
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.emulation.virtual.setting import OpenedScenario
from isthmus.models import bundle as bundles
from isthmus.models import profiles
from isthmus.proto import config, record
from isthmus.proto.errors import ConfigError, DataError, IsthmusError
from isthmus.proto.record import Run

MANIFEST, RESULTS = "sweep.json", "results"
ALL = "all"
_IN_HEADERS = {"trace", "swap", "scale", "profile", "bundle", "policy", "deadline_s", "fps", "seed"}
"""What the header of a run says by itself; other values that vary are said in the scenario's name."""
_OPENED = (
    ("bundle", "policy", "clips"),
    ("trace", "swap", "scale", "rtt_ms"),
    ("profile", "radio", "energy_weight", "events"),
    ("server",),
)
"""What can be wrong together: one scenario of each combination is opened before anything is played."""

Play = Callable[[Scenario], list[Run]]


@dataclass(frozen=True)
class SweepJob:
    """One combination, under the name of its result: values for people, and the key."""

    name: str
    scenario: Scenario


class SweepManifest(msgspec.Struct, frozen=True, kw_only=True):
    """How a sweep is made."""

    command: str
    version: str
    code_sha256: str
    """The hash of the modules of Isthmus that a result depends on."""
    started: str
    """ISO 8601; when it began, or last went on."""
    host: dict[str, str | int | float]
    results: dict[str, dict[str, Any]]
    """The name of each result that belongs to it, played or not, and the scenario's values that are not the usual."""
    failed: dict[str, str] = {}
    """Results that ended with an error instead, and what it said."""

    @classmethod
    def of(cls, jobs: Sequence[SweepJob], **how: Any) -> SweepManifest:
        """The manifest of these jobs; `how` gives the other fields."""
        usual = msgspec.to_builtins(Scenario())
        values = {job.name: msgspec.to_builtins(job.scenario) for job in jobs}
        results = {name: {k: v for k, v in each.items() if v != usual[k]} for name, each in values.items()}
        return cls(results=results, **how)


@dataclass(frozen=True)
class Ended:
    """A job that was played, and what went wrong, if anything did."""

    job: SweepJob
    error: str | None


def read(path: Path) -> list[Scenario]:
    """The combinations that a sweep's file lists, in the file's order. Raises ConfigError naming file and key.

    Its keys are a scenario's; each has a value or a list of values, and `scenario` names scenarios that they change.
    `policy = "all"` is every policy that the bundle has tables for, and the bounds.
    """
    table = config.read(path)
    known = ("scenario", *Scenario.__struct_fields__)
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ConfigError(f"{path}: unknown key '{unknown[0]}'; known: {', '.join(known)}")
    choices = {key: value if isinstance(value, list) and key != "events" else [value] for key, value in table.items()}
    empty = next((key for key, values in choices.items() if not values), None)
    if empty:
        raise ConfigError(f"{path}: {empty}: an empty list leaves nothing to play")
    varied = [key for key, values in choices.items() if len(values) > 1]
    combined: list[dict[str, object]] = [{}]
    for key, values in choices.items():
        combined = [one | {key: value} for one in combined for value in values]
    listed = [one for changes in combined for one in _scenarios(path, changes, varied)]
    return list(dict.fromkeys(listed))


def _scenarios(path: Path, changes: dict[str, object], varied: Sequence[str]) -> list[Scenario]:
    """The scenario of one combination, or one for each policy where that is "all"."""
    base = changes.pop("scenario", None)
    every = changes.get("policy") == ALL
    if every:
        del changes["policy"]
    try:
        made = scenarios.of(changes, where=str(path)) if base is None else scenarios.load(str(base), changes)
    except ConfigError as error:
        raise ConfigError(f"{error} (in {path})" if base is not None else str(error)) from error
    said = [f"{key}={changes[key]}" for key in varied if key in changes and key not in _IN_HEADERS]
    made = msgspec.structs.replace(made, name=" ".join([*([made.name] if made.name else []), *said]))
    if not every:
        return [made]
    names = (*policies.available(bundles.load(made.bundle), clips=made.clips), *policies.BOUNDS)
    return [msgspec.structs.replace(made, policy=name) for name in names]


def check(listed: Sequence[Scenario]) -> None:
    """Open whatever the combinations name, once. Raises ConfigError, BundleError, DataError, each naming the thing."""
    for fields in _OPENED:
        for one in {tuple(getattr(s, field) for field in fields): s for s in listed}.values():
            if one.policy in policies.BOUNDS:
                one = msgspec.structs.replace(one, policy=policies.NAMES[0])
            OpenedScenario.of(one)


def jobs(listed: Sequence[Scenario], code_sha256: str) -> list[SweepJob]:
    """Each combination under the name of its result."""
    found = {name: traces.find(name).sha256 for name in {s.trace for s in listed}}
    hashes = {name: bundles.load(name).sha256.hex() for name in {s.bundle for s in listed}}
    tables = {s.bundle: _clips_sha256(s.bundle) for s in listed if s.clips}
    machines = {name: repr(profiles.load(name)) for name in {m for s in listed for m in (s.profile, s.server)}}

    def job(one: Scenario) -> SweepJob:
        evidence = (
            repr(one), found[one.trace], hashes[one.bundle], machines[one.profile], machines[one.server], code_sha256,
            *([tables[one.bundle]] if one.clips else []),
            *([hashlib.sha256(outside.source(one.policy)).hexdigest()] if outside.is_outside(one.policy) else []),
        )  # fmt: skip
        key = hashlib.sha256("\n".join(evidence).encode()).hexdigest()[:10]
        words = [one.name, Path(one.trace).stem, one.profile, one.policy, f"seed{one.seed}"]
        slug = re.sub(r"[^a-zA-Z0-9.=]+", "-", "_".join(dict.fromkeys(word for word in words if word)))
        return SweepJob(name=f"{slug[:100]}-{key}", scenario=one)

    return [job(one) for one in listed]


def _clips_sha256(name: str) -> str:
    """The hash of a bundle's table of clips, which is no part of the bundle's own."""
    path = sequences.path_of(bundles.load(name))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def code_sha256() -> str:
    """The hash of all modules that a result may depend on: Isthmus's own but the command line's."""
    portions: dict[str, Path] = {}
    for portion in (portion for root in map(Path, isthmus.__path__) for portion in root.iterdir()):
        portions.setdefault(portion.name, portion)  # the first is the one that is imported
    digest = hashlib.sha256()
    for name in sorted(portions.keys() - {"cli"}):
        for path in sorted(portions[name].rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def files(folder: Path) -> list[Path]:
    """The records of all results that belong to the sweep in `folder`, as far as it came. Raises DataError."""
    results = (folder / RESULTS / name for name in manifest(folder).results)
    return [file for result in results for file in sorted(result.glob("*.jsonl.zst"))]


def manifest(folder: Path) -> SweepManifest:
    """How the sweep in `folder` is made. Raises DataError."""
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=SweepManifest)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; is it the folder of a sweep?") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: not the manifest of a sweep ({error})") from error


def to_play(folder: Path, jobs: Sequence[SweepJob]) -> list[SweepJob]:
    """Those that have no result yet."""
    return [job for job in jobs if not (folder / RESULTS / job.name).is_dir()]


def run(folder: Path, made: SweepManifest, jobs: Sequence[SweepJob], *, processes: int, play: Play) -> Iterator[Ended]:
    """Play the jobs in so many processes, and yield each as it ends; the manifest is kept up to date.

    An error costs its job only. When the iterator is left early (Ctrl-C), what is being played is given up at once and
    what was played stays. Raises DataError when the folder cannot be written, IsthmusError when a process is killed.
    """
    keep(folder, made)
    if not jobs:
        return
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=spawn, initializer=_follow_parent)
    try:
        playing = {pool.submit(_play, play, job, folder, made.command, made.version): job for job in jobs}
        for future in as_completed(playing):
            ended = Ended(playing[future], future.result())
            if ended.error is not None:
                made = failing(made, ended)
                keep(folder, made)
            yield ended
    except BrokenProcessPool as error:
        raise IsthmusError(f"{folder}: a process was killed, perhaps for memory; go on with fewer --workers") from error
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _play(play: Play, job: SweepJob, folder: Path, command: str, version: str) -> str | None:
    """One result, made in a process of the pool, whole or not at all; the error, if it came to one."""
    try:
        with result(folder, job) as part:
            save(play(job.scenario), part, command, version)
    except Exception as error:  # a pool's process has nobody to raise to, and the other jobs are well
        return said(error)
    return None


@contextlib.contextmanager
def result(folder: Path, job: SweepJob) -> Iterator[Path]:
    """The folder that a job's records go into; it becomes its result at the end, if nothing was raised before."""
    part = folder / RESULTS / f".{job.name}"  # hidden, so that nobody takes it for a result
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    part.rename(folder / RESULTS / job.name)


def save(runs: Sequence[Run], folder: Path, command: str, version: str) -> None:
    """Write the run of each device, stamped with how it was made."""
    for device, (header, records, cut, end) in enumerate(runs):
        stamped = msgspec.structs.replace(header, command=command, version=version)
        record.save(folder / f"{device:04}.jsonl.zst", Run(stamped, records, cut, end))


def said(error: Exception) -> str:
    """What a manifest says of an error."""
    return str(error) if isinstance(error, IsthmusError) else f"{type(error).__name__}: {error}"


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent of this process of the pool, and end when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "started by a pool"

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def failing(made: SweepManifest, ended: Ended) -> SweepManifest:
    """The manifest once a job has ended with an error."""
    return msgspec.structs.replace(made, failed=made.failed | {ended.job.name: ended.error or ""})


def keep(folder: Path, made: SweepManifest) -> None:
    """Write the manifest, whole or not at all. Raises DataError."""
    part = folder / f".{MANIFEST}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
        part.rename(folder / MANIFEST)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; name another folder for the sweep") from error
