"""Injections of the disk: full, read-only, and files that were changed under the product."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from injections import tails
from injections.invariants import invariants, quiet
from injections.lab import Lab
from isthmus.models import bundle as bundles
from isthmus.proto import record


def _mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system of its own: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    yield from _mounted(tmp_path / "small", "size=64k")


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Path]:
    """A disk that is read-only, also for root."""
    yield from _mounted(tmp_path / "sealed", "ro")


def test_28_full_record(lab: Lab, small: Path) -> None:
    """28: the disk is full in the middle of a record: said once; the answers go on, and what was written is whole."""
    server = lab.server()
    path = small / "run.jsonl"
    agent = lab.agent(server.address, "--record", str(path))
    agent.settle()
    agent.until(lambda: "No space left" in agent.log or agent.ended, "the disk is full")
    if not agent.ended:
        agent.answered_by("server", 20)
        assert agent.end() in {0, 5}, agent.last_words
    assert 1 <= agent.log.count("No space left") <= 2, "said when it happens, and where it ends the process"
    assert len(record.load(path).records) >= 50
    quiet(agent)
    invariants([], [server])


def test_28_full_output(lab: Lab) -> None:
    """28: standard output cannot be written: said once, by the documented code; a record that can be is still written."""
    full = os.open("/dev/full", os.O_WRONLY)
    path = lab.folder / "run.jsonl"
    try:
        alone = lab.agent(None, frames=20, stdout=full)
        assert alone.wait() == 5, alone.last_words
        both = lab.agent(None, "--record", str(path), frames=20, stdout=full)
        assert both.wait() in {0, 5}, both.last_words
    finally:
        os.close(full)
    for agent in (alone, both):
        assert 1 <= agent.log.count("No space left") <= 2, agent.last_words
        quiet(agent)
    assert len(record.load(path).records) == 20, "the record is a sink of its own"


def test_28_certificates(lab: Lab, small: Path) -> None:
    """28: `certs init` on a full disk leaves nothing that stands in the way of the next try."""
    (small / "filler").write_bytes(bytes(56 * 1024))
    (small / "more").write_bytes(bytes(4 * 1024))
    folder = small / "certs"
    first = lab.run("certs", "init", str(folder))
    assert first.process.returncode not in {0, 1, 2}, first.last_words
    quiet(first, 6)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size == 0]
    (small / "filler").unlink()
    again = lab.run("certs", "init", str(folder))
    assert again.process.returncode == 0, again.last_words


def test_28_read_only(lab: Lab, sealed: Path) -> None:
    """28: folders that cannot be written cost one line each, with a documented code, before any work is done."""
    commands = {
        ("agent", "--frames", "3", "--record", str(sealed / "run.jsonl")): {5},
        ("agent", "--frames", "3", "--preview", str(sealed / "now.png")): {6},
        ("certs", "init", str(sealed / "certs")): {9},
        ("emulate", "--duration", "1s", "--out", str(sealed / "runs")): {5},
    }
    for arguments, codes in commands.items():
        refused = lab.run(*arguments)
        assert refused.process.returncode in codes, refused.last_words
        assert str(sealed) in refused.log.replace("\n", "")
        quiet(refused, 8)


def test_19_changed_bundle(lab: Lab) -> None:
    """19: a bundle of which one bit was changed is refused by both halves, by name, whichever file it is in."""
    rng = random.Random(19)
    source = Path(bundles.find("signs"))
    for name, half in (
        ("head.tflite", "agent"),
        ("tail.onnx", "serve"),
        ("bundle.toml", "agent"),
        ("bundle.toml", "serve"),
    ):
        folder = lab.folder / f"{half}-{name}"
        tails.bundle(folder, (source / "tail.onnx").read_bytes())
        raw = bytearray((folder / name).read_bytes())
        at = raw.index(b"labels") + 14 if name == "bundle.toml" else rng.randrange(len(raw))
        raw[at] ^= 1
        (folder / name).write_bytes(raw)
        more = ("--insecure", "--listen", "127.0.0.1:0") if half == "serve" else ("--frames", "2")
        refused = lab.role(half, "--bundle", str(folder), *more)
        assert refused.wait() == 4, refused.last_words
        assert name in refused.log.replace("\n", "")
        quiet(refused, 6)


DAMAGE = {
    "no hex": (r'(tables = \[\s+\[\s+")..', r"\1zz"),
    "short list": (r"(accuracy_given = \[\s+\[\s+)[^\]]*", r"\g<1>0.5"),
    "one step too many": (r"(steps = \[)", r"\g<1>9.0, "),
    "no such width": (r"(widths = \[)", r"\g<1>0.125, "),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_19_manifest_that_does_not_fit(lab: Lab, how: str) -> None:
    """19: a bundle.toml that reads, and whose hash is right, but whose parts do not fit each other, is refused in a line."""
    folder = lab.folder / "bundle"
    tails.bundle(folder, (bundles.find("signs") / "tail.onnx").read_bytes())
    path = folder / "bundle.toml"
    text, count = re.subn(*DAMAGE[how], path.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    tails.seal(folder)
    refused = lab.role("agent", "--bundle", str(folder), "--frames", "2")
    assert refused.wait() == 4, refused.last_words
    assert "bundle" in refused.log
    quiet(refused, 6)
