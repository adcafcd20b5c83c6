"""Files are whole or not there, lines are whole or taken back."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isthmus.proto.files import Lines, write_whole


@contextmanager
def room(size_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond this: what a full disk does, in small."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")
    with room(1000), pytest.raises(OSError, match="too large"):
        write_whole(path, bytes(2000))
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_line_that_does_not_fit_is_taken_back_and_a_later_one_may_fit(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb", buffering=0) as file:
        lines = Lines(file.fileno())
        with room(10):
            lines.write(b"whole\n")
            with pytest.raises(OSError, match="too large"):
                lines.write(b"too long\n")
        lines.write(b"later\n")
    assert (tmp_path / "a").read_bytes() == b"whole\nlater\n"


def test_where_nothing_can_be_taken_back_a_torn_line_is_ended() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = Lines(writing)
    with pytest.raises(BlockingIOError):
        lines.write(bytes(1_000_000))
    torn = len(os.read(reading, 1_000_000))
    assert torn > 0
    lines.write(b"later\n")
    assert os.read(reading, 1000) == b"\nlater\n"
    os.close(reading)
    os.close(writing)


def test_a_device_is_written_to_as_it_is() -> None:
    write_whole(Path("/dev/null"), b"x")
    with pytest.raises(OSError, match="No space"):
        write_whole(Path("/dev/full"), b"x")
