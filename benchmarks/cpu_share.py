"""Holds a process to a share of one core: by a control group where one may be made, else it is stopped and continued."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PERIOD_S = 0.01


@contextlib.contextmanager
def held_to(share: float, pid: int) -> Iterator[str]:
    """Let a process have `share` of one core, and no more; yields how."""
    period_us, quota_us, group = round(PERIOD_S * 1e6), round(share * PERIOD_S * 1e6), f"isthmus-overload-{pid}"
    v1, v2 = Path("/sys/fs/cgroup/cpu") / group, Path("/sys/fs/cgroup") / group
    for folder, limits in (
        (v1, {"cpu.cfs_period_us": f"{period_us}", "cpu.cfs_quota_us": f"{quota_us}", "cpu.shares": "20480"}),
        (v2, {"cpu.max": f"{quota_us} {period_us}", "cpu.weight": "2000"}),
    ):
        try:
            folder.mkdir()
            for file, text in limits.items():
                (folder / file).write_text(text)
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        try:
            yield "control group"
        finally:
            os.kill(pid, signal.SIGKILL)
            for _ in range(50):  # a group can be removed once nobody is in it
                time.sleep(0.1)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
        return
    stop = threading.Event()
    thread = threading.Thread(target=_duty, args=(share, pid, stop), daemon=True)
    thread.start()
    try:
        yield "stopped and continued"
    finally:
        stop.set()
        thread.join()
        os.kill(pid, signal.SIGKILL)


def _duty(share: float, pid: int, stop: threading.Event) -> None:
    while not stop.wait(share * PERIOD_S):
        os.kill(pid, signal.SIGSTOP)
        time.sleep((1 - share) * PERIOD_S)
        os.kill(pid, signal.SIGCONT)
