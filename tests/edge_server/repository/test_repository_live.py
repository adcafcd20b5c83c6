"""A folder of bundles on a real server: what comes, changes and goes while devices are served; and who may push."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from isthmus.cli.models.push import messages
from isthmus.edge_server.admission import Limits
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.repository import catalogue, push, repository
from isthmus.edge_server.repository.arrival import PREFIX
from isthmus.edge_server.repository.loading import Loader
from isthmus.edge_server.repository.push import MayPush, Receiver
from isthmus.edge_server.repository.repository import Repository
from isthmus.edge_server.security import add_device, init, revoke
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.edge_server.tail_worker import TailWorker
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2, edge_pb2_grpc, wire
from isthmus.proto import messages as m
from isthmus.proto.codec import CODEC_VERSION
from isthmus.proto.errors import BundleError, ConfigError
from isthmus.proto.security import channel_credentials
from live_server import live, running
from tiny_bundles import hash_of, write_bundle

PATIENCE_S = 30.0
STATES = health_pb2.HealthCheckResponse


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "LOOK_S", 0.02)
    monkeypatch.setattr(catalogue, "SETTLE_S", 0.0)


@pytest.fixture(autouse=True)
def blameless(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that is done to a folder, or said by whoever pushes, leaves a traceback."""
    caplog.set_level("INFO")
    yield
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


class Place:
    """A server with a folder of bundles."""

    def __init__(self, tmp_path: Path, limits: Limits | None = None) -> None:
        self.root, self.copies = tmp_path / "models", tmp_path / "copies"
        self.root.mkdir(exist_ok=True)
        self.service = EdgeService(limits=limits or Limits())
        loader = Loader(1, "onnx", 2, self.service.max_message_bytes, self.copies)
        self.repository = Repository(self.root, self.service, loader)

    @contextlib.asynccontextmanager
    async def serving(self, shown: Certificates | None = None) -> AsyncIterator[str]:
        await self.repository.begin()
        async with running(self.service, shown=shown, repository=self.repository) as (address, _):
            yield address

    def may_push(self, may: MayPush, shown: Certificates | None = None) -> None:
        revoked = (lambda: shown.revoked) if shown is not None else (lambda: frozenset[str]())
        self.service.on_push = Receiver(self.repository, may, revoked).receive

    async def until(self, condition: Any) -> None:
        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), PATIENCE_S)

    @property
    def offered(self) -> set[bytes]:
        return {served.sha256 for served in self.service.offered}

    def count(self, state: str) -> float | None:
        return self.service.metrics.registry.get_sample_value("isthmus_bundles", {"state": state})


class Device:
    """A stream with one bundle."""

    def __init__(self, channel: grpc.aio.Channel, folder: Path) -> None:
        self._call: Any = edge_pb2_grpc.EdgeStub(channel).Stream()
        self._hello = m.Hello("tiny", hash_of(folder), CODEC_VERSION, "cam0")

    async def greeted(self) -> Device:
        await self._call.write(wire.to_device_pb(self._hello))
        assert isinstance(await self.hear(), m.Welcome)
        return self

    async def hear(self) -> m.ServerMessage:
        return wire.from_server_pb(await asyncio.wait_for(self._call.read(), PATIENCE_S))

    async def answered(self, layers: tuple[m.Layer, ...]) -> None:
        for layer in layers:
            await self._call.write(wire.to_device_pb(layer))
        while not isinstance(message := await self.hear(), m.Result):
            assert isinstance(message, m.Ack)
        assert message.frame_id == layers[0].frame_id

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(wire.to_device_pb(self._hello))
            while await asyncio.wait_for(self._call.read(), PATIENCE_S) is not grpc.aio.EOF:
                pass
        return await self._call.code(), await self._call.details()

    async def leave(self) -> None:
        await self._call.done_writing()
        assert await self._call.code() is grpc.StatusCode.OK


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub  # its published types know no methods
    return int((await stub(channel).Check(health_pb2.HealthCheckRequest(service=service))).status)


def test_every_bundle_is_served_and_spoken_for(tmp_path: Path, served: Served, frame: Any) -> None:
    place = Place(tmp_path)
    folders = [
        write_bundle(place.root / "signs", served, name="signs"),
        write_bundle(place.root / "birds" / "1", served, name="birds", note="1"),
        write_bundle(place.root / "birds" / "2", served, name="birds", note="2"),
    ]

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            devices = [await Device(channel, folder).greeted() for folder in folders]
            for device in devices:
                await device.answered(frame(1))
            said = await edge_pb2_grpc.EdgeStub(channel).Describe(edge_pb2.DescribeRequest())
            assert (said.bundle_name, said.bundle_sha256) == ("", b"")
            rows = {(b.name, b.version, b.loaded, b.serving, b.streams): b.sha256 for b in said.bundles}
            assert rows == {
                ("signs", "", True, True, 1): hash_of(folders[0]),
                ("birds", "1", True, True, 1): hash_of(folders[1]),
                ("birds", "2", True, True, 1): hash_of(folders[2]),
            }
            assert said.bundles[0].load.tail_us > 0
            for name in ("", "isthmus.v1.Edge", "isthmus.v1.Edge/signs", "isthmus.v1.Edge/birds"):
                assert await health(channel, name) == STATES.SERVING
            assert place.count("offered") == place.count("loaded") == 3

    live(check)


def test_an_empty_folder_is_served_and_its_health_says_so(tmp_path: Path, served: Served) -> None:
    place = Place(tmp_path)

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            assert await health(channel) == STATES.NOT_SERVING
            write_bundle(place.root / "signs", served, name="signs")
            await place.until(lambda: place.offered)
            assert await health(channel) == STATES.SERVING
            assert await health(channel, "isthmus.v1.Edge/signs") == STATES.SERVING
            shutil.rmtree(place.root / "signs")
            await place.until(lambda: not place.offered)
            while await health(channel) != STATES.NOT_SERVING:
                await asyncio.sleep(0.01)
            assert await health(channel, "isthmus.v1.Edge/signs") == STATES.SERVICE_UNKNOWN

    live(check)


def test_a_folder_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.root.rmdir()
    with pytest.raises(BundleError, match="models: No such file or directory; --models names a folder of bundles"):
        live(place.repository.begin)


def test_an_engine_that_there_is_not_is_no_bundles_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="engine = 'abacus'; known: onnx, litert"):
        Loader(1, "abacus", 2, 1, tmp_path)


def test_a_reload_leaves_those_alone_who_have_the_old(tmp_path: Path, served: Served, frame: Any) -> None:
    place = Place(tmp_path)
    signs = write_bundle(place.root / "signs", served)
    old = shutil.copytree(signs, tmp_path / "old")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            device = await Device(channel, old).greeted()
            await device.answered(frame(1))
            write_bundle(signs, served, note="new")
            await place.until(lambda: place.offered == {hash_of(signs)})
            await device.answered(frame(2))
            other = await Device(channel, signs).greeted()
            await other.answered(frame(1))
            await (await Device(channel, old).greeted()).answered(frame(1))  # one that had lost its connection
            assert place.count("loaded") == 2

    live(check)


def test_a_reload_that_fails_keeps_the_old(
    tmp_path: Path, served: Served, frame: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path)
    signs = write_bundle(place.root / "signs", served)
    old = shutil.copytree(signs, tmp_path / "old")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            (signs / "tail.onnx").write_bytes(b"damaged")
            await place.until(lambda: place.repository.faults)
            assert place.count("failed") == 1
            await (await Device(channel, old).greeted()).answered(frame(1))
            assert await health(channel) == STATES.SERVING
            await asyncio.sleep(0.2)  # looks that find nothing new
            shutil.copy(old / "tail.onnx", signs)
            await place.until(lambda: not place.repository.faults)
            assert place.count("failed") == 0

    live(check)
    (line,) = (record.getMessage() for record in caplog.records if "not served" in record.getMessage())
    assert "signs/tail.onnx: sha256" in line
    assert line.endswith("stays")


def test_a_version_in_use_that_is_deleted_is_served_on(tmp_path: Path, served: Served, frame: Any) -> None:
    """Also where its tail hangs, and another thread loads it again."""
    place = Place(tmp_path)
    signs = write_bundle(place.root / "signs", served)
    old = shutil.copytree(signs, tmp_path / "old")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            device = await Device(channel, old).greeted()
            await device.answered(frame(1))
            shutil.rmtree(signs)
            await place.until(lambda: not place.offered)
            await device.answered(frame(2))
            runner = place.service._tails[hash_of(old)]
            assert isinstance(runner._worker, TailWorker)
            another = runner._worker._another
            assert another is not None
            another().run([])  # its files are still there
            await device.answered(frame(3))
            assert list(place.copies.iterdir()) == [place.copies / hash_of(old).hex()]

    live(check)


def test_a_tail_is_loaded_when_it_is_asked_for_and_the_least_used_leaves(
    tmp_path: Path, served: Served, frame: Any
) -> None:
    place = Place(tmp_path, Limits(tails=1))
    first = write_bundle(place.root / "a", served, name="a")
    second = write_bundle(place.root / "b", served, name="b")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            assert place.service.loaded == {hash_of(first)}
            engine = weakref.ref(place.service._tails[hash_of(first)]._worker._engine)
            for folder in (second, first, second):
                device = await Device(channel, folder).greeted()
                await device.answered(frame(1))
                assert place.service.loaded == {hash_of(folder)}
                other = second if folder == first else first
                code, why = await Device(channel, other).refusal()
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert why == "edge: 1 tails are in use, max_tails = 1"
                await device.leave()
                await place.until(lambda: place.service._streams.count == 0)
            gc.collect()
            assert engine() is None, "what has left takes no memory"

    live(check)


def test_whoever_has_a_tail_does_not_wait_for_one_that_is_loaded(
    tmp_path: Path, served: Served, frame: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, Limits(tails=2))
    folders = [write_bundle(place.root / name, served, name=name) for name in ("a", "b", "c")]
    gate, again = threading.Event(), Loader.again

    def slow(loader: Loader, served: Served) -> Any:
        assert gate.wait(PATIENCE_S)
        return again(loader, served)

    monkeypatch.setattr(Loader, "again", slow)

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            quick = await Device(channel, folders[0]).greeted()
            waiting = asyncio.create_task(Device(channel, folders[2]).greeted())
            for frame_id in range(20):
                await quick.answered(frame(frame_id))
            assert not waiting.done()
            gate.set()
            await (await waiting).answered(frame(1))

    live(check)


def test_a_tail_that_cannot_be_loaded_again_sends_its_device_away(
    tmp_path: Path, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(tmp_path, Limits(tails=1))
    write_bundle(place.root / "a", served, name="a")
    second = write_bundle(place.root / "b", served, name="b")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            shutil.rmtree(place.copies / hash_of(second).hex())
            code, why = await Device(channel, second).refusal()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert why == "hello: bundle b: cannot be loaded now, see the server's log"

    live(check)
    assert "not loaded" in caplog.text


def test_nothing_is_loaded_that_is_served_already_or_would_not_be(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, load, loaded = Place(tmp_path), Loader.load, []
    signs = write_bundle(place.root / "signs", served)

    def counting(loader: Loader, found: bundles.Bundle, version: str) -> Any:
        loaded.append(found.sha256)
        return load(loader, found, version)

    monkeypatch.setattr(Loader, "load", counting)

    async def check() -> None:
        async with place.serving():
            (signs / "notes.txt").write_text("changed, and yet the same bundle")
            shutil.copytree(signs, place.root / "copy")
            write_bundle(place.root / "clash", served, note="another of this name")
            await place.until(lambda: list(place.repository.faults) == ["clash"])
            await asyncio.sleep(0.1)
            assert loaded == [hash_of(signs)]

    live(check)


def test_a_folder_that_cannot_be_read_takes_nothing_with_it(
    tmp_path: Path, served: Served, frame: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is unmounted for a while."""
    place = Place(tmp_path)
    signs = write_bundle(place.root / "signs", served)
    old = shutil.copytree(signs, tmp_path / "old")

    async def check() -> None:
        async with place.serving() as address, grpc.aio.insecure_channel(address) as channel:
            place.root.rename(tmp_path / "away")
            await place.until(lambda: "what is served stays" in caplog.text)
            await asyncio.sleep(0.1)
            await (await Device(channel, old).greeted()).answered(frame(1))
            (tmp_path / "away").rename(place.root)
            await asyncio.sleep(0.1)
            assert place.offered == {hash_of(old)}

    live(check)
    assert caplog.text.count("what is served stays") == 1


def test_a_bundle_whose_layers_are_too_long_for_a_repository_is_refused(tmp_path: Path, served: Served) -> None:
    place = Place(tmp_path)
    write_bundle(place.root / "signs", served)
    place.repository._loader = Loader(1, "onnx", 2, 100, place.copies)
    live(place.repository.begin)
    assert "a repository's server takes 100; serve it alone, with --bundle" in place.repository.faults["signs"]


def test_a_bundle_without_a_name_or_a_file_is_refused(tmp_path: Path, served: Served) -> None:
    place = Place(tmp_path)
    write_bundle(place.root / "nameless", served, name="")
    (place.root / "folder" / "bundle.toml").mkdir(parents=True)
    live(place.repository.begin)
    assert place.offered == set()
    assert "name: is empty" in place.repository.faults["nameless"]
    assert "bundle.toml: not a file that can be read" in place.repository.faults["folder"]


# Pushes.


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
