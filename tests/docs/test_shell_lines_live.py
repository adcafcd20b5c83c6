"""What the documents show is typed: every page's commands in a shell of its own, in a network of its own, in page order.

The network has nobody but the page: its ports are free, and the machines that pages speak of are this one. An agent stops
after a few frames, since every key is a variable too; servers and relays run beside until the page is through.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.device.config import AgentConfig
from isthmus.edge_server.config import ServerConfig
from isthmus.proto import config
from shell_lines import NOT_RUN, PAGES, ROOT, Block, blocks, is_shell, lines, why_not

ALONE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
HOSTS = "127.0.0.1 localhost edge.local minipc.local"
FILES = {
    "phone.csv": "Timestamp,UL_kbps\n1764500000000,5000\n1764500001000,3000\n1764500002000,0\n1764500003000,4000\n",
    "drive.csv": "time_s,up_mbps,down_mbps\n0,5,20\n1,3,12\n2,0,0\n3,4,15\n",
}
"""What pages take for granted to lie in the reader's folder."""
WELCOME = {"docs/start/wifi.md": ("garden",), "docs/start/mini-pc.md": ("device",), "README.md": ("device",)}
"""Whom a page's server has served once the page is through."""
PRELUDE = """
ip link set lo up && ip addr add 192.168.1.20/32 dev lo && mount --bind hosts /etc/hosts || exit 77
beside=()
told() { echo "line $1 ended with $2: $3" >&2; exit 1; }
typed() { bash -c "$2"; local rc=$?; [ $rc = 0 ] || told "$1" $rc "$2"; }
begun() {
  bash -c "exec $2" > beside.$1 & beside+=($!)
  for _ in $(seq 300); do [ -s beside.$1 ] && return; kill -0 $! 2> /dev/null || told "$1" early "$2"; sleep 0.1; done
  told "$1" silent "$2"
}
watched() {
  timeout --signal=INT 3 bash -c "exec $2" > /dev/null; local rc=$?
  [[ " 0 124 130 " == *" $rc "* ]] || told "$1" $rc "$2"
}
trap 'kill "${beside[@]}" 2> /dev/null; wait' EXIT
"""


def typed(block: Block) -> list[str]:
    """A block as lines of the script that types it."""
    if block.file is not None:
        return [f"cat > {block.file} <<'END'\n{block.text}END"]
    if (
        block.language == "python"
        and why_not(block.text) is None
        and "import" in block.text
        and "class " not in block.text
    ):
        return [f"{sys.executable} - <<'END' || told {block.line} $? python\n{block.text}END"]
    if not is_shell(block):
        return []
    run = [line for line in lines(block) if why_not(line) is None]
    return [f"{how(line)} {block.line} {shlex.quote(line)}" for line in run]


def how(line: str) -> str:
    """Whether a command runs to its end, beside the others, or until it is left."""
    verb = line.split()[1:2]
    return "begun" if verb in (["serve"], ["relay"]) else "watched" if verb == ["top"] else "typed"


SCRIPTS = {page: script for page in PAGES if (script := [line for block in blocks(page) for line in typed(block)])}


@pytest.mark.parametrize(
    "page", [page for page, script in SCRIPTS.items() if any("isthmus" in line or "python" in line for line in script)]
)
def test_a_page_can_be_typed(page: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "hosts").write_text(f"{HOSTS}\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    # `scp -r FOLDER HOST:PLACE`: the other machine is this one.
    for name, text in {"isthmus": f'exec {sys.executable} -m isthmus.cli "$@"', "scp": 'cp -r "$2" "${3##*/}"'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "script").write_text(PRELUDE + "\n".join(SCRIPTS[page]))
    variables = os.environ | {
        "ISTHMUS_AGENT_FRAMES": "15",
        "ISTHMUS_AGENT_FPS": "5",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    ended = subprocess.run(
        [*ALONE, "bash", "script"], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300
    )
    if ended.returncode == 77:
        pytest.skip("a namespace of one's own gives no rights here")
    assert ended.returncode == 0, ended.stderr[-3000:]
    for device in WELCOME.get(page, ()):
        assert f"'{device}' at 127.0.0.1" in ended.stderr
        assert ": welcome" in ended.stderr


def test_every_reason_not_to_run_a_line_is_some_lines() -> None:
    """A reason that no line has any more goes."""
    given = {why_not(line) for page in PAGES for block in blocks(page) if is_shell(block) for line in lines(block)}
    assert set(NOT_RUN) == given - {None}


def test_pages_of_first_steps_are_run() -> None:
    assert {"docs/start/without-hardware.md", "docs/start/mini-pc.md", "docs/start/wifi.md", "README.md"} <= set(
        SCRIPTS
    )


def test_files_that_pages_of_first_steps_show_are_right(tmp_path: Path) -> None:
    shown = [block for page in PAGES if "/start/" in page for block in blocks(page) if block.language == "toml"]
    assert len(shown) == 2
    server, agent = (block.text for block in shown)
    (tmp_path / "server.toml").write_text(server)
    config.resolve(ServerConfig, tmp_path / "server.toml", {}, prefix="ISTHMUS_NOBODY")
    (tmp_path / "agent.toml").write_text(agent)
    config.resolve(AgentConfig, tmp_path / "agent.toml", {}, prefix="ISTHMUS_NOBODY")
