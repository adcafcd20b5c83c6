"""Pushes to a real server with a folder of bundles: who may, what is whole, and what a damaged one leaves: nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.cli.models.push import messages
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.repository import push
from isthmus.edge_server.repository.arrival import PREFIX
from isthmus.edge_server.repository.push import MayPush
from isthmus.edge_server.security import add_device, init, revoke
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2, edge_pb2_grpc
from isthmus.proto.security import channel_credentials
from live_server import live, running
from served_folder_live import Device, Place
from tiny_bundles import hash_of, write_bundle

pytestmark = pytest.mark.usefixtures("at_once", "blameless")


async def pushed(channel: grpc.aio.Channel, folder: Path, version: str = "1") -> edge_pb2.Pushed:
    found = bundles.load(str(folder), half="tail")
    answer: edge_pb2.Pushed = await edge_pb2_grpc.EdgeStub(channel).Push(messages(found, version))
    return answer


async def refused(channel: grpc.aio.Channel, folder: Path, version: str = "1") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pushed(channel, folder, version)
    return caught.value.code(), caught.value.details() or ""


def test_a_pushed_bundle_is_served_when_the_push_is_over(tmp_path: Path, served: Served, frame: Any) -> None:
    place = Place(tmp_path)
    place.may_push(MayPush(anybody=True))
    mine = write_bundle(tmp_path / "mine", served)

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            answer = await pushed(channel, mine)
            assert (answer.name, answer.version, answer.already) == ("tiny", "1", False)
            await (await Device(channel, mine).greeted()).answered(frame(1))
            assert hash_of(place.root / "tiny" / "1") == hash_of(mine)
            assert (await pushed(channel, mine, "2")).already
            assert sorted(path.name for path in place.root.iterdir()) == ["tiny"]
            await asyncio.sleep(0.1)
            assert place.repository.faults == {}

    live(check)


def test_one_of_the_same_name_and_version_is_refused_and_the_first_stays(
    tmp_path: Path, served: Served, frame: Any
) -> None:
    place = Place(tmp_path)
    place.may_push(MayPush(anybody=True))
    first = write_bundle(place.root / "tiny" / "1", served)
    elsewhere = write_bundle(place.root / "other" / "2", served, note="other place")
    second = write_bundle(tmp_path / "second", served, note="second")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            code, why = await refused(channel, second)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert why == "push: tiny/1: is there already, and holds something else; choose another --version"
            code, why = await refused(channel, second, "2")
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "has the name and version of tiny 2" in why
            assert place.offered == {hash_of(first), hash_of(elsewhere)}
            await (await Device(channel, first).greeted()).answered(frame(1))
            assert not (place.root / "tiny" / "2").exists()

    live(check)


def test_only_those_may_push_who_were_named(tmp_path: Path, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certs = tmp_path / "certs"
    init(certs, [])
    for name in ("laptop", "cam0"):
        add_device(certs, name)
    shown = Certificates(certs)
    place = Place(tmp_path)
    place.may_push(MayPush(frozenset({"laptop"})), shown)
    mine = write_bundle(tmp_path / "mine", served)

    def as_(name: str) -> grpc.aio.Channel:
        credentials = channel_credentials(certs / "devices" / name)
        return grpc.aio.secure_channel(address_now[0], credentials, [("grpc.use_local_subchannel_pool", 1)])

    address_now: list[str] = []

    async def check() -> None:
        async with place.serving(shown) as address:
            address_now.append(address)
            async with as_("cam0") as channel:
                code, why = await refused(channel, mine)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert why == (
                "push: 'cam0' may not; start the server with --push-from cam0, or push with a certificate that it names"
            )
            assert not list(place.root.iterdir())
            async with as_("laptop") as channel:
                assert (await pushed(channel, mine)).name == "tiny"
            revoke(certs, "laptop")
            assert shown.look(again=True)
            async with as_("laptop") as channel:
                code, why = await refused(channel, write_bundle(tmp_path / "next", served, note="next"))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "'laptop' is revoked" in why

    live(check)
    assert "push 'cam0' at 127.0.0.1" in caplog.text


@pytest.mark.parametrize("kept", ["alone", "repository"])
def test_a_server_that_takes_no_pushes_says_how_it_would(
    tmp_path: Path, served: Served, engine: Any, kept: str
) -> None:
    mine = write_bundle(tmp_path / "mine", served, note="another")

    async def check() -> None:
        place = Place(tmp_path)
        place.may_push(MayPush())
        service = EdgeService(served, engine) if kept == "alone" else place.service
        async with running(service) as (address, _), grpc.aio.insecure_channel(address) as channel:
            code, why = await refused(channel, mine)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert why.startswith("push: this server takes none; start it with --models DIR and --push-from NAME")

    live(check)


def begin(folder: Path, *, files: list[tuple[str, int]] | None = None) -> edge_pb2.PushMessage:
    names = ("bundle.toml", "tail.onnx")
    said = files if files is not None else [(name, (folder / name).stat().st_size) for name in names]
    parts = [edge_pb2.PushFile(name=name, size_bytes=size) for name, size in said]
    return edge_pb2.PushMessage(begin=edge_pb2.PushBegin(name="tiny", version="1", sha256=hash_of(folder), files=parts))


def data(content: bytes) -> edge_pb2.PushMessage:
    return edge_pb2.PushMessage(data=content)


def test_a_damaged_push_changes_nothing(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "SILENCE_S", 0.3)
    place = Place(tmp_path)
    place.may_push(MayPush(anybody=True))
    mine = write_bundle(tmp_path / "mine", served)
    toml, tail = ((mine / name).read_bytes() for name in ("bundle.toml", "tail.onnx"))
    invalid, failed = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    cases: dict[str, tuple[list[edge_pb2.PushMessage], grpc.StatusCode, str]] = {
        "no beginning": ([data(toml)], invalid, "push: expected its beginning first"),
        "nothing": ([], invalid, "push: expected its beginning first"),
        "two beginnings": ([begin(mine), begin(mine)], invalid, "push: expected data after its beginning"),
        "cut": ([begin(mine), data(toml), data(tail[:10])], invalid, "push: cut after"),
        "too long": ([begin(mine), data(toml + tail + b"x")], invalid, "push: more than the"),
        "wrong bytes": ([begin(mine), data(toml), data(bytes(len(tail)))], failed, "push: tail.onnx: sha256"),
        "another toml": ([begin(mine), data(toml[:-1] + b" " + tail)], failed, "push: bundle.toml: sha256"),
        "a way out": ([begin(mine, files=[("../../x", 3)])], invalid, "push: file '../../x': a plain name"),
        "absolute": ([begin(mine, files=[("/etc/passwd", 3)])], invalid, "push: file '/etc/passwd'"),
        "too large": (
            [begin(mine, files=[("bundle.toml", 1), ("tail.onnx", 1 << 50)])],
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "push: 1125899906842625 bytes, at most 2147483648 are taken",
        ),
    }

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            for sent, code, why in cases.values():
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await edge_pb2_grpc.EdgeStub(channel).Push(iter(sent))
                assert caught.value.code() is code
                assert (caught.value.details() or "").startswith(why)
                await place.until(lambda: not list(place.root.iterdir()))
            call: Any = edge_pb2_grpc.EdgeStub(channel).Push()
            await call.write(begin(mine))  # and then nothing
            with pytest.raises(grpc.aio.AioRpcError, match=r"nothing came for 0\.3 s"):
                await call
            assert place.offered == set()
            assert (await pushed(channel, mine)).name == "tiny"

    live(check)


def test_a_push_that_is_cut_leaves_nothing_and_the_next_one_goes_through(tmp_path: Path, served: Served) -> None:
    place = Place(tmp_path)
    place.may_push(MayPush(anybody=True))
    mine = write_bundle(tmp_path / "mine", served)

    async def check() -> None:
        async with place.serving() as address:
            async with grpc.aio.insecure_channel(address) as channel:
                call: Any = edge_pb2_grpc.EdgeStub(channel).Push()
                await call.write(begin(mine))
                await call.write(data((mine / "bundle.toml").read_bytes()))
                await place.until(lambda: list(place.root.glob(f"{PREFIX}*/bundle/bundle.toml")))
                code, why = await refused(channel, mine)
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert why == "push: another one is under way; try again when it is over"
                call.cancel()
                await place.until(lambda: not list(place.root.iterdir()))
            async with grpc.aio.insecure_channel(address) as channel:
                assert (await pushed(channel, mine)).name == "tiny"

    live(check)
