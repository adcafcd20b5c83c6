"""What the machine does to a process: how long it keeps it from a CPU, how much it holds; and limits set from without."""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

SAMPLE_S = 0.05
CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 20_000


class UnavailableError(Exception):
    """This machine cannot have it; says why."""


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    rss_bytes: int
    fds: int
    threads: int


def usage(pid: int) -> Usage:
    """What it holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    fds, threads = (sum(1 for _ in Path(f"/proc/{pid}/{kind}").iterdir()) for kind in ("fd", "task"))
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), fds, threads)


def cpu_s(pid: int) -> float:
    """How long a process has computed so far, in seconds of one core."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def signal_waits(pid: int, number: int) -> bool:
    """Whether a signal that was sent to a process still waits for it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return any(int(status[key], 16) >> (number - 1) & 1 for key in ("SigPnd", "ShdPnd"))


class CpuWaits:
    """How long a process's threads have stood in a queue for a CPU, and the machine itself for its host, sample by sample."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._threads: dict[str, int] = {}
        self._times: list[float] = [monotonic()]
        self._waited: list[float] = [self._now_s()]
        self._closed = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def between(self, start_s: float, end_s: float) -> float:
        """Seconds waited from `start_s` to `end_s` (monotonic), rounded outwards to whole samples."""
        first = max(0, bisect_right(self._times, start_s) - 1)
        last = min(len(self._times) - 1, bisect_left(self._times, end_s))
        return self._waited[last] - self._waited[first]

    def close(self) -> None:
        """Sample no more."""
        self._closed.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._closed.wait(SAMPLE_S):
            try:
                waited_s = self._now_s()
            except OSError:
                return  # it has ended
            self._times.append(monotonic())
            self._waited.append(waited_s)

    def _now_s(self) -> float:
        for thread in Path(f"/proc/{self._pid}/task").iterdir():
            with contextlib.suppress(OSError, IndexError):
                self._threads[thread.name] = int((thread / "schedstat").read_text().split()[1])
        stolen = int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
        return sum(self._threads.values()) / 1e9 + stolen / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def limited(pids: Sequence[int], *, cpu: float | None = None, memory_bytes: int | None = None) -> Iterator[None]:
    """Processes in a control group with so much of one core, or so much memory, while the block lasts.

    Raises UnavailableError where this machine has no such groups.
    """
    controller, limits = _limits(cpu, memory_bytes)
    top = CGROUPS / controller
    path = top / f"isthmus-{pids[0]}"
    try:
        path.mkdir()
        for key, value in limits.items():
            (path / key).write_text(value)
        for pid in pids:
            (path / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        raise UnavailableError(f"control groups: {error}") from error
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(OSError):  # it has ended
                (top / "cgroup.procs").write_text(str(pid))
        path.rmdir()


def _limits(cpu: float | None, memory_bytes: int | None) -> tuple[str, dict[str, str]]:
    """The controller's folder and what to write there, in the newer form (version 2) or the older."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    if cpu is not None:
        quota_us = str(round(PERIOD_US * cpu))
        older = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota_us}
        return (".", {"cpu.max": f"{quota_us} {PERIOD_US}"}) if unified else ("cpu", older)
    size = str(memory_bytes)
    return (".", {"memory.max": size}) if unified else ("memory", {"memory.limit_in_bytes": size})
