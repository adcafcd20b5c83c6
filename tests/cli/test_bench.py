"""`isthmus bench`: fits shown and stored, this machine's tails as a profile, and where its figures come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isthmus.cli import bench
from isthmus.cli.main import application
from isthmus.models import bundle, profiles
from isthmus.models.bundle import Bundle
from isthmus.models.profiles import Observation
from isthmus.proto.errors import BundleError, ConfigError, DataError


def invoke(*arguments: str) -> Result:
    command = ["bench", *arguments]
    done = CliRunner().invoke(application(command), command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done


def refused(*arguments: str) -> BaseException | None:
    command = ["bench", *arguments]
    return CliRunner().invoke(application(command), command).exception


def test_every_shipped_profile_is_fitted_and_shown() -> None:
    rows = json.loads(invoke("profiles", "--format", "json").stdout)
    assert {row["profile"] for row in rows} == set(profiles.names())
    for row in rows:
        assert row["left_out_median"] <= row["left_out_worst"]
        assert max(map(abs, row["left_out"].values())) == pytest.approx(row["left_out_worst"], abs=1e-3)


def test_the_table_has_a_line_for_each_number_of_threads() -> None:
    head, *lines = invoke("profiles", "pi4").stdout.splitlines()
    assert head.startswith("error of the time predicted")
    assert len(lines) == len(profiles.load("pi4").rates)
    assert all(line.startswith("pi4, ") and "median" in line for line in lines)


def test_write_stores_the_fit_in_the_file_and_nothing_without_it(tmp_path: Path) -> None:
    file = tmp_path / "pi4.toml"
    shutil.copy(profiles.path_of("pi4"), file)
    mine, stored = profiles.load("pi4"), file.read_text()
    edited = stored.replace(f"flop_s = {mine.rates[0].flop_s}", "flop_s = 1.0", 1)
    assert edited != stored
    file.write_text(edited)
    invoke("profiles", str(file))
    assert file.read_text() == edited
    invoke("profiles", str(file), "--write")
    assert profiles.load(str(file)) == mine


@pytest.fixture
def tails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tails that take 1 ms a call, and 2 ns for each frame's FLOP."""

    def tail_times(found: Bundle, threads: int, max_batch: int) -> dict[int, float]:
        return {b: 1e-3 + b * found.manifest.tail_flops * 2e-9 for b in (1, 2, 4, 8) if b <= max_batch}

    rest = {"loop_s": Observation(value=0.001, source="measured", confidence="measured")}
    monkeypatch.setattr(bench, "_tail_times", tail_times)
    monkeypatch.setattr(bench, "_overheads", lambda found, threads, best_s: rest)


@pytest.mark.usefixtures("tails")
def test_tails_that_follow_the_rule_are_fitted_exactly(tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.toml"
    done = invoke("server", "--name", "mine", "--threads", "3", "--max-batch", "4", "--out", str(out))
    assert done.stdout == f"{out}\n"
    mine = profiles.load(str(out))
    assert (mine.name, mine.kind) == ("mine", "server")
    assert mine.title.startswith("3 threads of ")
    assert sorted({(t.workload, t.batch) for t in mine.timings}) == [
        (f"{name}-tail", b) for name in ("cifar10", "signs") for b in (1, 2, 4)
    ]
    (rates,) = mine.rates
    assert rates.flop_s == pytest.approx(2e-9, rel=1e-2)
    assert rates.left_out_worst < 0.02
    assert mine.observed["loop_s"].value == 0.001


@pytest.mark.usefixtures("tails")
def test_without_a_file_the_profile_itself_is_shown(tmp_path: Path) -> None:
    shown = tmp_path / "shown.toml"
    shown.write_text(invoke("server").stdout)
    assert profiles.load(str(shown)).name == "edge-server"
    assert json.loads(invoke("server", "--format", "json").stdout)["name"] == "edge-server"


def test_the_shipped_tails_run_at_every_batch_that_is_asked_for() -> None:
    found = bench._tail_times(bundle.load("signs"), threads=1, max_batch=2)
    assert set(found) == {1, 2}
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.usefixtures("tails")
def test_what_cannot_be_measured_is_named() -> None:
    one = refused("server", "--bundle", "signs")
    assert isinstance(one, DataError)
    assert "only 'signs-tail' was timed" in str(one)
    for command in ("server", "device"):
        assert isinstance(refused(command, "--bundle", "nothing"), BundleError)
    assert isinstance(refused("profiles", "pi9"), ConfigError)


def test_a_measurement_says_on_what_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/isthmus", "bench", "device", "--out", "my board.toml"])
    assert bench.command().startswith("isthmus bench device --out 'my board.toml' (isthmus ")
    assert bench.machine() in bench.command()
