"""This machine as a device's profile: measured, written, read back, and good for a head that it has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.device import measure
from isthmus.device.sensors import Reading
from isthmus.models import bundle, profiles, work


def test_a_measured_profile_reads_back_and_knows_the_stages(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    command = ["bench", "device", "--bundle", "signs", "--check", "cifar10", "--repeats", "3", "--out", str(out)]
    done = CliRunner().invoke(application(command), command)
    assert done.exit_code == 0, done.output
    assert "predicted / measured - 1 for cifar10" in done.stderr
    mine = profiles.load(str(out))
    assert mine.name == "mine"
    assert all(t.seconds > 0 and t.confidence == "measured" for t in mine.timings)
    assert {r.threads for r in mine.rates} == set(measure.thread_counts())
    assert {"codec_encode_s", "codec_decode_s", "memory_Bps", "peak_memory_bytes"} <= set(mine.observed)
    signs = bundle.load("signs")
    assert len(mine.workloads) == len(signs.manifest.widths) * len(signs.manifest.stages)
    assert all(0 < t < 1 for row in work.stage_times(mine, signs) for t in row)


@pytest.mark.parametrize("shown", [None, 3.0])
def test_power_is_measured_only_where_the_machine_shows_it(shown: float | None) -> None:
    idle = Reading(power_W=shown)
    busy = (Reading(power_W=6.0), Reading(power_W=5.0))
    found = measure.power(idle, busy, source="measured")
    if shown is None:
        assert found is None
    else:
        assert found is not None
        assert (found.idle_W, found.active_W) == (3.0, 5.5)
