"""`isthmus models push` and `served` against a real gRPC server that answers as a test says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.cli.models.push import messages
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2, edge_pb2_grpc
from isthmus.proto.errors import (
    BundleError,
    ConfigError,
    DataError,
    HandshakeError,
    IsthmusError,
    SecurityError,
    WireError,
)

STATUS = grpc.StatusCode


class Edge(edge_pb2_grpc.EdgeServicer):
    """Takes what is pushed, or refuses it with a status."""

    def __init__(self) -> None:
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.begin: edge_pb2.PushBegin | None = None
        self.data = b""
        self.bundles: list[edge_pb2.ServedBundle] = []

    def Push(self, request_iterator: Iterator[edge_pb2.PushMessage], context: grpc.ServicerContext) -> edge_pb2.Pushed:
        if self.refusal is not None:
            context.abort(*self.refusal)
        self.begin = next(request_iterator).begin
        self.data = b"".join(message.data for message in request_iterator)
        return edge_pb2.Pushed(name=self.begin.name, version=self.begin.version, sha256=self.begin.sha256)

    def Describe(self, request: edge_pb2.DescribeRequest, context: grpc.ServicerContext) -> edge_pb2.Description:
        return edge_pb2.Description(bundles=self.bundles)


@pytest.fixture
def edge() -> Iterator[tuple[Edge, str]]:
    server, servicer = grpc.server(ThreadPoolExecutor(2)), Edge()
    edge_pb2_grpc.add_EdgeServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0).wait()


def models(*arguments: str) -> str:
    """What it prints. Raises what ends it."""
    result = CliRunner().invoke(application(["models"]), ["models", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_a_push_says_what_comes_and_sends_it_whole(edge: tuple[Edge, str]) -> None:
    servicer, address = edge
    shown = models("push", "signs", address, "--insecure", "--version", "7")
    found = bundles.load("signs")
    assert shown == f"{address}: signs 7 is served; {found.sha256.hex()[:12]}\n"
    begin = servicer.begin
    assert begin is not None
    assert (begin.name, begin.version, begin.sha256) == ("signs", "7", found.sha256)
    names = [file.name for file in begin.files]
    assert names == ["bundle.toml", *found.manifest.files]
    assert servicer.data == b"".join((found.folder / name).read_bytes() for name in names)


def test_without_a_version_it_is_the_hash(edge: tuple[Edge, str]) -> None:
    servicer, address = edge
    models("push", "signs", address, "--insecure")
    assert servicer.begin is not None
    assert servicer.begin.version == servicer.begin.sha256.hex()[:12]


def test_no_message_is_too_large() -> None:
    assert max(message.ByteSize() for message in messages(bundles.load("cifar10"), "1")) < 300_000


REFUSALS: dict[grpc.StatusCode, type[IsthmusError]] = {
    STATUS.PERMISSION_DENIED: SecurityError,
    STATUS.INVALID_ARGUMENT: WireError,
    STATUS.RESOURCE_EXHAUSTED: DataError,
    STATUS.FAILED_PRECONDITION: BundleError,
    STATUS.UNIMPLEMENTED: HandshakeError,
    STATUS.UNKNOWN: HandshakeError,
}


@pytest.mark.parametrize("code", REFUSALS, ids=lambda code: code.name)
def test_a_refusal_has_its_exit_code_and_its_words(edge: tuple[Edge, str], code: grpc.StatusCode) -> None:
    servicer, address = edge
    servicer.refusal = code, "push: no\nand\x1b[31m no"
    with pytest.raises(REFUSALS[code]) as caught:
        models("push", "signs", address, "--insecure")
    assert str(caught.value).startswith(f"{address}: ")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_with_the_way_out() -> None:
    with pytest.raises(HandshakeError, match=r"127\.0\.0\.1:1: unavailable .*; is `isthmus serve` running there"):
        models("push", "signs", "127.0.0.1:1", "--insecure")


@pytest.mark.parametrize("more", [(), ("--insecure", "--certs", "keys")])
def test_who_the_server_is_talked_to_as_is_spelled_out(more: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="neither certificates nor plaintext, or both; give --certs FOLDER"):
        models("push", "signs", "127.0.0.1:1", *more)


def test_a_damaged_bundle_is_not_sent(edge: tuple[Edge, str], tmp_path: Any) -> None:
    with pytest.raises(BundleError, match="no bundle of this name or path"):
        models("push", str(tmp_path), edge[1], "--insecure")


def test_what_is_served_is_listed(edge: tuple[Edge, str]) -> None:
    servicer, address = edge
    load = edge_pb2.Load(queue=1, wait_us=1500, tail_us=2500)
    signs = edge_pb2.ServedBundle(
        name="signs", version="2", sha256=b"\x01" * 32, loaded=True, serving=True, streams=3, load=load
    )
    broken = edge_pb2.ServedBundle(name="birds\n", sha256=b"\x02" * 32, loaded=True)
    waiting = edge_pb2.ServedBundle(name="cats", sha256=b"\x03" * 32)
    servicer.bundles = [signs, broken, waiting]
    rows = models("served", address, "--insecure").splitlines()
    assert rows == [
        "signs 2                  010101010101  serving, 3 devices; a frame waits 1.5 ms and takes 2.5",
        "birds\\n                  020202020202  FAILS, 0 devices; a frame waits 0.0 ms and takes 0.0",
        "cats                     030303030303  not loaded, 0 devices",
    ]
    listed = json.loads(models("served", address, "--insecure", "--format", "json"))
    assert (listed[0]["name"], listed[0]["streams"], listed[0]["wait_s"]) == ("signs", 3, 0.0015)
    servicer.bundles = []
    assert models("served", address, "--insecure") == f"{address}: no bundle\n"
