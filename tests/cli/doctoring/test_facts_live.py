"""What is gathered from real processes, sockets, certificates and a real server."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

import pytest

from isthmus.cli.doctoring import camera, certificates, head, ports, processor, server, storage
from isthmus.device.config import AgentConfig
from isthmus.edge_server import security
from isthmus.edge_server.certificates import Certificates
from isthmus.edge_server.engines import Tail
from isthmus.edge_server.service import EdgeService
from isthmus.edge_server.streams import Served
from isthmus.models import bundle
from isthmus.proto.security import Half
from live_server import live, running


def test_a_module_with_an_illegal_instruction_is_found_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "too_new.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (tmp_path / "unfit.py").write_text("raise ImportError('libfit.so.3: cannot open shared object file')\n")
    monkeypatch.chdir(tmp_path)
    refused, died = processor.loaded(["json", "unfit", "too_new", "csv"])
    assert (refused, died) == ({"unfit": "libfit.so.3: cannot open shared object file"}, ("too_new", 4))


def test_a_damaged_bundle_is_named_and_the_others_are_run_all_the_same(tmp_path: Path) -> None:
    shutil.copytree(bundle.ZOO / "signs", tmp_path / "broken")
    with (tmp_path / "broken/head.tflite").open("ab") as file:
        file.write(b"!")
    seen = head.facts([str(tmp_path / "broken"), "signs"], threads=1, deadline_s=0.1)
    broken, whole = seen.runs
    assert "head.tflite" in broken.error
    assert (whole.error, whole.accelerated) == ("", True)
    assert min(whole.seconds) > 0


def test_an_address_that_is_listened_on_is_taken() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert ports.findings(ports.facts([("page", address)]))[0].level == "failure"
    assert ports.findings(ports.facts([("page", address)]))[0].level == "ok"


def test_the_disks_of_this_machine_are_found(tmp_path: Path) -> None:
    seen = storage.facts(AgentConfig(record=str(tmp_path / "not/yet/there.jsonl")))
    assert [place.key for place, _ in seen.places] == ["disk", "record"]
    assert all(disk.free_bytes > 0 and disk.kind for _, disk in seen.places)


def test_a_source_is_opened_and_its_pictures_are_counted(tmp_path: Path) -> None:
    seen = camera.facts(AgentConfig(source="generated:1"))
    assert (len(seen.times_s), seen.live, seen.size is not None) == (1, False, True)
    assert "no such file" in camera.facts(AgentConfig(source=str(tmp_path / "gone"))).error


def levels(folder: Path, half: Half, host: str | None = None) -> list[tuple[str, str]]:
    return [(f.level, f.detail) for f in certificates.findings(certificates.facts(str(folder), half, host=host))]


def test_files_of_two_authorities_a_missing_name_and_an_open_key_are_found(tmp_path: Path) -> None:
    for name in ("one", "two"):
        security.init(tmp_path / name, ["edge.local"])
    server_side, device_side = tmp_path / "one/server", tmp_path / "one/devices/device"
    assert [level for level, _ in levels(server_side, "server", "edge.local")] == ["ok"]
    assert [level for level, _ in levels(device_side, "device")] == ["ok"]
    assert levels(server_side, "server", "other.local") == [("failure", "do not name other.local")]
    shutil.copy(tmp_path / "two/devices/device/ca.pem", device_side)
    (device_side / "device.key").chmod(0o644)
    (misfit, _), (is_open, _) = levels(device_side, "device")
    assert (misfit, is_open) == ("failure", "warning")
    shutil.copy(tmp_path / "two/devices/device/device.key", device_side)
    assert "do not fit together" in levels(device_side, "device")[0][1]
    (server_side / "server.pem").write_text("nonsense")
    assert levels(server_side, "server")[0][0] == "failure"


def service() -> EdgeService:
    found = bundle.load("signs", half="tail")
    return EdgeService(Served(found.manifest.name, found.sha256, found.codec), Tail(found, 1), max_batch=1)


async def looked_at(config: AgentConfig, address: str) -> server.Facts:
    return await asyncio.to_thread(server.facts, config, address)


def test_a_server_is_described_and_its_link_measured() -> None:
    async def measured() -> None:
        async with running(service()) as (address, _):
            seen = await looked_at(AgentConfig(insecure=True), address)
            assert [f.level for f in server.findings(seen)] == ["ok", "ok"]
            assert seen.described is not None
            assert seen.described.bundles == (("signs", seen.sha256),)
            assert seen.round_trip_s is not None
            alone = await looked_at(AgentConfig(), address)
            assert server.findings(alone)[0].detail == "accepts connections; give --certs or --insecure to hear more"
        assert "refused" in server.unreachable(address)
        assert server.unreachable("nowhere") != ""

    live(measured)


def test_a_revoked_device_is_told_so_and_measures_nothing(tmp_path: Path) -> None:
    security.init(tmp_path / "keys", ["127.0.0.1"])
    shown = Certificates(tmp_path / "keys/server")
    config = AgentConfig(certs=str(tmp_path / "keys"))

    async def refused() -> None:
        this = service()
        async with running(this, shown=shown) as (address, _):
            well = await looked_at(config, address)
            assert (well.refused, well.probed) == ("", True)
            this.revoke(["device"])
            seen = await looked_at(config, address)
            (found,) = server.findings(seen)
            assert "revoked" in found.detail

    live(refused)
