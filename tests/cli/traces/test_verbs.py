"""`isthmus traces`, as typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.emulation import traces
from isthmus.proto.errors import ConfigError, DataError, IsthmusError

runner = CliRunner()


def isthmus(*arguments: str) -> str:
    result = runner.invoke(application(["traces"]), ["traces", *arguments])
    if isinstance(result.exception, IsthmusError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


MAKERS = {
    "constant": ("--up-mbps", "2", "--length", "4s"),
    "steps": ("--row", "10:8:20:40", "--row", "0.5:0:0:60"),
    "on-off": ("--up-mbps", "5", "--on", "3s", "--off", "1s", "--seed", "3"),
    "markov": ("--length", "10s", "--seed", "5", "--loss", "0.01"),
    "sinusoid": ("--mean-mbps", "5", "--noise", "0.3", "--swing", "0.9", "--seed", "2"),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_made_trace_is_the_same_again_and_reads(maker: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    for out in (first, second):
        assert str(out) in isthmus("make", maker, str(out), *MAKERS[maker])
    assert first.read_bytes() == second.read_bytes()
    info = json.loads(isthmus("info", str(first), "--format", "json"))
    assert info["sha256"] == traces.find(first).sha256
    assert info["up"]["mean_mbps"] > 0


def test_another_seed_makes_another_trace(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        isthmus("make", "on-off", str(tmp_path / f"{seed}.csv"), "--up-mbps", "5", "--seed", seed)
    assert (tmp_path / "1.csv").read_text() != (tmp_path / "2.csv").read_text()


def test_steps_hold_for_as_long_as_was_said(tmp_path: Path) -> None:
    isthmus("make", "steps", str(tmp_path / "t.csv"), *MAKERS["steps"])
    trace = traces.read_csv(tmp_path / "t.csv")
    assert trace.length_s == 10.5
    assert trace.up_Bps[trace.row_at(10.1)] == 0
    isthmus("make", "constant", str(tmp_path / "t.csv"), "--up-mbps", "1", "--length", "0.5s")
    assert traces.find(tmp_path / "t.csv").length_s == 0.5


def test_csv_to_mahimahi_and_back(tmp_path: Path) -> None:
    isthmus("convert", "lte-drive", str(tmp_path / "lte.up"))
    isthmus("convert", str(tmp_path / "lte.down"), str(tmp_path / "copy.up"))
    for way in ("up", "down"):
        assert (tmp_path / f"copy.{way}").read_bytes() == (tmp_path / f"lte.{way}").read_bytes()
    isthmus("convert", str(tmp_path / "lte.up"), str(tmp_path / "back.csv"), "--rtt-ms", "50", "--scale", "0.5")
    before, after = (
        json.loads(isthmus("info", name, "--format", "json")) for name in ("lte-drive", str(tmp_path / "back.csv"))
    )
    assert after["up"]["mean_mbps"] == pytest.approx(before["up"]["mean_mbps"] / 2, rel=0.01)
    assert after["rtt"]["median_ms"] == pytest.approx(50)


def test_looped_swapped_mirrored(tmp_path: Path) -> None:
    source, out = tmp_path / "t.csv", tmp_path / "out.csv"
    source.write_text("time_s,down_mbps\n0,8\n1,4\n")
    isthmus("convert", str(source), str(out), "--swap", "--loop", "3")
    swapped = traces.read_csv(out)
    assert (swapped.up_Bps * 8e-6).tolist() == [8, 4] * 3
    isthmus("convert", str(source), str(out), "--mirror", "--loss", "0.1")
    mirrored = traces.read_csv(out)
    assert (mirrored.up_Bps * 8e-6).tolist() == [8, 4]
    assert mirrored.loss.tolist() == [0.1, 0.1]


def test_a_folder_is_listed_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    isthmus("make", "constant", str(tmp_path / "good.csv"), "--up-mbps", "5")
    isthmus("make", "constant", str(tmp_path / "pair.up"), "--up-mbps", "5")
    (tmp_path / "bad.csv").write_text("time_s,up_mbps\n0,1\n1,-1\n")
    found = json.loads(isthmus("list", str(tmp_path), "--format", "json"))
    assert [row["name"] for row in found["traces"]] == ["good", "pair"]
    assert found["refused"] == [f"{tmp_path / 'bad.csv'}: line 3: up_mbps must be finite and not negative"]
    assert "bad.csv: line 3" in isthmus("list", str(tmp_path))
    assert "lte-drive" in isthmus("list")


def test_one_bad_file_hides_no_other_whatever_their_names(tmp_path: Path) -> None:
    """A list that counted from 1970 asked for 107 GiB, and nothing of the folder was listed."""
    files = {
        "epoch.up": "1432003200000\n1432003200009\n",
        "days.up": "0\n99999999999\n",
        "12mbps": "1\n",
        "cooked.log": "0.0 1.25\n1.0 2.5\n",
        "kbps.csv": "time_s,up_kbps\n0,1500\n",
        "README": "Not a trace.\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = json.loads(isthmus("list", str(tmp_path), "--format", "json"))
    assert [row["name"] for row in found["traces"]] == ["epoch", "12mbps", "cooked"]
    assert [line.split(": ")[0] for line in found["refused"]] == [str(tmp_path / n) for n in ("kbps.csv", "days.up")]


def test_columns_of_other_names_are_described_and_converted(tmp_path: Path) -> None:
    source, out = tmp_path / "phone.csv", tmp_path / "out.csv"
    source.write_text("Timestamp;UL kbit/s;Cell\n5000;1500,5;a\n6000;2000,0;b\n")
    taken = ("--columns", "time_s=0.001*Timestamp", "--columns", "up_mbps = 1e-3 * UL kbit/s")
    assert json.loads(isthmus("info", str(source), *taken, "--format", "json"))["length_s"] == 2
    isthmus("convert", str(source), str(out), *taken, "--mirror")
    assert out.read_text().splitlines()[1] == "0,1.5005,1.5005,,"


@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        (("make", "steps", "t.csv", "--row", "10:8:20"), ConfigError, "--row: '10:8:20' is not SECONDS:UP:DOWN:RTT"),
        (("make", "steps", "t.csv", "--row", "0:8:20:1"), ConfigError, "must hold for more than 0 s"),
        (("make", "constant", "t.txt", "--up-mbps", "5"), ConfigError, "t.txt: a trace is written as .csv"),
        (("make", "constant", "none/t.csv", "--up-mbps", "5"), DataError, "none/t.csv: No such file"),
        (("make", "constant", "t.csv", "--up-mbps", "-5"), DataError, "up_mbps must be finite and not negative"),
        (("make", "constant", "t.csv", "--up-mbps", "5", "--length", "0s"), ConfigError, "--length: must be above 0"),
        (("make", "markov", "t.csv", "--states-mbps", "1;2"), ConfigError, "--states-mbps: '1;2' is not a list"),
        (("make", "markov", "t.csv", "--rtt-ms", "1"), ConfigError, "--rtt-ms: '1', expected two numbers"),
        (("convert", "demo", "t.csv", "--loop", "0"), ConfigError, "--loop at least 1"),
        (("info", "demo", "--columns", "up_mbps"), ConfigError, "--columns: 'up_mbps' is not NAME=FACTOR*COLUMN"),
        (
            ("info", "demo", "--columns", "up_mbps=a*b"),
            ConfigError,
            "--columns: 'up_mbps=a*b' is not NAME=FACTOR*COLUMN",
        ),
        (("info", "demo", "--columns", "up=b"), ConfigError, "--columns: 'up' is not one of time_s, up_mbps"),
        (("list", "nowhere"), DataError, "nowhere: not a folder"),
        (("info", "nowhere"), DataError, "nowhere: no such file"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    arguments: tuple[str, ...], kind: type[IsthmusError], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=re.escape(problem)):
        isthmus(*arguments)
    assert not list(tmp_path.iterdir())
