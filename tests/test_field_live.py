"""Real processes, as a user starts them: the link cut, the server killed, the wrong bundle, the wrong key."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from isthmus.models.scenes import Drive

ISTHMUS = [sys.executable, "-m", "isthmus.cli"]
DEADLINE = "400ms"
"""Generous: these tests are about where answers come from, and share their machine with others."""


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*ISTHMUS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finished(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ISTHMUS, *arguments], capture_output=True, text=True, timeout=120)


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    return next(word.rstrip(",") for word in line.split() if word.rstrip(",").rpartition(":")[2].isdecimal())


def answers(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def serve(
    listen: str = "127.0.0.1:0", bundle: str = "signs"
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return running("serve", "--bundle", bundle, "--insecure", "--listen", listen)


def watch(server: str, frames: int, *more: str) -> list[str]:
    fixed = [
        "agent",
        "--bundle",
        "signs",
        "--source",
        "generated:3",
        "--insecure",
        "--deadline",
        DEADLINE,
        "--fps",
        "15",
    ]
    return [*fixed, "--server", server, "--frames", str(frames), *more]


def test_a_blackout_costs_no_answer(tmp_path: Path) -> None:
    trace = tmp_path / "cut.csv"
    trace.write_text("time_s,up_mbps,down_mbps,rtt_ms,loss\n0,8,8,20,0\n10,0,0,20,0\n14,8,8,20,0\n40,8,8,20,0\n")
    with (
        serve() as server,
        running("relay", "--listen", "127.0.0.1:0", "--to", address(server), "--trace", str(trace)) as relay,
    ):
        near_end = address(relay)
        began_s = time.monotonic()
        with running(*watch(near_end, 15 * 18)) as agent:
            rows = list(answers(agent))
    assert [row["frame_id"] for row in sorted(rows, key=lambda r: r["frame_id"])] == list(range(15 * 18))
    assert all(row["label"] is not None for row in rows)
    assert sum(row["on_time"] for row in rows) >= 0.95 * len(rows)

    def sources(start_s: float, end_s: float) -> set[str]:
        return {row["source"] for row in rows if start_s <= row["captured_s"] - began_s < end_s}

    assert "server" in sources(0, 10)  # a busy machine may take half of it to start an agent
    assert sources(10.5, 13.5) == {"exit"}
    assert "server" in sources(16, 40)


def test_killed_and_restarted_the_server_is_used_again() -> None:
    """The restart may take its time on a busy machine; the answers may not."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve())
        where = address(server)
        agent = stack.enter_context(running(*watch(where, 15 * 90)))
        seen: list[str] = []
        for row in answers(agent):
            seen.append(row["source"])
            assert row["label"] is not None
            if len(seen) == 60:
                assert "server" in seen
                os.kill(server.pid, signal.SIGKILL)
            if len(seen) == 120:
                assert set(seen[70:]) == {"exit"}
                stack.enter_context(serve(where))
            if "server" in seen[120:]:
                break
        assert "server" in seen[120:]


def test_without_a_server_the_device_answers_from_the_start() -> None:
    done = finished(*watch("127.0.0.1:9", 20))
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 20
    assert {row["source"] for row in rows} == {"exit"}
    assert {row["reason"] for row in rows} == {"disconnected"}


def test_a_server_of_another_bundle_is_refused_with_both_named() -> None:
    with serve(bundle="cifar10") as server:
        done = finished(*watch(address(server), 200))
    assert done.returncode == 8
    assert "signs" in done.stderr
    assert "cifar10" in done.stderr


def test_a_port_in_use_ends_the_second_server() -> None:
    with serve() as server:
        done = finished("serve", "--insecure", "--listen", address(server))
    assert done.returncode == 7
    assert "in use" in done.stderr


def test_plaintext_must_be_spelled_out() -> None:
    for arguments in (["serve"], ["agent", "--server", "127.0.0.1:9"]):
        done = finished(*arguments)
        assert done.returncode == 9
        assert "--insecure" in done.stderr


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('bundle = "signs"\ndeadlin_s = 0.1\n')
    done = finished("agent", "--config", str(path))
    assert done.returncode == 3
    assert "agent.toml: unknown key 'deadlin_s'" in done.stderr.replace("\n", "")


def test_a_bundle_that_is_not_there_is_named() -> None:
    done = finished("agent", "--bundle", "sings")
    assert done.returncode == 4
    assert "sings: no bundle" in done.stderr


def test_a_picture_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), Drive(1).frame(i).image[:, :, ::-1])
    (tmp_path / "1.png").write_bytes(b"damaged")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.png").mkdir()
    done = finished("agent", "--bundle", "signs", "--source", str(tmp_path), "--deadline", DEADLINE)
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    bad = {row["picture"]: row["reason"] for row in rows if row["source"] == "none"}
    assert bad == dict.fromkeys(("1.png", "gone.png", "folder.png"), "invalid")
    assert [row["source"] for row in rows].count("exit") == 2
    assert "1.png: not a picture" in done.stderr


def test_sigterm_lets_the_agent_answer_what_it_has_taken() -> None:
    with running(*watch("127.0.0.1:9", 10_000)) as agent:
        rows = []
        for row in answers(agent):
            rows.append(row)
            if len(rows) == 10:
                agent.terminate()
        assert agent.wait(30) == 0
    assert sorted(row["frame_id"] for row in rows) == list(range(len(rows)))


def test_a_reader_that_goes_away_ends_the_agent_quietly() -> None:
    with running(*watch("127.0.0.1:9", 10_000)) as agent:
        assert agent.stdout is not None
        assert agent.stderr is not None
        agent.stdout.readline()
        agent.stdout.close()
        assert agent.wait(30) == 128 + signal.SIGPIPE
        assert "Traceback" not in agent.stderr.read()


def test_a_record_that_cannot_be_written_costs_no_answer_and_is_named_at_the_end() -> None:
    done = finished("agent", "--frames", "5", "--record", "/dev/full")
    assert done.returncode == 5
    assert len(done.stdout.splitlines()) == 5
    assert done.stderr.splitlines()[-1].endswith("missing are 5 in /dev/full")
    assert done.stderr.count("/dev/full: No space left on device") == 1
    assert "Traceback" not in done.stderr


def test_standard_output_that_is_full_ends_the_agent_unless_there_is_a_record(tmp_path: Path) -> None:
    from isthmus.proto import record

    path = tmp_path / "run.jsonl"
    for more, rows in (([], 0), (["--record", str(path)], 5)):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*ISTHMUS, "agent", "--frames", "5", *more], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
            )
        assert done.returncode == 5
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert done.stderr.count("standard output: No space left on device") == 1
        assert "Traceback" not in done.stderr
        assert (len(record.read(path)[1]) if more else 0) == rows


def test_a_restart_does_not_erase_the_record(tmp_path: Path) -> None:
    from isthmus.proto import record

    path = tmp_path / "run.jsonl"
    for _ in range(2):
        assert finished("agent", "--frames", "3", "--record", str(path)).returncode == 0
    assert [len(run.records) for run in record.load_all(path)] == [3, 3]
    done = finished("report", str(path), "--format", "json", "--out", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    assert "run.jsonl#2" in done.stdout


def test_the_record_is_valid_after_ctrl_c(tmp_path: Path) -> None:
    from isthmus.proto import record

    path = tmp_path / "run.jsonl"
    with running("agent", "--source", "generated:1", "--record", str(path)) as agent:
        for n, _ in enumerate(answers(agent)):
            if n == 10:
                agent.send_signal(signal.SIGINT)
            assert n < 1000
        agent.wait(30)
        assert agent.returncode == 130
    header, rows = record.read(path)
    assert header.bundle == "signs"
    assert len(rows) >= 10
