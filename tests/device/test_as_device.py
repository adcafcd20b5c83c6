"""A head that takes another machine's time, and this machine's answers."""

from __future__ import annotations

import logging

import pytest

from isthmus.device.as_device import PacedExecutor
from isthmus.device.config import AgentConfig
from isthmus.device.executor import Executor
from isthmus.device.run import open_device
from isthmus.models import bundle, profiles, work
from isthmus.models.scenes import Drive
from isthmus.proto.errors import ConfigError


@pytest.fixture(scope="module")
def signs() -> bundle.Bundle:
    return bundle.load("signs")


def test_each_stage_takes_what_it_is_told_and_answers_what_it_would(signs: bundle.Bundle) -> None:
    plain = Executor(signs)
    stretched = PacedExecutor(signs, {(i, w): 0.05 * (i + 1) for i in (0, 1) for w in signs.manifest.widths})
    for executor in (plain, stretched):
        executor.hold(0, Drive(3).frame(0).image)
    for stage in (0, 1):
        mine, other = plain.job(0, stage, 1.0)(), stretched.job(0, stage, 1.0)()
        assert (other.guess, other.layer_bytes) == (mine.guess, mine.layer_bytes)
        assert other.compute_s >= 0.05 * (stage + 1)
    assert plain.encode(0, 0, 0) == stretched.encode(0, 0, 0)


def test_a_machine_that_is_slower_says_so_once(signs: bundle.Bundle, caplog: pytest.LogCaptureFixture) -> None:
    hurried = PacedExecutor(signs, dict.fromkeys([(0, 1.0)], 1e-9))
    hurried.hold(0, Drive(3).frame(0).image)
    with caplog.at_level(logging.WARNING, logger="isthmus.device.stretch"):
        assert [hurried.job(0, 0, 1.0)().compute_s > 1e-9 for _ in range(3)] == [True] * 3
    assert [record.getMessage().startswith("stage 0 took") for record in caplog.records] == [True]


def test_an_agent_is_told_by_its_configuration(signs: bundle.Bundle) -> None:
    device = open_device(AgentConfig(as_device="pi-zero-2w"))
    device.executor.hold(0, Drive(3).frame(0).image)
    slow_s = work.stage_times(profiles.load("pi-zero-2w"), signs, threads="one")[0][-1]
    assert device.executor.job(0, 0, max(signs.manifest.widths))().compute_s >= slow_s
    with pytest.raises(ConfigError, match=r"abacus"):
        open_device(AgentConfig(as_device="abacus"))
