"""Injections of a folder of bundles: what comes, changes and goes while devices are served, and who pushes what."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from injections import tails
from injections.invariants import invariants, opened, quiet
from injections.lab import Lab, Server
from isthmus.cli.models.push import messages
from isthmus.edge_server.repository.catalogue import SETTLE_S
from isthmus.models import bundle as bundles
from isthmus.proto import edge_pb2, edge_pb2_grpc

ROOM_BYTES = 128 << 20
"""What a server may take for two more tails while it runs."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of bundles with one in it."""
    shutil.copytree(bundles.find("signs"), tmp_path / "models" / "signs")
    return tmp_path / "models"


def said(server: Server, words: str) -> None:
    """Wait for a line of the server's log."""
    server.until(lambda: words in server.log, words)


def pushing(lab: Lab, bundle: str, server: Server, *more: str) -> tuple[int, str]:
    """`isthmus models push`, to its end: its exit code, and all that it said."""
    done = lab.run("models", "push", bundle, server.address, *more)
    return done.process.returncode, "".join(done.lines) + done.log


def test_reload_under_load(lab: Lab, models: Path) -> None:
    """A bundle is replaced while its devices and another's are served, and one in use is deleted: nobody notices."""
    shutil.copytree(bundles.find("cifar10"), models / "cifar10")
    server = lab.server("--models", str(models))
    old = lab.agent(server.address, fps=10)
    other = lab.agent(server.address, bundle="cifar10", client_id="cam1", fps=10)
    for agent in (old, other):
        agent.answered_by("server", 5)
    replacement = tails.bundle(lab.folder / "new", tails.biased(5))
    (models / "signs").rename(lab.folder / "aside")
    shutil.copytree(replacement, models / "signs")
    said(server, "in the place of signs")
    new = lab.agent(server.address, bundle=replacement, client_id="cam2", fps=10)
    for agent in (old, other, new):
        agent.answered_by("server", 10)
    shutil.rmtree(models / "cifar10")
    said(server, "its folder is gone; devices that have it keep it")
    for agent in (old, other, new):
        agent.answered_by("server", 10)
        assert agent.connections == 1
    other.judged_by, new.judged_by = "cifar10", replacement
    invariants([old, other, new], [server], growth_bytes=ROOM_BYTES)


def test_what_is_wrong_in_the_folder(lab: Lab, models: Path) -> None:
    """A bundle half-copied, one replaced by a damaged one, two of one name: said once each, and what was there is served."""
    server = lab.server("--models", str(models))
    agent = lab.agent(server.address, fps=10)
    agent.answered_by("server", 5)
    source, half = bundles.find("cifar10"), models / "cifar10"
    half.mkdir()
    for name in ("bundle.toml", "bundle.sha256", "head.tflite"):
        shutil.copy(source / name, half)
    with (half / "tail.onnx").open("wb") as file:
        for part in (b"the", b" first", b" bytes"):
            file.write(part)
            file.flush()
            time.sleep(SETTLE_S / 2)
    assert "cifar10" not in server.log, "while it is being copied it is nobody's business"
    said(server, "cifar10: not served: ")
    (models / "signs" / "tail.onnx").write_bytes(b"damaged")
    said(server, "signs: not served: ")
    tails.bundle(models / "signs-new", tails.biased(5))
    said(server, "has the name and version of signs")
    shutil.copy(source / "tail.onnx", half)
    said(server, "I isthmus.edge_server.repository.repository: cifar10")
    agent.answered_by("server", 10)
    newcomer = lab.agent(server.address, bundle="cifar10", client_id="cam1", fps=10)
    newcomer.answered_by("server", 5)
    newcomer.judged_by = "cifar10"
    assert server.log.count("not served") == 3
    assert server.log.count("stays") == 2
    invariants([agent, newcomer], [server], growth_bytes=ROOM_BYTES)


def test_pushes(lab: Lab, models: Path) -> None:
    """Somebody pushes who may not; one is cut, one is of a name and version that is taken: nothing changes by any of them."""
    keys = lab.folder / "keys"
    for arguments in (("init", str(keys)), ("add-device", "laptop", "--certs", str(keys))):
        assert lab.run("certs", *arguments).process.returncode == 0
    laptop, device = (str(keys / "devices" / name) for name in ("laptop", "device"))
    server = lab.server("--models", str(models), "--certs", str(keys), "--push-from", "laptop")
    agent = lab.agent(server.address, "--certs", str(keys), client_id="device", fps=10)
    agent.answered_by("server", 5)
    code, told = pushing(lab, "cifar10", server, "--certs", device)
    assert code == 9
    assert "push: 'device' may not; start the server with --push-from device" in told

    def half(found: bundles.Bundle) -> Iterator[edge_pb2.PushMessage]:
        said_and_sent = messages(found, "1")
        yield next(said_and_sent)
        yield next(said_and_sent)
        time.sleep(0.5)
        channel.close()
        yield from said_and_sent

    server.certs = Path(laptop)
    with opened(server) as channel, pytest.raises((grpc.RpcError, ValueError)):
        edge_pb2_grpc.EdgeStub(channel).Push(half(bundles.load("cifar10")))
    server.until(lambda: sorted(path.name for path in models.iterdir()) == ["signs"], "nothing is left of it")
    code, told = pushing(lab, "cifar10", server, "--certs", laptop, "--version", "1")
    assert code == 0, told
    assert "cifar10 1 is served" in told
    other = tails.bundle(lab.folder / "other", tails.biased(5))
    assert pushing(lab, other, server, "--certs", laptop, "--version", "1")[0] == 0, "another name"
    third = tails.bundle(lab.folder / "third", tails.biased(6))
    code, told = pushing(lab, third, server, "--certs", laptop, "--version", "1")
    assert code == 4
    assert "push: signs/1: is there already, and holds something else; choose another --version" in told
    agent.answered_by("server", 10)
    invariants([agent], [server], growth_bytes=ROOM_BYTES)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for two bundles, and little more."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system of its own: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_push_on_a_full_disk(lab: Lab, small: Path) -> None:
    """The disk has too little room for a push, or fills up under it: refused, nothing is left, and the next one goes through."""
    shutil.copytree(bundles.find("signs"), small / "signs", ignore=shutil.ignore_patterns("*.png", "inputs.npz"))
    server = lab.server("--models", str(small), "--push")
    agent = lab.agent(server.address, fps=10)
    agent.answered_by("server", 5)
    filler = small / "filler"
    filler.write_bytes(bytes(8 << 20))
    code, told = pushing(lab, "cifar10", server, "--insecure")
    assert code == 5
    assert "are free on the server's disk; make room there" in told
    filler.unlink()

    def slowly(found: bundles.Bundle) -> Iterator[edge_pb2.PushMessage]:
        sent = messages(found, "1")
        yield from (next(sent) for _ in range(3))
        server.until(lambda: list(small.glob(".push-*/bundle/*")), "it has begun")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        yield from sent

    with opened(server) as channel, pytest.raises(grpc.RpcError) as caught:
        edge_pb2_grpc.EdgeStub(channel).Push(slowly(bundles.load("cifar10")))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "No space left on device" in (caught.value.details() or "")
    filler.unlink()
    server.until(lambda: sorted(path.name for path in small.iterdir()) == ["signs"], "nothing is left of it")
    assert pushing(lab, "cifar10", server, "--insecure")[0] == 0
    agent.answered_by("server", 5)
    invariants([agent], [server], growth_bytes=ROOM_BYTES)


def test_more_bundles_than_tails(lab: Lab, models: Path) -> None:
    """Memory is for one tail: it changes from bundle to bundle as devices come and go; whoever finds none answers himself."""
    shutil.copytree(bundles.find("cifar10"), models / "cifar10")
    server = lab.server("--models", str(models), "--max-tails", "1")
    for name in ("signs", "cifar10"):
        visitor = lab.agent(server.address, bundle=name, fps=10)
        visitor.answered_by("server", 3)
        assert visitor.end() == 0
    staying = lab.agent(server.address, fps=10)
    staying.answered_by("server", 3)
    refused = lab.agent(server.address, bundle="cifar10", client_id="cam1", fps=10)
    refused.until(lambda: "max_tails = 1" in refused.log, "it is told why")
    refused.answered_by("exit", 5)
    assert staying.end() == 0
    refused.answered_by("server", 3)
    refused.judged_by = "cifar10"
    assert server.log.count("its tail is let go") == 4
    invariants([refused], [server], growth_bytes=ROOM_BYTES)
    quiet(staying)
