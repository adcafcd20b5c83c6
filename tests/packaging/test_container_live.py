"""Both containers' roots, made by the script of the container files, run as a container runs them: `make test-container`.

No engine and no base image is needed: a root of its own (read-only), a network of its own, no privilege, another user.
It takes Debian 12, root, and some minutes to make the roots, in the folder that ISTHMUS_CONTAINERS names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "examples/containers"
FOLDER = os.environ.get("ISTHMUS_CONTAINERS", "")
MOST_BYTES = 150_000_000
LOAD_ALL = """
import pkgutil, sys
from importlib import import_module
extras = {"zeroconf", "ifaddr", "opentelemetry", "prometheus_client", "zmq", "ray", "picamera2", "grpc_reflection"}
for portion in ("proto", sys.argv[1]):
    package = import_module(f"isthmus.{portion}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] not in extras:
                raise
"""
"""What was removed from a root may be missed by what a demo does not use."""

pytestmark = pytest.mark.skipif(not FOLDER, reason="make test-container names a folder for the roots")


def health_of(half: str) -> list[str]:
    """The container file's own health check."""
    (found,) = re.findall(r"HEALTHCHECK.*\\\n  CMD (\[.*\])", (CONTAINERS / f"{half}.Containerfile").read_text())
    return list(json.loads(found))


def made(half: str) -> Path:
    root = Path(FOLDER) / half
    if not root.exists():
        wheel = next(Path(FOLDER).glob("*.whl"), None)
        if wheel is None:
            command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", FOLDER]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            wheel = next(Path(FOLDER).glob("*.whl"))
        subprocess.run(["sh", CONTAINERS / "root.sh", half, root, wheel], check=True, capture_output=True)
    return root


@pytest.fixture(scope="module")
def roots() -> dict[str, Path]:
    return {half: made(half) for half in ("agent", "server")}


def test_both_halves_run_read_only_without_privileges_and_are_healthy(roots: dict[str, Path]) -> None:
    """In one network of their own, so that the ports are those of the files."""
    enter = Path(__file__).with_name("as_container.py")
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", sys.executable, enter, json.dumps({
            "roots": {half: str(root) for half, root in roots.items()},
            "health": {half: health_of(half) for half in roots},
        })],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["healthy"] == {"server": 0, "agent": 0}
    assert set(seen["sources"]) == {"server"}
    assert seen["written"] == ["answers.jsonl"]
    assert seen["root_is_read_only"]


@pytest.mark.parametrize(("half", "portion"), [("agent", "device"), ("server", "edge_server")])
def test_every_module_of_a_half_can_be_loaded(roots: dict[str, Path], half: str, portion: str) -> None:
    command = ["chroot", str(roots[half]), "/usr/bin/python3.11", "-c", LOAD_ALL, portion]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_agents_image_is_small_to_fetch(roots: dict[str, Path]) -> None:
    """Compressed, as a registry keeps and a device fetches it."""
    packed = f"tar -c -C {shlex.quote(str(roots['agent']))} . | gzip -1 | wc -c"
    counted = subprocess.run(packed, shell=True, capture_output=True, text=True, check=True)
    assert int(counted.stdout) < MOST_BYTES
