"""The device's half in an arm64 userland under qemu: `make test-arm64`. Its times are qemu's, and say nothing of a board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isthmus.cli import processes

ROOT = Path(__file__).parents[2]
ARM64 = os.environ.get("ISTHMUS_ARM64", "")
TESTS = (
    "tests/proto/test_codec.py", "tests/proto/test_wire.py", "tests/device/test_session.py",
    "tests/device/test_session_events.py", "tests/device/test_scheduler.py", "tests/device/test_executor.py",
)  # fmt: skip
LAST_DIGITS = 1e-6
"""Of the largest value of a tensor."""
OUTPUTS = """
import json
import numpy as np
from isthmus.models import bundle, litert

found = {}
for name in sorted(path.parent.name for path in bundle.ZOO.glob("*/bundle.toml")):
    interpreter = litert.opened(bundle.ZOO / name / "head.tflite")
    for key in sorted(interpreter.get_signature_list()):
        signature = litert.Signature(interpreter, key)
        rng = np.random.default_rng(0)
        inputs = {}
        for port, p in signature.inputs.items():
            limits = np.iinfo(p.dtype) if p.dtype.kind in "iu" else None
            shape = (1, *p.shape[1:])
            inputs[port] = (rng.integers(limits.min, limits.max, shape, p.dtype, endpoint=True) if limits is not None
                            else rng.integers(0, 255, shape).astype(p.dtype))
        stored = {port: np.asarray(value) for port, value in signature.stored(**inputs).items()}
        for port, value in sorted(stored.items()):
            found[f"{name} {key} {port}"] = value.ravel().tolist()
print(json.dumps({"outputs": found, "accelerated": litert.is_accelerated()}))
"""

pytestmark = pytest.mark.skipif(not ARM64, reason="make test-arm64 makes an arm64 system and names it")


def within(*command: str) -> list[str]:
    return ["sh", str(Path(__file__).with_name("arm64.sh")), ARM64, "run", *command]


def test_codec_wire_session_scheduler_and_executor() -> None:
    """The golden bytes of codec and wire are among them: they are the same on both processors."""
    python = ["python3.11", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        within("sh", "-c", f"cd /opt/isthmus && {' '.join(python)}"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_shipped_head_gives_what_it_gives_on_this_processor() -> None:
    """What is computed in integers to the bit; what is summed in float32, in another order, to its last digits."""
    here = subprocess.run([sys.executable, "-c", OUTPUTS], capture_output=True, text=True, check=True)
    there = subprocess.run(within("python3.11", "-c", OUTPUTS), capture_output=True, text=True, check=True)
    ours, theirs = (json.loads(done.stdout.splitlines()[-1]) for done in (here, there))
    assert theirs["accelerated"]
    assert theirs["outputs"].keys() == ours["outputs"].keys()
    for name, values in ours["outputs"].items():
        one, other = np.asarray(values), np.asarray(theirs["outputs"][name])
        allowed = 0.0 if name.endswith((" hidden", " boxes")) else LAST_DIGITS * np.abs(one).max()
        assert np.abs(one - other).max() <= allowed, name


def test_an_arm64_agent_is_answered_by_a_server_of_this_processor(tmp_path: Path) -> None:
    with processes.started(
        "serve", "--bundle", "signs", "--insecure", "--listen", "127.0.0.1:0", log=tmp_path / "log"
    ) as server:
        address = processes.address_in(processes.first_line(server, "serve", tmp_path / "log"))
        agent = "python3.11 -m isthmus.cli agent --bundle signs --insecure --source generated:1 --deadline 30s --fps 1 --frames 8"
        done = subprocess.run(
            within(*agent.split(), "--policy", "always-offload", "--server", address),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        processes.end(server)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 8
    assert {answer["source"] for answer in answers[3:]} == {"server"}
