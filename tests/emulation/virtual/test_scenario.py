"""Scenario files: strict, and wrong in words that say which file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.emulation.virtual import scenario
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.proto.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_becomes_a_scenario_and_changes_win_over_it(tmp_path: Path) -> None:
    path = written(tmp_path, 'trace = "demo"\nfps = 5\n[[events]]\nwhat = "load"\nat_s = 3\nfactor = 2.0\n')
    found = scenario.load(path, {"fps": 7.5})
    assert (found.name, found.trace, found.fps, found.events[0].factor) == ("mine", "demo", 7.5, 2.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fsp = 5", "mine.toml: unknown key 'fsp'; known: "),
        ('fps = "fast"', r"mine.toml: .*\$.fps"),
        ("fps = 0", "mine.toml: fps = 0"),
        ("deadline_s = nan", "mine.toml: deadline_s = nan"),
        ("energy_weight = -1", "mine.toml: energy_weight = -1"),
        ("energy_weight = inf", "mine.toml: energy_weight = inf"),
        ("battery_Wh = 0", "mine.toml: battery_Wh = 0"),
        ("fps = ", "mine.toml: not valid TOML"),
        ('share = "bus"', r"mine.toml: .*\$.share"),
        ('[[events]]\nwhat = "storm"\nat_s = 1', r"mine.toml: .*\$.events\[0\].what"),
        ('[[events]]\nwhat = "load"\nat_s = -1', r"mine.toml: at_s = -1"),
        ('[[events]]\nwhat = "load"\nat_s = 1\nfor = 2', r"mine.toml: .*`for`.*\$.events\[0\]"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        scenario.load(written(tmp_path, text))


def test_an_unknown_scenario_tells_what_there_is() -> None:
    with pytest.raises(ConfigError, match="scenario: no 'moon'; there are"):
        scenario.load("moon")


def test_the_defaults_are_a_scenario() -> None:
    assert scenario.of({}) == Scenario()
