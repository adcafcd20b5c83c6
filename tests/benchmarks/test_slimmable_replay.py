"""The replay of Slimmable Encoders' logs: on a made-up log whose answers are known, and on the real ones where they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.models.pictures import data_root
from isthmus.proto.errors import DataError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import slimmable_replay as replay

MODES = """model,ms,KB,mAP
assine2022b_11,66.0,7000.0,10.0
assine2022b_12,66.0,14000.0,20.0
assine2022b_21,134.0,7000.0,12.0
assine2022b_22,134.0,14000.0,25.0
lee2021_3,267.3,30500.0,36.8
"""
ANCHORS = {  # distance m, deadline ms: published miss %, published effective mAP, the clairvoyant's miss % and mAP
    (1, 300): (30.6, 22.2, 0.0, 31.1),
    (3, 300): (50.8, 14.4, 0.0, 27.4),
    (5, 300): (79.3, 3.3, 12.5, 13.2),
    (7, 300): (65.8, 9.2, 1.7, 18.5),
    (9, 300): (51.9, 13.3, 0.0, 20.0),
    (1, 600): (2.3, 35.9, 0.0, 36.8),
    (3, 600): (7.1, 34.2, 0.0, 36.8),
    (5, 600): (14.4, 29.4, 0.0, 34.7),
    (7, 600): (15.5, 29.6, 0.0, 35.2),
    (9, 600): (12.6, 31.1, 0.0, 35.8),
}


def row(mode: int, mean_ap: float, transfer_ms: float, e2e_ms: float) -> str:
    return json.dumps({"mode": mode, "map": mean_ap, "transfer_time": transfer_ms, "e2e": e2e_ms})


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Six rows to warm up, then three frames at 100 kB/s, 50 kB/s and 1 kB/s; each was sent in the mode of the row before."""
    (tmp_path / replay.MODES_FILE).write_text(MODES)
    rows = [row(12, 20.0, 140, 250)] * 6
    rows += [row(12, 20.0, 140, 299), row(11, 10.0, 280, 301), row(11, 10.0, 7000, 7100)]
    (tmp_path / "output_distance_2_deadline_310.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_made_up_log(logs: Path) -> None:
    (found,) = replay.replay(logs)
    assert (found["distance_m"], found["deadline_ms"], found["frames"]) == (2, 310, 3)
    assert found["published"] == {"miss_percent": 25.0, "effective_map": 12.5}  # 20, 20, 10, and 7.1 s
    assert found["their choices"] == {"miss_percent": 66.7, "effective_map": 6.7}  # 301.6 ms, then 441.6 ms
    assert found["clairvoyant"] == {"miss_percent": 33.3, "effective_map": 10.0}  # 14 kB, 7 kB in 301.6 ms, nothing


def test_no_policy_beats_the_clairvoyant(logs: Path) -> None:
    (found,) = replay.replay(logs)
    bound = found["clairvoyant"]
    assert isinstance(bound, dict)
    for name in set(replay.COLUMNS) - {"published"}:  # whose encoder and decoder are not the replay's
        score = found[name]
        assert isinstance(score, dict)
        assert score["effective_map"] <= bound["effective_map"]


@pytest.mark.parametrize(
    ("line", "named"),
    [("{", r"line 3: not a row"), ('{"mode": 99}', r"line 3: not a row.*\(9, 9\)"), ('{"map": 1}', "line 3: .*mode")],
)
def test_a_damaged_row_is_named(logs: Path, line: str, named: str) -> None:
    path = logs / "output_distance_2_deadline_310.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:2], line, *rows[3:]]))
    with pytest.raises(DataError, match=named):
        replay.replay(logs)


def test_an_empty_folder_says_what_it_lacks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, replay.__file__, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == DataError.exit_code
    assert "rpi4_cpus4.csv" in done.stderr


def test_the_real_logs_give_the_published_figures() -> None:
    """Published misses within 4 points, the clairvoyant's column within 0.3 mAP (it is within 0.1)."""
    try:
        folder = data_root().parent / "anchors" / "slimmable_encoders"
    except DataError as error:
        pytest.skip(str(error))
    if not folder.is_dir():
        pytest.skip(f"{folder}: not there; it holds the logs of Slimmable Encoders")
    rows = {(r["distance_m"], r["deadline_ms"]): r for r in replay.replay(folder)}
    assert set(rows) == set(ANCHORS)
    for key, (miss, mean_ap, bound_miss, bound_map) in ANCHORS.items():
        published, bound = rows[key]["published"], rows[key]["clairvoyant"]
        assert isinstance(published, dict)
        assert isinstance(bound, dict)
        assert published["miss_percent"] == pytest.approx(miss, abs=0.2)
        assert published["effective_map"] == pytest.approx(mean_ap, abs=0.2)
        assert bound["miss_percent"] == pytest.approx(bound_miss, abs=0.2)
        assert bound["effective_map"] == pytest.approx(bound_map, abs=0.1)
