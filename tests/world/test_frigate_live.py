"""Frigate keeps its eyes: whatever becomes of the server, every picture is answered in time, and by a model that saw it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import detectors
from injections.lab import Lab, Role
from injections.machine import CpuWaits
from injections.network import Network
from isthmus.proto import record as records
from world.frigate import PATIENCE_MS, Frigate, Reply

PICTURES = 25
"""Asked about in each state of the server's; the silence that gives a server up lasts a second or so."""


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detectors.bundle(tmp_path_factory.mktemp("eyes"))


class Street:
    """A detector of Isthmus, Frigate in front of it, and what was answered so far."""

    def __init__(self, role: Role) -> None:
        self.role, self._waits = role, (CpuWaits(role.pid), CpuWaits(os.getpid()))
        self.endpoint = role.until(lambda: role.lines and role.lines[0], "it listens").split()[-1]
        self.frigate = Frigate(self.endpoint)
        self._seed = 0

    def look(self) -> str:
        """Ask about one picture: `device` or `server`; fails where a box is missing, wrong, or late."""
        self._seed += 1
        pixels, seen = detectors.scene(self._seed)
        reply = self.frigate.ask(pixels)
        self._check_time(reply)
        found = reply.rows[reply.rows[:, 1] > 0]
        sides = (found[:, 4] - found[:, 2]).max(initial=0)
        assert {int(row[0]) for row in found} == {label for label, _, _ in seen}, (
            "a picture was answered wrong, or empty"
        )
        assert len(found) == len(seen)
        return "device" if abs(sides - detectors.DEVICE_SIDE) < abs(sides - detectors.SERVER_SIDE) else "server"

    def _check_time(self, reply: Reply) -> None:
        """What the machine made either process wait for a CPU is none of ours."""
        held_s = sum(waits.between(reply.began_s, reply.ended_s) for waits in self._waits)
        took_s = reply.ended_s - reply.began_s - held_s
        assert took_s <= PATIENCE_MS / 1e3, (
            f"a reply after {took_s * 1e3:.0f} ms, without {held_s * 1e3:.0f} ms of waiting"
        )

    def looks(self, count: int = PICTURES) -> list[str]:
        """Several pictures, one after the other."""
        return [self.look() for _ in range(count)]

    def until_server(self) -> None:
        """Look until the server answers again."""
        self.role.until(lambda: self.look() == "server", "the server answers")

    def close(self) -> None:
        """Hang up."""
        self.frigate.close()
        for waits in self._waits:
            waits.close()


@contextlib.contextmanager
def street(
    lab: Lab, eyes: Path, listen: str, server: str | None, *more: str, prefix: list[str] | None = None
) -> Iterator[Street]:
    how = [*more, *(["--server", server, "--insecure", "--policy", "always-offload"] if server else [])]
    made = Street(lab.role("frigate", "--bundle", str(eyes), "--listen", listen, *how, prefix=prefix or []))
    with contextlib.closing(made):
        yield made
        assert made.role.end() == 0, made.role.last_words


def test_frigate_asks_for_its_model_then_for_boxes_and_is_never_left_without(
    lab: Lab, eyes: Path, tmp_path: Path
) -> None:
    record = tmp_path / "street.jsonl"
    with street(lab, eyes, "tcp://127.0.0.1:*", None, "--record", str(record)) as alone:
        assert alone.frigate.model_is_there()
        assert set(alone.looks()) == {"device"}
        _, rows = alone.frigate.said(b'{"shape": [1, 4, 4, 7], "dtype": "uint8"}', bytes(112))
        assert not np.frombuffer(rows, np.float32).any()
        alone.frigate.said(b"no JSON", b"")
        alone.frigate.said(b"")
        Frigate(alone.endpoint).give_up(detectors.scene(0)[0])
        assert alone.look() == "device"
    assert "asks for its model 'yolo.onnx'" in alone.role.log
    assert f"{PICTURES + 2} pictures answered: {PICTURES + 2} by the device" in alone.role.log
    assert "set Frigate's input_tensor to nhwc" in alone.role.log
    assert [row.picture for row in records.load(record).records] == [
        f"request {number}" for number in range(PICTURES + 2)
    ]


def test_a_server_that_freezes_dies_and_comes_back_costs_frigate_nothing(lab: Lab, eyes: Path, tmp_path: Path) -> None:
    server = lab.server(bundle=str(eyes))
    with street(lab, eyes, f"ipc://{tmp_path}/eyes", server.address) as asked:
        asked.until_server()
        server.signal(signal.SIGSTOP)
        assert "device" in asked.looks()
        server.signal(signal.SIGCONT)
        asked.until_server()
        server.kill()
        assert set(asked.looks()[1:]) == {"device"}
        lab.server(bundle=str(eyes), listen=server.address)
        asked.until_server()


def test_a_link_that_is_cut_costs_frigate_nothing(lab: Lab, net: Network, eyes: Path, tmp_path: Path) -> None:
    server = lab.server(bundle=str(eyes), listen=f"{net.server}:0")
    with street(lab, eyes, f"ipc://{tmp_path}/eyes", server.address, prefix=net.on_device) as asked:
        asked.until_server()
        net.drop()
        assert "device" in asked.looks()
        net.pass_on()
        asked.until_server()
