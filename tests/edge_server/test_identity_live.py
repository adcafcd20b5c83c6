"""Real TLS: who gets in, as whom, and what changes while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from msgspec.structs import replace

from isthmus.edge_server import security
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.certificates import REVOKED, Certificates
from isthmus.edge_server.security import add_device, init, revoke
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.proto import edge_pb2_grpc, wire
from isthmus.proto import messages as m
from isthmus.proto.security import SHARED_NAME, channel_credentials, part, read
from live_server import live, running

PATIENCE_S = 30.0


class Visit:
    """A device's stream over a connection of its own."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials) -> None:
        # A channel with the options of another would share its connection, and so its certificate of then.
        self._channel = grpc.aio.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self._call = edge_pb2_grpc.EdgeStub(self._channel).Stream()

    async def hello(self, hello: m.Hello) -> grpc.StatusCode | None:
        """None when it is welcome, else why not."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(wire.to_device_pb(hello))
            if isinstance(wire.from_server_pb(await self._call.read()), m.Welcome):
                return None
        code: grpc.StatusCode = await self._call.code()
        return code

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await asyncio.wait_for(self._call.read(), PATIENCE_S) is not grpc.aio.EOF:
                pass
        return await self._call.code(), await self._call.details() or ""

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()


async def said(address: str, credentials: grpc.ChannelCredentials, hello: m.Hello) -> grpc.StatusCode | None:
    visit = Visit(address, credentials)
    try:
        return await visit.hello(hello)
    finally:
        await visit.close()


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    init(tmp_path / "certs", [])
    add_device(tmp_path / "certs", "cam0")
    return tmp_path / "certs"


@pytest.fixture
def service(served: Served, engine: Any) -> EdgeService:
    return EdgeService(served, engine, limits=Limits(streams=2))


def of(certs: Path, name: str) -> grpc.ChannelCredentials:
    return channel_credentials(certs / "devices" / name)


def test_only_our_authoritys_devices_get_in_and_only_under_their_name(
    service: EdgeService, hello: m.Hello, certs: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    init(theirs, [])
    authority, certificate, key = read(certs, "server")

    async def check() -> None:
        async with running(service, shown=Certificates(certs)) as (address, _):
            assert await said(address, of(certs, "cam0"), hello) is None
            assert await said(address, channel_credentials(certs), replace(hello, client_id="device")) is None
            assert await said(address, of(certs, "device"), hello) is grpc.StatusCode.FAILED_PRECONDITION
            nobody = grpc.ssl_channel_credentials(authority)
            swapped = grpc.ssl_channel_credentials(authority, key, certificate)
            for stranger in (channel_credentials(theirs), nobody, swapped):
                assert await said(address, stranger, hello) is grpc.StatusCode.UNAVAILABLE

    live(check)


def test_one_certificate_has_one_stream_its_newest(service: EdgeService, hello: m.Hello, certs: Path) -> None:
    """Sixty-four streams of one certificate once took every place."""

    async def check() -> None:
        async with running(service, shown=Certificates(certs)) as (address, _):
            visits = [Visit(address, of(certs, "cam0")) for _ in range(6)]
            for visit in visits:
                assert await visit.hello(hello) is None
            for visit in visits[:-1]:
                code, why = await visit.ending()
                assert code is grpc.StatusCode.ABORTED
                assert why.startswith("another stream of 'cam0' came from 127.0.0.1; each device needs its own")
            assert await said(address, of(certs, "device"), replace(hello, client_id="device")) is None
            for visit in visits:
                await visit.close()

    live(check)


def test_a_revoked_device_is_put_out_and_stays_out(
    service: EdgeService, hello: m.Hello, certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def check() -> None:
        async with running(service, shown=Certificates(certs)) as (address, _):
            visit = Visit(address, of(certs, "cam0"))
            assert await visit.hello(hello) is None
            revoke(certs, "cam0")
            code, why = await visit.ending()
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert why.startswith("certificate 'cam0': revoked")
            await visit.close()
            assert await said(address, of(certs, "cam0"), hello) is grpc.StatusCode.PERMISSION_DENIED
            assert await said(address, of(certs, "device"), replace(hello, client_id="device")) is None

    live(check)
    assert "'cam0' at 127.0.0.1" in caplog.text
    assert "closed: revoked: certificate 'cam0'" in caplog.text


def test_a_server_knows_the_list_from_its_start(service: EdgeService, hello: m.Hello, certs: Path) -> None:
    revoke(certs, "cam0")

    async def check() -> None:
        async with running(service, shown=Certificates(certs)) as (address, _):
            assert await said(address, of(certs, "cam0"), hello) is grpc.StatusCode.PERMISSION_DENIED

    live(check)


def copy(source: Path, target: Path, *names: str) -> None:
    for name in names:
        shutil.copy(source / name, target / name)


def test_new_certificates_are_taken_up_without_a_restart(
    service: EdgeService, hello: m.Hello, certs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even half-copied ones do no harm, and whoever is connected stays so."""
    theirs = tmp_path / "theirs"
    init(theirs, [])
    add_device(theirs, "cam0")
    old, new = of(certs, "cam0"), of(theirs, "cam0")
    first = replace(hello, client_id="device")

    async def check() -> None:
        async with running(service, shown=Certificates(certs)) as (address, _):
            connected = Visit(address, of(certs, "device"))
            assert await connected.hello(first) is None
            copy(theirs / "server", certs / "server", "server.pem")
            while "does not belong to server.key" not in caplog.text:
                await asyncio.sleep(0.05)
            assert await said(address, old, hello) is None
            copy(theirs / "server", certs / "server", "server.key", "ca.pem")
            while await said(address, new, hello) is not None:
                await asyncio.sleep(0.05)
            assert await said(address, old, hello) is grpc.StatusCode.UNAVAILABLE
            await connected._call.write(wire.to_device_pb(m.Heartbeat(7)))
            heard = wire.from_server_pb(await connected._call.read())
            assert isinstance(heard, m.ServerHeartbeat)
            assert heard.sequence == 7
            await connected.close()

    live(check)


def test_a_hangup_reads_the_files_anew_and_ends_nothing(
    service: EdgeService, hello: m.Hello, certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def check() -> None:
        async with running(service, shown=Certificates(certs)) as (address, _):
            os.kill(os.getpid(), signal.SIGHUP)
            while "read anew" not in caplog.text:
                await asyncio.sleep(0.05)
            assert await said(address, of(certs, "cam0"), hello) is None

    live(check)


def test_a_folder_of_before_still_serves(
    service: EdgeService, hello: m.Hello, certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one, one certificate for all devices, whose client ids are what they say."""
    monkeypatch.setattr(security, "NAME", re.compile(".*"))
    add_device(certs, SHARED_NAME)
    flat = tmp_path / "flat"
    flat.mkdir()
    copy(certs / "ca", flat, "ca.pem", "ca.key")
    copy(certs / "server", flat, "server.pem", "server.key")
    copy(certs / "devices" / SHARED_NAME, flat, "device.pem", "device.key")
    add_device(flat, "cam1")

    async def check() -> None:
        async with running(service, shown=Certificates(flat)) as (address, _):
            visits = [Visit(address, channel_credentials(flat)) for _ in range(2)]
            assert [await visit.hello(hello) for visit in visits] == [None, None]
            revoke(flat, SHARED_NAME)
            for visit in visits:
                assert (await visit.ending())[0] is grpc.StatusCode.PERMISSION_DENIED
                await visit.close()
            assert await said(address, of(flat, "cam1"), replace(hello, client_id="cam1")) is None

    live(check)
    assert (flat / REVOKED).read_text() == f"{SHARED_NAME}\n"
    assert part(flat, "server") == part(flat, "device") == flat
