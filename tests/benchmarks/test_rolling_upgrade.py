"""Fifty devices while both of their servers are upgraded, one after the other: nothing late, nothing wrong, each frame once."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from injections.machine import CpuWaits
from isthmus.emulation.reports.figure_style import Sheet
from isthmus.models import bundle as bundles

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import rolling_upgrade

DEVICES = 50


@pytest.mark.alone
def test_an_upgrade_of_two_servers_and_of_the_bundle_under_fifty_devices_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling_upgrade, "BEFORE_S", 1.0)
    monkeypatch.setattr(rolling_upgrade, "AFTER_S", 1.0)
    waits = CpuWaits(os.getpid())
    try:
        up = asyncio.run(rolling_upgrade.upgraded(bundles.find("signs"), DEVICES, 1.0, 2.0, tmp_path))
    finally:
        waits.close()
    figures = up.figures()
    assert figures["answered_once"] == figures["frames"] == len(up.ids) > 5 * DEVICES
    assert figures["wrong"] == 0
    blamed = [late for late in up.late if waits.between(late[0], late[2]) < late[2] - late[1]]
    assert not blamed, "late, and the machine did not keep us from its CPUs for so long"
    assert figures["by"]["device"] <= 2 * DEVICES, "one for each device and upgrade of a server at most"
    assert all(figures["by"][f"server {number}"] > 0 for number in (1, 2))
    assert rolling_upgrade.draw(up, Sheet.NARROW).axes
