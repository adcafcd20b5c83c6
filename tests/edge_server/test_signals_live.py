"""A real `isthmus serve` and what it is told: once, twice, to hang up; and what its log says unasked."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from isthmus.proto import codec, edge_pb2, edge_pb2_grpc, wire
from isthmus.proto import messages as m

PATIENCE_S = 60.0


class Serving:
    """The process, its address and its log."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process, self._log = process, log
        line = process.stdout.readline()
        assert line, self.log
        self.address = next(word.rstrip(",") for word in line.split() if ":" in word)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextlib.contextmanager
def serving(log: Path) -> Iterator[Serving]:
    command = [sys.executable, "-m", "isthmus.cli", "serve", "--insecure", "--listen", "127.0.0.1:0", "--grace", "300s"]
    with log.open("w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        try:
            yield Serving(process, log)
        finally:
            process.kill()


@contextlib.contextmanager
def busy(address: str) -> Iterator[Iterator[m.ServerMessage]]:
    """A stream with a frame that never gets its last layer: a drain waits for it."""
    done = threading.Event()

    def say(*messages: m.DeviceMessage) -> Iterator[edge_pb2.DeviceMessage]:
        yield from map(wire.to_device_pb, messages)
        done.wait()

    with grpc.insecure_channel(address) as channel:
        facts = edge_pb2_grpc.EdgeStub(channel).Describe(edge_pb2.DescribeRequest())
        hello = m.Hello(facts.bundle_name, facts.bundle_sha256, facts.codec_version, "cam0")
        base = m.Layer(1, 0, False, 3000.0, b"base", codec.checksum(b"base"))
        call = edge_pb2_grpc.EdgeStub(channel).Stream(say(hello, base))
        try:
            yield (wire.from_server_pb(reply) for reply in call)
        finally:
            done.set()
            call.cancel()


def until(replies: Iterator[m.ServerMessage], kind: type) -> None:
    assert any(isinstance(reply, kind) for reply in replies)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, second: signal.Signals) -> None:
    with serving(tmp_path / "log") as server, busy(server.address) as replies:
        until(replies, m.Ack)
        server.tell(signal.SIGTERM)
        until(replies, m.Drain)
        server.tell(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1.0)
        server.tell(second)
        assert server.process.wait(PATIENCE_S) == 128 + second
        assert "Traceback" not in server.log


def test_a_hangup_ends_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server, busy(server.address) as replies:
        until(replies, m.Ack)
        server.tell(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1.0)
        with busy(server.address) as others:
            until(others, m.Ack)


def test_the_log_says_who_came_and_left_without_being_asked(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server:
        with busy(server.address) as replies:
            until(replies, m.Ack)
        while "hung up" not in server.log:
            assert server.process.poll() is None
            time.sleep(0.05)
        welcome, left = server.log.splitlines()
        assert welcome.endswith(": welcome")
        assert "stream 1: 'cam0' at 127.0.0.1:" in welcome
        assert left.endswith(" s hung up")
