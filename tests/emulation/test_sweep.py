"""Sweeps: what a file lists, what a result depends on, and results that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

import clips
import isthmus
from isthmus.emulation import policies, sweep
from isthmus.emulation.sequences import table as sequences
from isthmus.emulation.sweep import Ended, Play, SweepJob, SweepManifest
from isthmus.emulation.virtual.scenario import Scenario
from isthmus.models import bundle as bundles
from isthmus.proto import record
from isthmus.proto.errors import ConfigError, DataError, IsthmusError
from runs import play_killed, play_made, play_or_fail


def listed(tmp_path: Path, text: str) -> list[Scenario]:
    path = tmp_path / "few.toml"
    path.write_text(text)
    return sweep.read(path)


def test_every_combination_once_in_the_file_s_order(tmp_path: Path) -> None:
    found = listed(
        tmp_path, 'trace = ["demo", "umts", "demo"]\nprofile = "pi5"\ndeadline_s = [0.1, 0.2]\nseed = [4, 5]'
    )
    values = [(s.trace, s.deadline_s, s.seed) for s in found]
    assert values == [(t, d, s) for t in ("demo", "umts") for d in (0.1, 0.2) for s in (4, 5)]
    assert {(s.profile, s.name) for s in found} == {("pi5", "")}


def test_all_policies_are_those_the_bundle_has_tables_for_and_the_bounds(tmp_path: Path) -> None:
    found = listed(tmp_path, 'policy = "all"\nbundle = "signs"')
    expected = (*policies.available(bundles.load("signs")), *policies.BOUNDS)
    assert tuple(s.policy for s in found) == expected


def test_scenarios_are_changed_by_the_other_keys(tmp_path: Path) -> None:
    found = listed(tmp_path, 'scenario = ["nb-iot", "ble"]\nprofile = "pi5"\nduration_s = 9.0')
    assert [(s.name, s.profile, s.duration_s) for s in found] == [("nb-iot", "pi5", 9.0), ("ble", "pi5", 9.0)]
    assert found[0].trace != found[1].trace


def test_what_no_header_tells_is_said_in_the_scenario_s_name(tmp_path: Path) -> None:
    found = listed(tmp_path, 'scenario = "ble"\nrtt_ms = [10.0, 90.0]\nseed = [1, 2]\ncredits = 4')
    assert [s.name for s in found] == ["ble rtt_ms=10.0"] * 2 + ["ble rtt_ms=90.0"] * 2


def test_events_are_one_value_though_they_are_a_list(tmp_path: Path) -> None:
    (only,) = listed(
        tmp_path, '[[events]]\nwhat = "load"\nat_s = 1.0\nfactor = 2.0\n[[events]]\nwhat = "load"\nat_s = 5.0'
    )
    assert len(only.events) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("polcy = 1", r"few.toml: unknown key 'polcy'; known: scenario, name"),
        ("seed = []", r"few.toml: seed: an empty list"),
        ("seed = [1, 'x']", r"few.toml: .*seed"),
        ("fps = [15.0, 0.0]", r"few.toml: .*fps = 0.0, expected"),
        ("scenario = 'moon'", r"scenario: no 'moon'.*few.toml"),
        ("policy = 'all'\nbundle = 'sings'", r"sings: no bundle"),
        ("seed = [1", r"few.toml: not valid TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(IsthmusError, match=problem):
        listed(tmp_path, text)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"policy": "expected-utilty"}, "policy: 'expected-utilty' is not one of"),
        ({"trace": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"profile": "pi17"}, "pi17"),
        ({"server": "mainframe"}, "mainframe"),
        ({"radio": "pigeon"}, "pigeon"),
    ],
)
def test_what_the_combinations_name_is_opened_before_anything_is_played(changes: dict[str, str], problem: str) -> None:
    good = Scenario(policy=policies.CLAIRVOYANT)
    sweep.check([good])
    with pytest.raises(IsthmusError, match=problem):
        sweep.check([good, Scenario(**changes)])  # type: ignore[arg-type]


def test_a_result_s_key_follows_from_all_that_it_depends_on(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("time_s,up_mbps,down_mbps,rtt_ms,loss\n0,8,8,20,0\n")

    def key(code: str = "one", **changes: object) -> str:
        return sweep.jobs([Scenario(trace=str(trace), **changes)], code)[0].name  # type: ignore[arg-type]

    first = key()
    assert first == key()
    assert first.startswith("t-pi4-expected-utility-seed1-")
    other = [key("two"), key(seed=2), key(rtt_ms=1.0), key(profile="pi5"), key(bundle="signs"), key(server="pi5")]
    trace.write_text(trace.read_text().replace("8,8", "8,9"))
    assert len({first, key(), *other}) == 2 + len(other)


def test_a_result_s_key_follows_from_the_table_of_clips(tmp_path: Path) -> None:
    bundle = clips.made(tmp_path)
    listed = [Scenario(bundle=str(bundle.folder), clips=True), Scenario(bundle=str(bundle.folder))]
    before = [job.name for job in sweep.jobs(listed, "code")]
    sequences.save(bundle, clips.table(bundle, seed=2))
    after = [job.name for job in sweep.jobs(listed, "code")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]


def some_jobs(*seeds: int, **changes: object) -> list[SweepJob]:
    return sweep.jobs([Scenario(seed=seed, **changes) for seed in seeds], "code")  # type: ignore[arg-type]


def played(folder: Path, jobs: list[SweepJob], play: Play = play_made) -> list[Ended]:
    made = SweepManifest.of(
        jobs, command="isthmus sweep few.toml", version="9", code_sha256="c", started="now", host={}
    )
    return list(sweep.run(folder, made, sweep.to_play(folder, jobs), processes=2, play=play))


def test_each_result_is_a_run_of_each_device_and_says_how_it_was_made(tmp_path: Path) -> None:
    jobs = some_jobs(1, 2, sessions=3)
    assert {one.job for one in played(tmp_path / "new" / "s", jobs)} == set(jobs)
    files = sweep.files(tmp_path / "new" / "s")
    runs = [record.load(file) for file in files]
    assert [run.header.policy for run in runs] == ["expected-utility"] * 6
    assert [sum(bool(r.right) for r in run.records) for run in runs] == [1] * 3 + [2] * 3
    assert {(run.header.command, run.header.version) for run in runs} == {("isthmus sweep few.toml", "9")}
    made = sweep.manifest(tmp_path / "new" / "s")
    assert made.results == {jobs[0].name: {"sessions": 3}, jobs[1].name: {"sessions": 3, "seed": 2}}
    assert not list((tmp_path / "new" / "s" / sweep.RESULTS).glob(".*"))


def test_a_sweep_that_was_extended_plays_what_is_new_and_reports_what_belongs_to_it(tmp_path: Path) -> None:
    played(tmp_path, some_jobs(1, 2))
    before = {file: file.stat().st_mtime_ns for file in sweep.files(tmp_path)}
    ended = played(tmp_path, some_jobs(2, 3))
    assert [one.job.scenario.seed for one in ended] == [3]
    files = sweep.files(tmp_path)
    assert [record.load(file).records[0].truth for file in files] == [1, 1]
    kept = set(files) & set(before)
    assert len(kept) == 1
    assert all(file.stat().st_mtime_ns == before[file] for file in kept)
    assert played(tmp_path, some_jobs(2, 3)) == []


def test_an_error_costs_its_job_only_and_is_kept_until_the_job_is_played(tmp_path: Path) -> None:
    jobs = some_jobs(1, 2, 3, 4)
    errors = {one.job.scenario.seed: one.error for one in played(tmp_path, jobs, play_or_fail)}
    told = {2: "drive.csv: line 7: not a number", 3: "ZeroDivisionError: division by zero"}
    assert errors == {1: None, 4: None} | told
    assert sweep.manifest(tmp_path).failed == {jobs[1].name: told[2], jobs[2].name: told[3]}
    assert len(sweep.files(tmp_path)) == 2
    assert [one.error for one in played(tmp_path, jobs)] == [None, None]
    assert sweep.manifest(tmp_path).failed == {}


def test_a_process_that_the_system_ends_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(IsthmusError, match="fewer --workers"):
        played(tmp_path, some_jobs(1), play_killed)
    assert sweep.files(tmp_path) == []


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is it the folder of a sweep"):
        sweep.files(tmp_path)
    (tmp_path / sweep.MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="not the manifest of a sweep"):
        sweep.files(tmp_path)
    with pytest.raises(DataError, match="name another folder"):
        played(tmp_path / sweep.MANIFEST / "x", some_jobs(1))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: No such file"):
        sweep.read(tmp_path / "none.toml")


def test_code_that_is_installed_elsewhere_too_counts_as_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sweep.code_sha256()
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "session.py").write_text("other = True\n")
    monkeypatch.setattr(isthmus, "__path__", [*isthmus.__path__, str(tmp_path)])
    assert sweep.code_sha256() == before
    monkeypatch.setattr(isthmus, "__path__", [str(tmp_path), *isthmus.__path__])
    assert sweep.code_sha256() != before
