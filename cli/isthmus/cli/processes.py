"""Isthmus's own processes, started from one another: each says when it is ready, all of them end together."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from isthmus.proto.errors import IsthmusError

PATIENCE_S = 5.0
"""How long a process may take to end after it was asked to."""


@contextlib.contextmanager
def started(*arguments: str, log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `isthmus ARGUMENTS` with its standard output piped here; it is ended when the block ends.

    What it says besides goes to `log`, or else to this process's standard error.
    """
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "isthmus.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=None if log is None else stack.enter_context(log.open("wb")),
            stdin=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield process
        finally:
            end(process)
            output(process).close()


def end(process: subprocess.Popen[str]) -> int:
    """Ask a process to end, insist after a while; its exit code, 128 + n where signal n ended it."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    except BaseException:  # Ctrl-C once more: leave nothing behind
        process.kill()
        raise
    code = process.wait()
    return code if code >= 0 else 128 - code


def first_line(process: subprocess.Popen[str], role: str, log: Path | None = None) -> str:
    """The line with which a role says that it is ready; IsthmusError, with its last words, when it ends instead."""
    line = output(process).readline().strip()
    if not line:
        words = "its own message stands above" if log is None else last_words(log)
        raise IsthmusError(f"{role}: ended with code {process.wait()} before it was ready; {words}")
    return line


def last_words(log: Path) -> str:
    """The last line of a log: an error, if that is how its process ended."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def output(process: subprocess.Popen[str]) -> IO[str]:
    """The process's standard output."""
    assert process.stdout is not None, "started with a pipe"
    return process.stdout


def address_in(line: str) -> str:
    """The HOST:PORT that a ready line names: its first word with a colon and a number after it."""
    return next(word.rstrip(",") for word in line.split() if word.rstrip(",").rpartition(":")[2].isdecimal())


def command_line(arguments: Sequence[str]) -> str:
    """How a user would type it."""
    return "isthmus " + " ".join(arguments)
