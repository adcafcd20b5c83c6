"""Isthmus's own processes, started from one another: each says when it is ready, all of them end together."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import IO

from isthmus.proto.errors import IsthmusError

PATIENCE_S = 5.0
"""How long a process may take to end after it was asked to."""


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `isthmus ARGUMENTS` with its standard output piped here; it is ended when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus.cli", *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> int:
    """Ask a process to end, insist after a while; its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def first_line(process: subprocess.Popen[str], role: str) -> str:
    """The line with which a role says that it is ready; IsthmusError when it ends instead."""
    line = output(process).readline().strip()
    if not line:
        raise IsthmusError(
            f"{role}: ended with code {process.wait()} before it was ready; its own message stands above"
        )
    return line


def output(process: subprocess.Popen[str]) -> IO[str]:
    """Its standard output."""
    assert process.stdout is not None, "started with a pipe"
    return process.stdout


def address_in(line: str) -> str:
    """The HOST:PORT that a ready line names: its first word with a colon and a number after it."""
    return next(word.rstrip(",") for word in line.split() if word.rstrip(",").rpartition(":")[2].isdecimal())


def command_line(arguments: Sequence[str]) -> str:
    """How a user would type it."""
    return "isthmus " + " ".join(arguments)
