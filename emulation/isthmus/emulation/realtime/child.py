"""A part of an emulated link in a process of its own, so that it keeps its times whatever its parent does.

A `ChildJob` goes to the child pickled, on standard input; what the job says when it is ready comes back as a line of JSON.
When standard input ends, so does the job, and its lag is the last line. An error of ours is raised in the parent.
"""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol

from isthmus.emulation.realtime.lag import LagSummary
from isthmus.proto.errors import IsthmusError

Announce = Callable[[dict[str, Any]], None]
"""Passes on what a parent must know of its child, as names and values."""
STOP_FD = 0
"""Readable, in the child, once its parent wants it to end."""


class ChildJob(Protocol):
    """What a child does. Picklable; descriptors in it are passed on by number."""

    def run(self, ready: Announce) -> LagSummary:
        """Call `ready` once at work, and go on until STOP_FD is readable."""


class Child:
    """A running job. `end` it, or leave the `with` block. Raises the job's own IsthmusError when it cannot begin."""

    def __init__(self, job: ChildJob, *, descriptors: Sequence[int] = ()) -> None:
        self._who = type(job).__name__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "isthmus.emulation.realtime.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=tuple(descriptors),
        )
        assert self._process.stdin is not None
        pickle.dump(job, self._process.stdin)
        self._process.stdin.flush()
        try:
            self.ready = self._line()
            """What the job said when it was ready."""
        except IsthmusError:
            self._close()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._process.kill()  # changes nothing for one that has ended
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def end(self) -> LagSummary:
        """Stop the job; its lag."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        lag = LagSummary(**self._line())
        self._process.wait()
        return lag

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise IsthmusError(
                f"{self._who}: its process ended with code {self._process.wait()}; its message stands above"
            )
        facts: dict[str, Any] = json.loads(line)
        if "error" in facts:
            self._process.wait()
            kinds = {kind.exit_code: kind for kind in IsthmusError.__subclasses__()}
            raise kinds.get(facts["code"], IsthmusError)(facts["error"])
        return facts


def _announce(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Run the job that the parent pickled to this child, and announce its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    with open(STOP_FD, "rb", buffering=0, closefd=False) as orders:  # unbuffered: nothing after the job is swallowed
        job: ChildJob = pickle.load(orders)
    try:
        _announce(asdict(job.run(_announce)))
    except IsthmusError as error:
        _announce({"error": str(error), "code": error.exit_code})


if __name__ == "__main__":
    main()
