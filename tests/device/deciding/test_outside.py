"""A policy from somebody's own module, in everything that takes a policy's name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from isthmus.device.deciding import outside
from isthmus.emulation import policies, sweep
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.models import bundle
from isthmus.proto.errors import ConfigError
from isthmus.proto.vocabulary import AnswerSource

CAREFUL = """
from isthmus.device.scheduler import STOP, ExpectedUtility

class Careful(ExpectedUtility):
    def after_exit(self, result, situation):
        return STOP if result.stage else super().after_exit(result, situation)

class Half:
    def width(self, situation):
        return 0

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of one's own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    for module in ("careful_policies", "broken_policies"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (tmp_path / "careful_policies.py").write_text(CAREFUL)
    (tmp_path / "broken_policies.py").write_text("1 / 0")
    return tmp_path


def test_it_plays_in_emulations(here: Path) -> None:
    name = "careful_policies:Careful"
    (run,) = simulate(Scenario(bundle="signs", policy=name, duration_s=2.0))
    assert run.header.policy == name
    assert {record.source for record in run.records} == {AnswerSource.EXIT}
    assert policies.contestant(name, bundle.load("signs")).name == name


def test_what_is_no_policy_is_refused_with_the_reason(here: Path) -> None:
    for name, why in (
        ("nothing_here:Class", "No module named 'nothing_here'"),
        ("careful_policies:Missing", "Missing"),
        ("careful_policies:number", "has no width"),
        ("careful_policies:Half", "has no after_exit"),
        ("broken_policies:Class", "ZeroDivisionError"),
        (":Class", "name a class of an importable module"),
        ("psychic", "is not one of expected-utility, always-offload, local-only; or name your own"),
    ):
        with pytest.raises(ConfigError, match=f"policy: .*{why}"):
            outside.factory(name)


def test_a_sweep_s_results_depend_on_its_source(here: Path) -> None:
    job = [Scenario(bundle="signs", policy="careful_policies:Careful", duration_s=2.0)]
    (before,) = sweep.jobs(job, "code")
    (here / "careful_policies.py").write_text(CAREFUL + "\n# changed\n")
    (after,) = sweep.jobs(job, "code")
    assert before.name != after.name
