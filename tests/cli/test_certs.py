"""`isthmus certs`: what it makes, what it says to copy, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from isthmus.cli.main import application
from isthmus.proto.security import channel_credentials


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(application(["certs"]), ["certs", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_device_is_added_and_revoked(tmp_path: Path) -> None:
    certs = str(tmp_path / "certs")
    shown = invoke("init", certs, "--host", "edge.local")
    assert f"{certs}/server          copy to the server" in shown
    assert f"isthmus certs add-device NAME --certs {certs}" in shown
    assert "--client-id cam7" in invoke("add-device", "cam7", "--certs", certs)
    channel_credentials(tmp_path / "certs" / "devices" / "cam7")
    assert f"{certs}/server/revoked.txt" in invoke("revoke", "cam7", "--certs", certs)
    assert (tmp_path / "certs" / "server" / "revoked.txt").read_text() == "cam7\n"


def test_the_authoritys_key_lies_in_no_folder_that_is_copied(tmp_path: Path) -> None:
    invoke("init", str(tmp_path / "certs"))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("ca.key")] == ["certs/ca/ca.key"]


def test_an_error_is_one_line_and_its_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isthmus.cli", "certs", "add-device", "cam7"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 9
    assert done.stderr.count("\n") == 1
    assert (
        "certs/ca.pem: No such file or directory; --certs names the folder that `isthmus certs init` made"
        in done.stderr
    )
