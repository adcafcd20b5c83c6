"""Sixty and more wrong inputs: each ends with the documented code and one line that begins with the thing."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphs import classifier
from isthmus.cli import main
from isthmus.models.bundle import ZOO
from isthmus.proto import errors

WRONG: dict[int, list[tuple[str, str]]] = {
    2: [
        ("agnet", "No such command 'agnet'"),
        ("agent --deadlin 100ms", "No such option"),
        ("agent --fps soon", "'soon' is not a valid float"),
        ("report", "Missing argument"),
        ("models evaluate", "Missing argument"),
        ("traces info", "Missing argument"),
        ("certs", "Usage"),
        ("report run.jsonl --format yaml", "'yaml' is not one of"),
        ("models split model.tflite --agreement 2", "2.0 is not in the range"),
    ],
    3: [
        ("agent --deadline 100", r"--deadline: '100' has no unit; write 100ms or 100s"),
        ("agent --deadline 0s", r"--deadline: deadline_s = 0"),
        ("agent --deadline 5apples", r"--deadline: 'apples' is no unit"),
        ("agent --fps 0", r"--fps: fps = 0"),
        ("agent --frames 0", r"--frames: frames = 0"),
        ("agent --gate 300", r"--gate: gate = 300"),
        ("agent --threads 1000", r"--threads: threads = 1000"),
        ("agent --server nowhere", r"--server: server = 'nowhere', expected HOST:PORT"),
        ("agent --server a:1,b", r"--server: server = 'b', expected HOST:PORT"),
        ("agent --policy best", r"'best'"),
        ("agent --config absent.toml", r"absent\.toml: No such file"),
        ("agent --config broken.toml", r"broken\.toml: not valid TOML"),
        ("agent --config unknown.toml", r"unknown\.toml: unknown key 'deadlin_s'"),
        ("agent --record-file-bytes 5parsecs", r"--record-file-bytes: 'parsecs' is no unit"),
        ("agent --as-device pi99 --frames 1", r"pi99"),
        ("serve --insecure --max-batch 1000000", r"--max-batch: max_batch = 1000000"),
        ("serve --insecure --threads 100000", r"--threads: threads = 100000"),
        ("serve --insecure --engine abacus", r"'abacus'"),
        ("serve --insecure --grace 2", r"--grace: '2' has no unit"),
        ("config check agent unknown.toml", r"unknown\.toml: unknown key"),
        ("emulate --policy best", r"'best'"),
        ("emulate --profile pi99", r"pi99"),
        ("emulate --scenario nowhere", r"nowhere"),
        ("emulate --set colour=red", r"colour"),
        ("emulate --duration 5", r"--duration: '5' has no unit"),
        ("shape --outage maybe -- true", r"--outage: 'maybe' is neither hold nor drop"),
        ("shape --backend magic -- true", r"magic"),
        ("traces convert demo out.csv --scale 0", r"convert: --scale"),
        ("traces convert demo out.csv --columns up", r"--columns: 'up' is not NAME=FACTOR\*COLUMN"),
        ("traces make constant out.csv --up-mbps 5 --length 0s", r"--length: must be above 0"),
        ("models split model.tflite --task juggling", r"--task: 'juggling' is not one of"),
        ("models split model.tflite --out bundle", r"--pictures: needed"),
        ("models train horses", r"horses"),
        ("sweep broken.toml", r"broken\.toml"),
    ],
    4: [
        ("agent --bundle nothing", r"nothing"),
        ("agent --bundle changed", r"changed.*sha256"),
        ("models verify changed", r"changed.*sha256"),
        ("serve --insecure --bundle nothing", r"nothing"),
        ("models info nothing", r"nothing"),
        ("emulate --bundle nothing", r"nothing"),
    ],
    5: [
        ("report absent.jsonl", r"absent\.jsonl"),
        ("report text.jsonl", r"text\.jsonl"),
        ("traces info nowhere", r"nowhere"),
        ("traces info backwards.csv", r"backwards\.csv: line 4: timestamps must not decrease"),
        ("traces info empty.csv", r"empty\.csv"),
        ("traces list absent", r"absent: not a folder"),
        ("emulate --trace backwards.csv", r"backwards\.csv: line 4"),
        ("relay --to 127.0.0.1:1 --trace empty.csv", r"empty\.csv"),
        ("models split model.tflite --pictures absent --pixels 0..1", r"absent"),
        ("models split model.tflite --pictures labels.txt --pixels 0..1", r"labels\.txt"),
    ],
    6: [
        ("agent --source absent.mp4", r"absent\.mp4"),
        ("agent --source text.mp4", r"text\.mp4"),
        ("agent --source empty", r"empty"),
        ("agent --source camera:77", r"camera"),
    ],
    7: [
        ("serve --insecure --listen 127.0.0.1:{taken}", r"127\.0\.0\.1:\d+: cannot listen"),
        ("relay --listen 127.0.0.1:{taken} --to 127.0.0.1:1", r"127\.0\.0\.1:\d+: Address already in use; free"),
    ],
    9: [
        ("agent --server 127.0.0.1:1", r"insecure"),
        ("serve", r"insecure"),
        ("agent --server 127.0.0.1:1 --certs absent", r"absent"),
        ("serve --certs absent", r"absent"),
        ("certs revoke gate --certs absent", r"absent"),
    ],
    13: [
        ("models split text.tflite", r"text\.tflite"),
        ("models split absent.tflite", r"absent\.tflite"),
    ],
}
"""The documented code: the words after `isthmus`, and what is said."""
CASES = [(code, words, said) for code, cases in WRONG.items() for words, said in cases]
ELSEWHERE = {
    1: "tests/cli/doctoring/test_doctor.py",
    8: "tests/cli/test_exit_codes_live.py",
    10: "tests/cli/links/test_shape_live.py",
    11: "tests/cli/test_exit_codes_live.py",
    12: "tests/cli/test_exit_codes_live.py",
    130: "tests/cli/test_exit_codes_live.py",
    141: "tests/cli/test_wrong_inputs.py",
    143: "tests/injections/test_signals.py",
    0: "tests/cli/test_exit_codes_live.py",
}
"""Codes that one wrong word on a command line does not give, and the tests that show them."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A folder of wrong things, where the command is run; yields a port that is taken."""
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("deadline_s = = 1\n")
    Path("unknown.toml").write_text("deadlin_s = 0.1\n")
    Path("backwards.csv").write_text("time_s,up_mbps,down_mbps,rtt_ms,loss\n0,8,8,20,0\n2,8,8,20,0\n1,8,8,20,0\n")
    Path("empty.csv").touch()
    for name in ("text.jsonl", "text.mp4", "text.tflite", "labels.txt"):
        Path(name).write_text("a cat\na dog\n")
    Path("empty").mkdir()
    classifier(Path("model.tflite"))
    changed = Path("changed")
    changed.mkdir()
    for path in (ZOO / "signs").iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    head = next(changed.glob("head*.tflite"))
    head.write_bytes(head.read_bytes()[:-1] + b"\0\0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize(("code", "words", "said"), CASES)
def test_a_wrong_input(
    code: int, words: str, said: str, folder: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["isthmus", *shlex.split(words.replace("{taken}", str(folder)))])
    with pytest.raises(SystemExit) as ended:
        main.main()
    shown = capsys.readouterr()
    assert (ended.value.code, bool(re.search(said, shown.err + shown.out))) == (code, True), shown.err + shown.out
    if code != 2:
        lines = [line for line in shown.err.splitlines() if not line.startswith("INFO: ")]
        assert len(lines) == 1, shown.err
        assert lines[0].startswith("error: ")


def test_a_reader_that_went_away_ends_the_agent_quietly() -> None:
    command = [sys.executable, "-m", "isthmus.cli", "agent", "--frames", "200", "--fps", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline().startswith("{")
        agent.stdout.close()
        _, said = agent.communicate(timeout=60)
    assert agent.returncode == 141
    assert "Traceback" not in said


def test_every_row_of_the_table_has_its_test() -> None:
    page = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert rows == set(WRONG) | set(ELSEWHERE)
    assert all((Path(__file__).parents[2] / path).is_file() for path in ELSEWHERE.values())
    assert {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")} <= rows
