"""`serve` from a configuration and a bundle on disk to the last goodbye."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.edge_server.config import ServerConfig
from isthmus.edge_server.security import init
from isthmus.edge_server.server import serve
from isthmus.edge_server.streams import Served
from isthmus.proto import edge_pb2, edge_pb2_grpc, security
from isthmus.proto.errors import BindError, BundleError
from tiny_bundles import write_bundle


async def started(config: ServerConfig) -> tuple[str, asyncio.Task[None]]:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(config, ready=address.set_result))
    either: set[asyncio.Future[Any]] = {address, task}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    return address.result(), task


@pytest.mark.parametrize("tls", [False, True])
def test_from_configuration_to_sigterm(tmp_path: Path, served: Served, tls: bool) -> None:
    write_bundle(tmp_path, served)
    certs = str(tmp_path / "certs") if tls else None
    if certs is not None:
        init(certs, [])
    config = ServerConfig(
        str(tmp_path), listen="127.0.0.1:0", certs=certs, insecure=not tls, metrics="127.0.0.1:0", debug=True
    )

    async def check() -> None:
        address, task = await started(config)
        channel = (
            grpc.aio.insecure_channel(address)
            if certs is None
            else grpc.aio.secure_channel(address, security.channel_credentials(certs))
        )
        async with channel:
            description = await edge_pb2_grpc.EdgeStub(channel).Describe(edge_pb2.DescribeRequest())
        assert description.bundle_sha256 == hashlib.sha256((tmp_path / "bundle.toml").read_bytes()).digest()
        assert description.load.tail_us > 0, "the warm-up has measured the tail"
        os.kill(os.getpid(), signal.SIGTERM)
        await task

    asyncio.run(asyncio.wait_for(check(), 60.0))


@pytest.mark.parametrize("role", ["listen", "metrics"])
def test_a_port_in_use(tmp_path: Path, served: Served, role: str) -> None:
    write_bundle(tmp_path, served)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        addresses: dict[str, Any] = {"listen": "127.0.0.1:0", role: f"127.0.0.1:{taken.getsockname()[1]}"}
        with pytest.raises(BindError, match=f"--{role} HOST:PORT"):
            asyncio.run(serve(ServerConfig(str(tmp_path), insecure=True, **addresses)))


def test_a_damaged_tail_is_named(tmp_path: Path, served: Served) -> None:
    write_bundle(tmp_path, served)
    (tmp_path / "tail.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"tail\.onnx: sha256"):
        asyncio.run(serve(ServerConfig(str(tmp_path), insecure=True)))
