"""`isthmus demo` as a user runs it: real processes, its last line, what it leaves behind, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.proto import record

CLIPS = [sys.executable, "-m", "isthmus.cli", "demo", "--deadline", "400ms"]
DEMO = [*CLIPS, "--bundle", "signs"]
FIGURES = [
    "frames", "answered_by_deadline", "accuracy", "accuracy_local_only", "by_source", "bytes_per_frame", "report",
]  # fmt: skip


def test_boxes_on_real_clips_are_what_it_shows_unasked(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval", reason="what scores boxes is not installed")
    done = subprocess.run([*CLIPS, "--duration", "4s"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert list(summary) == [*FIGURES, "ap50", "ap50_local_only"]
    assert summary["frames"] == 120
    assert 0 <= summary["ap50"] <= 1
    page = tmp_path / summary["report"]
    assert "data:image/jpeg" in page.read_text(), "answers drawn on their frames"
    assert all(row.things for row in record.read(page.parent / "records.jsonl")[1])


def test_a_short_demo_leaves_a_whole_report(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--duration", "6s"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert list(summary) == FIGURES
    assert summary["frames"] == 90
    page = tmp_path / summary["report"]
    left = {path.name for path in page.parent.iterdir()}
    pictures = {"timeline.png", "accuracy.png", "latency.png", "bytes.png"}
    assert left >= {"index.html", "manifest.json", "records.jsonl", "summary.json", "agent.log", *pictures}
    manifest = json.loads((page.parent / "manifest.json").read_text())
    assert manifest["scenario"]["trace"] == "demo"
    assert manifest["command"].startswith("isthmus demo")
    header, rows = record.read(page.parent / "records.jsonl")
    assert header.trace_sha256
    assert any(row.goodput_Bps is not None for row in rows), "the device's estimate of its uplink"


def test_a_camera_that_is_not_there_leaves_nothing_but_its_error(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--camera", "97"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 6
    assert done.stderr.strip().splitlines()[-1].startswith("error: camera 97: cannot be opened")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="this system knows no process groups to signal")
def test_ctrl_c_leaves_a_report_of_what_was_answered(tmp_path: Path) -> None:
    process = subprocess.Popen(
        DEMO, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not any(len(path.read_bytes().splitlines()) > 20 for path in tmp_path.glob("runs/*/records.jsonl")):
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["frames"] >= 20
    assert (tmp_path / summary["report"]).is_file()
