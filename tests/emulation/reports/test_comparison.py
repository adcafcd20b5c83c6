"""Runs against each other: who is compared with whom, what is counted together, and what a share of the gain is."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.emulation.reports import comparison_report
from isthmus.emulation.reports.comparison import Comparison, Digest, Fate, Player
from isthmus.proto.errors import DataError
from isthmus.proto.record import Battery, Run
from runs import made_run, saved


def compared(*runs: Run) -> Comparison:
    return Comparison([Digest.of(Path(f"{i}.jsonl"), run) for i, run in enumerate(runs)])


def three(floor: int, mine: int, bound: int, **more: object) -> list[Run]:
    """Local-only, a policy and the clairvoyant, that many right of a hundred."""
    named = {"local-only": floor, "mine": mine, "clairvoyant": bound}
    return [made_run(policy, right, **more) for policy, right in named.items()]  # type: ignore[arg-type]


MINE = Player("mine", "simulated")


def test_the_share_is_of_what_the_clairvoyant_gains_over_local_only() -> None:
    comparison = compared(*three(60, 75, 80))
    (setting,) = comparison.settings
    assert comparison.recovered(setting, MINE) == pytest.approx(0.75)
    assert [who.policy for who in comparison.players] == ["clairvoyant", "mine", "local-only"]


@given(st.integers(0, 99), st.integers(0, 100), st.integers(0, 100), st.randoms())
def test_the_bound_s_share_is_one_and_the_floor_s_nothing_in_any_order(
    floor: int, mine: int, bound: int, rng: object
) -> None:
    runs = three(floor, mine, bound)
    rng.shuffle(runs)  # type: ignore[attr-defined]
    comparison = compared(*runs)
    (setting,) = comparison.settings
    shares = {who.policy: comparison.recovered(setting, who) for who in comparison.players}
    if bound - floor < 1:
        assert set(shares.values()) == {None}
    else:
        assert (shares["clairvoyant"], shares["local-only"]) == (1.0, 0.0)
        assert shares["mine"] == pytest.approx((mine - floor) / (bound - floor))


def test_settings_in_which_nothing_is_to_be_gained_do_not_count() -> None:
    comparison = compared(*three(60, 75, 80), *three(70, 10, 70, trace="nb-iot"), *three(50, 55, 70, trace="satellite"))
    assert comparison.recovered_in_each(MINE) == pytest.approx([0.75, 0.25])
    assert comparison.recovered_in_all(MINE) == pytest.approx(20 / 40)


def test_only_seeds_that_all_three_have_played_make_a_share() -> None:
    more = [made_run("mine", 100, seed=2), made_run("local-only", 0, seed=3)]
    comparison = compared(*three(60, 75, 80), *more)
    (setting,) = comparison.settings
    assert comparison.recovered(setting, MINE) == pytest.approx(0.75)
    assert comparison.entries[setting][MINE].accuracy == pytest.approx(0.875)
    assert comparison.entries[setting][MINE].accuracy_range == (0.75, 1.0)


def test_without_a_clairvoyant_there_is_no_share() -> None:
    comparison = compared(*three(60, 75, 80)[:2])
    assert comparison.recovered_in_all(MINE) is None


def test_the_fair_bound_is_the_yardstick_where_it_has_played() -> None:
    comparison = compared(*three(60, 75, 90), made_run("trace-clairvoyant", 80))
    (setting,) = comparison.settings
    assert comparison.yardstick == "trace-clairvoyant"
    assert comparison.recovered(setting, MINE) == pytest.approx(0.75)
    assert comparison.recovered(setting, MINE, "clairvoyant") == pytest.approx(0.5)
    assert [who.policy for who in comparison.players] == ["clairvoyant", "trace-clairvoyant", "mine", "local-only"]


def test_means_are_over_frames_not_over_runs() -> None:
    comparison = compared(made_run("mine", 100, of=100), made_run("mine", 0, of=300, seed=2, energy_J=0.3))
    entry = comparison.entries[comparison.settings[0]][MINE]
    assert (entry.frames, entry.accuracy) == (400, 0.25)
    assert entry.energy_per_frame_J == pytest.approx(0.3)


def test_a_battery_lasts_as_long_as_the_runs_together_say() -> None:
    battery = Battery(20.0, 3.0)
    runs = [made_run("mine", 1, seed=seed, energy_J=joules, battery=battery) for seed, joules in ((1, 0.1), (2, 0.2))]
    comparison = compared(*runs, made_run("other", 1))
    (setting,) = comparison.settings
    assert comparison.entries[setting][MINE].battery_h == pytest.approx((5.0 + 4.0) / 2)
    assert comparison.entries[setting][Player("other", "simulated")].battery_h is None


@pytest.mark.parametrize(
    "change",
    [
        {"trace": "nb-iot"}, {"deadline_s": 0.2}, {"profile": "pi5"}, {"scenario": "crowd"}, {"trace_swapped": True},
        {"trace_scale": 0.1}, {"trace_sha256": "cd" * 32},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_makes_runs_incomparable_makes_another_setting_and_is_said(change: dict[str, object]) -> None:
    comparison = compared(made_run("mine", 1), made_run("mine", 1, **change))  # type: ignore[arg-type]
    labels = [comparison.label(setting) for setting in comparison.settings]
    assert len(set(labels)) == 2


def test_a_trace_is_the_same_from_whichever_folder_it_was_played() -> None:
    comparison = compared(made_run("mine", 1, trace="/a/x.csv"), made_run("mine", 1, trace="b/x.csv", seed=2))
    assert len(comparison.settings) == 1


def test_devices_that_begin_elsewhere_in_one_trace_are_of_one_setting() -> None:
    comparison = compared(made_run("mine", 1), made_run("mine", 3, trace_start_s=30.0))
    (setting,) = comparison.settings
    assert comparison.entries[setting][MINE].accuracy == 0.02


def test_what_settings_share_and_what_they_do_not() -> None:
    comparison = compared(made_run("mine", 1), made_run("mine", 1, trace="nb-iot", profile="pi5"))
    assert comparison.varying == ["trace", "profile"]
    assert comparison.common == "cifar10 · 100 ms · 10 frames/s"
    assert [comparison.label(setting) for setting in comparison.settings] == ["demo", "nb-iot"]


def test_where_there_is_one_setting_the_runs_are_spread_out() -> None:
    runs = [made_run("mine", 10), made_run("mine", 30, seed=2)]
    assert compared(*runs).spread(MINE, lambda entry: entry.accuracy) == [0.1, 0.3]
    more = made_run("mine", 50, trace="nb-iot")
    assert compared(*runs, more).spread(MINE, lambda entry: entry.accuracy) == [0.2, 0.5]
    assert compared(*runs, more).mean(MINE, lambda entry: entry.accuracy) == pytest.approx(0.35)


def test_what_becomes_of_a_frame() -> None:
    digest = Digest.of(Path("a"), made_run("mine", 4, of=8, server=2, missed=2))
    assert digest.fate.tolist() == [Fate.SERVER] * 2 + [Fate.EXIT] * 2 + [Fate.WRONG] * 2 + [Fate.MISSED] * 2


def test_virtual_and_real_are_set_side_by_side_frame_by_frame() -> None:
    real = made_run("mine", 50, server=30, kind="emulated")
    comparison = compared(made_run("mine", 50, server=40), real._replace(records=real.records[10:]))
    (setting,) = comparison.settings
    assert comparison.agreement(setting, MINE, Player("mine", "emulated")) == pytest.approx(80 / 90)
    assert comparison.name(MINE) == "mine (simulated)"


class Skeleton(HTMLParser):
    """The page's headings, columns and rows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._at = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._at = tag
        if tag == "tr":
            self.lines.append("row:")

    def handle_data(self, data: str) -> None:
        if self._at in ("h1", "h2", "summary"):
            self.lines.append(f"{self._at}: {data}")
        elif self._at in ("th", "td"):
            self.lines[-1] += f" {data} |"
        self._at = ""


GOLDEN = (
    """\
h1: 3 policies in 2 settings
h2: Accuracy within the deadline
h2: Right and on time, by setting; the stronger the tint, the more of the clairvoyant's gain
row: clairvoyant | mine | local-only |
row: demo | 80.0 % | 75.0 % | 60.0 % |
row: nb-iot | 61.0 % | – | 60.0 % |
h2: Accuracy over bytes
h2: What it cost
h2: Latency, from capture to answer
h2: What became of the frames: demo
h2: What became of the frames: nb-iot
h2: All figures
row: setting | policy | runs | frames | right and on time | of the runs | of the clairvoyant's gain | \
answered by the deadline | latency, median | 95 % | sent per frame |
row: demo | clairvoyant | 1 | 100 | 80.0 % | – | 100 % | 100.0 % | 50.0 ms | 50.0 ms | 280 B |
row: demo | mine | 2 | 200 | 75.0 % | 70.0 % to 80.0 % | 50 % | 95.0 % | 50.0 ms | 52.5 ms | 220 B |
row: demo | local-only | 1 | 100 | 60.0 % | – | 0 % | 100.0 % | 10.0 ms | 10.0 ms | 0 B |
row: nb-iot | clairvoyant | 1 | 100 | 61.0 % | – | 100 % | 100.0 % | 10.0 ms | 10.0 ms | 4 B |
row: nb-iot | local-only | 1 | 100 | 60.0 % | – | 0 % | 100.0 % | 10.0 ms | 10.0 ms | 0 B |
h2: How these runs were made
row: Kind | simulated |
row: Bundle | cifar10 |
row: Bundle's sha256 | """
    + "ab" * 32
    + """ |
row: Isthmus | 0.1.0 |
row: Command | isthmus sweep few.toml |
summary: Each of the 6 runs
h2: Each run
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs in two settings, as files."""
    root = tmp_path_factory.mktemp("sweep")
    runs = [
        made_run("local-only", 60),
        made_run("mine", 70, server=50, missed=10),
        made_run("mine", 80, server=60, seed=2),
        made_run("clairvoyant", 80, server=70),
        made_run("local-only", 60, trace="nb-iot"),
        made_run("clairvoyant", 61, server=1, trace="nb-iot"),
    ]
    for i, run in enumerate(runs):
        saved(run, root / f"run-{i}" / "records.jsonl")
    return root


def test_the_page_of_a_small_comparison(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        application(["report"]), ["report", str(folder), "--out", str(tmp_path), "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    expected = GOLDEN.splitlines()
    assert Skeleton(text).lines[: len(expected)] == expected
    assert not re.search(r"<script|<link|@import|url\((?!#)", text)
    assert text.count("<svg") == 2 * text.count("<figure") == 2 * 6
    assert {p.stem for p in tmp_path.glob("*.png")} == {
        "accuracy",
        "tradeoff",
        "cost",
        "latencies",
        "timeline-1",
        "timeline-2",
    }
    assert "not every policy has played in every setting" in text
    facts = json.loads(done.stdout)
    assert [entry["recovered"] for entry in facts["entries"] if entry["policy"] == "mine"] == [pytest.approx(0.5)]
    assert len(facts["runs"]) == 6


def test_runs_of_every_kind_are_compared_and_a_trace_of_another_machine_costs_only_its_picture(tmp_path: Path) -> None:
    away = "/elsewhere/drive.csv"
    runs = [
        made_run("mine", 50, server=40, trace=away),
        made_run("mine", 55, server=40, kind="emulated", trace=away),
        made_run("mine", 52, server=40, kind="live", trace=None, seed=None),
    ]
    page = comparison_report.write(tmp_path, compared(*runs))
    text = page.read_text(encoding="utf-8")
    assert "emulated and live and simulated runs, compared" in text
    assert "Virtual beside real" in text
    assert "/elsewhere/drive.csv: is not on this machine, so that the link is not drawn" in text


def test_a_run_without_frames_and_one_without_truth_are_compared_all_the_same(tmp_path: Path) -> None:
    empty, blind = made_run("mine", 0, of=0), made_run("blind", 5, of=40, seed=None)
    blind.records[:] = [
        type(r)(**{f: getattr(r, f) for f in r.__struct_fields__} | {"truth": None}) for r in blind.records
    ]
    page = comparison_report.write(tmp_path, compared(empty, blind))
    assert "2 policies on demo" in page.read_text(encoding="utf-8")


def test_damage_is_named_by_file_and_line(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    lines = (folder / "run-0" / "records.jsonl").read_bytes().splitlines()
    broken.write_bytes(b"\n".join([*lines[:5], b"{}", *lines[6:], b""]))
    with pytest.raises(DataError, match=rf"{broken}: line 6"):
        CliRunner().invoke(application(["report"]), ["report", str(folder), str(broken)], catch_exceptions=False)


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of records within"):
        CliRunner().invoke(application(["report"]), ["report", str(tmp_path)], catch_exceptions=False)
