"""`isthmus emulate` as people use it: figures for each policy, the same every time, and clear words for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli import emulate as verb
from isthmus.cli.main import application
from isthmus.emulation import run_summary
from isthmus.emulation.reports.comparison import Comparison, Digest, Player
from isthmus.emulation.virtual import scenario
from isthmus.proto import record
from isthmus.proto.errors import ConfigError, IsthmusError


def emulate(*arguments: str) -> Result:
    words = ["emulate", *arguments]
    return CliRunner().invoke(application(words), words, env={"COLUMNS": "200"})


SHORT = ("--scenario", "wifi-roaming", "--duration", "3s", "--workers", "1")


def test_the_figures_of_several_policies_and_their_records(tmp_path: Path) -> None:
    policies = ("local-only", "expected-utility")
    done = emulate(*SHORT, "--policy", ",".join(policies), "--out", str(tmp_path), "--format", "json", "--seed", "3")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert set(facts["policies"]) == set(policies)
    assert facts["scenario"]["seed"] == 3
    for policy in policies:
        header, records = record.read(tmp_path / f"{policy}.jsonl")
        assert (header.kind, header.policy, header.scenario, header.seed) == ("simulated", policy, "wifi-roaming", 3)
        assert len(records) == facts["policies"][policy]["frames"] == 45
        assert run_summary.summary(records).accuracy == facts["policies"][policy]["accuracy"]


def test_twice_is_the_same_to_the_byte_in_one_process_or_two() -> None:
    words = ("--scenario", "lost-server", "--duration", "1s", "--policy", "local-only,slimmable", "--format", "json")
    assert emulate(*words, "--workers", "1").stdout == emulate(*words, "--workers", "2").stdout


def test_the_same_run_by_the_clock_stands_beside_the_virtual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "LAG_BUDGET_S", 10.0)  # whatever else this machine does
    words = ("--scenario", "wifi-roaming", "--duration", "0.5s", "--workers", "1", "--policy")
    policies = "expected-utility,clairvoyant"
    for folder, more in (("virtual", ()), ("real", ("--real-time",))):
        done = emulate(*words, policies, "--out", str(tmp_path / folder), *more)
        assert done.exit_code == 0, done.output
    files = sorted(tmp_path.rglob("*.jsonl"))
    both = Comparison([Digest.of(file, record.load(file)) for file in files])
    (setting,) = both.settings
    assert both.kinds == ("emulated", "simulated")
    for policy in policies.split(","):
        assert both.agreement(setting, Player(policy, "emulated"), Player(policy, "simulated")) == 1.0


def test_text_is_a_line_for_each_policy() -> None:
    done = emulate(*SHORT, "--policy", "local-only")
    assert done.exit_code == 0
    assert "wifi-roaming: signs on pi4 over wifi-roam, 15 frames/s, 100 ms, seed 1" in done.stdout
    assert "local-only" in done.stdout


def test_any_key_of_a_scenario_can_be_set() -> None:
    done = emulate(*SHORT, "--policy", "local-only", "--format", "json", "--set", "rtt_ms=80", "--set", "share=cell")
    facts = json.loads(done.stdout)["scenario"]
    assert (facts["rtt_ms"], facts["share"]) == (80.0, "cell")


def test_how_long_a_battery_lasts_is_told_where_there_is_one() -> None:
    words, battery = (*SHORT, "--policy", "local-only"), ("--set", "battery_Wh=37")
    figures = json.loads(emulate(*words, *battery, "--format", "json").stdout)["policies"]["local-only"]
    power_W = 3.1 + 15 * figures["energy_per_frame_J"]
    assert figures["battery_h"] == pytest.approx(37 / power_W)
    assert "battery h" in emulate(*words, *battery).stdout
    assert "battery h" not in emulate(*words).stdout


def test_the_shipped_scenarios_are_listed() -> None:
    listed = emulate("scenarios").stdout
    assert all(name in listed for name in scenario.shipped())
    assert {one["name"] for one in json.loads(emulate("scenarios", "--format", "json").stdout)} == set(
        scenario.shipped()
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--policy", "magic"), "policy: 'magic' is not one of"),
        (("--profile", "pi9"), "profile: no 'pi9'"),
        (("--scenario", "moon"), "scenario: no 'moon'; there are"),
        (("--trace", "moon.csv"), "moon.csv: no such file"),
        (("--bundle", "mnist"), "mnist: no bundle of this name"),
        (("--fps", "0"), "emulate: fps = 0"),
        (("--deadline", "soon"), "--deadline: 'soon' is not a duration"),
        (("--set", "colour=blue"), "emulate: unknown key 'colour'; known: "),
        (("--set", "rtt_ms=nan"), "emulate: rtt_ms = nan"),
        (("--set", "energy_weight=-1"), "emulate: energy_weight = -1"),
        (("--set", "energy_weight=1", "--set", "radio=unknown"), "radio: 'unknown' counts no energy"),
        (("--set", "rtt_ms"), "--set: 'rtt_ms' is not KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], says: str) -> None:
    done = emulate(*arguments)
    assert isinstance(done.exception, IsthmusError)
    assert says in str(done.exception)


def test_a_bad_trace_is_refused_with_file_and_line(tmp_path: Path) -> None:
    for text, says in (
        ("time_s,up_mbps\n0,1\n2,1\n1,1\n", "line 4: timestamps must not decrease"),
        ("time_s,up_mbps\n0,-1\n", "line 2: up_mbps must be finite and not negative"),
        ("time_s,up_mbps\n0,nan\n", "line 2: up_mbps must be finite, not 'nan'"),
        ("time_s,up_mbps\n", "line 1: has a header and no rows"),
        ("time_s,up_kbps\n0,1\n", "line 1: unknown column 'up_kbps'"),
    ):
        path = tmp_path / "bad.csv"
        path.write_text(text)
        done = emulate("--trace", str(path))
        assert isinstance(done.exception, IsthmusError)
        assert str(done.exception).startswith(f"{path}: {says}")


def test_a_scenario_file_is_named_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("fsp = 3\n")
    done = emulate("--scenario", str(path))
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"{path}: unknown key 'fsp'")
