"""A model of unknown origin: it may kill the process that tries it, and no other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from graphs import classifier
from isthmus.device.executor import Executor
from isthmus.edge_server.engines import Tail
from isthmus.models import bundle, flatbuffer, picture_ladder, trial
from isthmus.proto.errors import BundleError, ModelError

DAMAGED = Path(__file__).parent / "damaged"


def run(monkeypatch: pytest.MonkeyPatch, script: str, tmp_path: Path) -> None:
    """Let trials be made by a script, not by Python."""
    stub = tmp_path / "python"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o755)
    monkeypatch.setattr(trial, "_deaths", {})
    monkeypatch.setattr(sys, "executable", str(stub))


def test_what_kills_the_runtime_is_an_error_message() -> None:
    """Flipped bits of a graph of 4.7 kB that ended `models split` with SIGSEGV."""
    with pytest.raises(
        ModelError, match=r"native-crash\.tflite: LiteRT dies of it \(signal 11, SIGSEGV\); the file is"
    ):
        flatbuffer.read(DAMAGED / "native-crash.tflite")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -SEGV $$", r"dies of it \(signal 11, SIGSEGV\)"),
        ("kill -ABRT $$", r"dies of it \(signal 6, SIGABRT\)"),
        ("exec sleep 60", "does not come to an end with it in 0 s"),
    ],
)
def test_however_it_ends_it_is_told_and_tried_once(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(tmp_path / "model.tflite")
    run(monkeypatch, f"echo tried >> {tmp_path / 'trials'}\n{script}", tmp_path)
    monkeypatch.setattr(trial, "LIMIT_S", 0.4)
    copied = Path(shutil.copy(model, tmp_path / "copy.tflite"))
    for path in (model, copied):
        with pytest.raises(ModelError, match=f"{path.name}: LiteRT {why}; the file is damaged"):
            trial.check(path)
    assert (tmp_path / "trials").read_text() == "tried\n"


def test_what_is_sound_or_refused_in_words_passes_the_trial(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("no model")
    trial.check(tmp_path / "text.tflite")
    trial.check(classifier(tmp_path / "model.tflite"))
    with pytest.raises(ModelError, match="No such file"):
        trial.check(tmp_path / "absent.tflite")


def test_agent_and_server_try_a_bundle_that_did_not_come_with_isthmus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = bundle.load(str(shutil.copytree(bundle.ZOO / "signs", tmp_path / "signs")))
    run(monkeypatch, "kill -SEGV $$", tmp_path)
    Executor(bundle.load("signs"))
    with pytest.raises(BundleError, match=r"head\.tflite: not a head of this bundle \(.*LiteRT dies of it"):
        Executor(copy)
    parts = (picture_ladder.TailPart("head.tflite", "litert"),)
    tail = bundle.Bundle(copy.folder, msgspec.structs.replace(copy.manifest, tail=parts), copy.sha256)
    with pytest.raises(BundleError, match=r"head\.tflite: not a tail that LiteRT can run \(.*LiteRT dies of it"):
        Tail(tail, 1)


def test_the_command_ends_with_its_own_code() -> None:
    command = [sys.executable, "-m", "isthmus.cli", "models", "split", str(DAMAGED / "native-crash.tflite")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (ModelError.exit_code, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
