"""A service manager's socket: what it is told, and that nobody is told where there is none."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from isthmus.proto.operations.notify import ServiceManager


def heard(listening: socket.socket) -> list[str]:
    listening.setblocking(False)
    said = []
    while True:
        try:
            said.append(listening.recv(4096).decode())
        except BlockingIOError:
            return said


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_alive_and_stopping_are_told(abstract: bool, tmp_path: Path) -> None:
    name = f"@isthmus-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": "7"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if abstract else name)

        async def live() -> None:
            manager = ServiceManager.of_environment(environ, pid=7)
            manager.ready("well")
            while "WATCHDOG=1" not in (said := heard(listening)):
                pass
            assert said[0] == "READY=1\nSTATUS=well"
            listening.setblocking(True)
            await asyncio.wait_for(asyncio.to_thread(listening.recv, 99), 10)  # the next sign of life
            manager.stopping()
            manager.close()
            assert heard(listening)[-1].startswith("STOPPING=1\n")

        asyncio.run(live())


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "nonsense"},
    ],
)
def test_nobody_who_listens_is_no_reason_to_fail(environ: dict[str, str]) -> None:
    async def live() -> None:
        manager = ServiceManager.of_environment(environ, pid=7)
        manager.ready("well")
        manager.stopping()
        manager.close()

    asyncio.run(live())


def test_a_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000", "WATCHDOG_PID": "8"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(environ["NOTIFY_SOCKET"])

        async def live() -> None:
            ServiceManager.of_environment(environ, pid=7).ready("well")
            await asyncio.sleep(0.05)

        asyncio.run(live())
        assert heard(listening) == ["READY=1\nSTATUS=well"]
