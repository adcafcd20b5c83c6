"""A folder of bundles on a real server: what comes, changes and goes while devices are served."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from isthmus.edge_server.admission import Limits
from isthmus.edge_server.repository.loading import Loader
from isthmus.edge_server.streams import Served
from isthmus.edge_server.tail_worker import TailWorker
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2, edge_pb2_grpc
from isthmus.proto.errors import BundleError, ConfigError
from live_server import live
from served_folder_live import PATIENCE_S, STATES, Device, Place, health
from tiny_bundles import hash_of, write_bundle

pytestmark = pytest.mark.usefixtures("at_once", "blameless")


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
