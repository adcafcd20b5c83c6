"""What commands share: names of classes, extras that are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from graphs import classifier
from isthmus.cli import options
from isthmus.cli.main import application
from isthmus.cli.options import install, label_names, trained_until_then
from isthmus.emulation import sweep
from isthmus.proto.errors import ConfigError, DataError, IsthmusError


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("a\nb\nc\n", r"3 names, the model has 4 classes; give one a line"),
        ("background\na\nb\nc\nd\n", r"5 names, the model has 4 classes; is one of them a background"),
        ("\na\nb\nc\nd\n", r"5 names, the model has 4 classes"),
        ("", "0 names, the model has 4 classes"),
        ("a\nb\nc\nd", None),
        ("a\nb\nc\nd\n\n \n", None),
        ("\ufeffa\r\nb\r\nc\r\nd\r\n", None),
    ],
)
def test_there_are_as_many_labels_as_classes(names: str, problem: str | None, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(names.encode())
    if problem is None:
        assert label_names(path, 4) == ("a", "b", "c", "d")
        return
    with pytest.raises(DataError, match=rf"labels\.txt: {problem}"):
        label_names(path, 4)


def test_wrong_labels_are_refused_before_any_picture_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    arguments = [str(classifier(tmp_path / "model.tflite")), "--pictures", "nowhere", "--pixels", "0..1"]
    asked = ["models", "split", *arguments, "--labels", str(tmp_path / "labels.txt")]
    refused = CliRunner().invoke(application(asked), asked).exception
    assert isinstance(refused, DataError)
    assert "3 names, the model has 4 classes" in str(refused)


ABSENT = {
    ("serve", "--insecure"): ("server", "grpc_health"),
    ("certs", "init", "keys"): ("server", "cryptography"),
    ("demo", "--duration", "1s"): ("server", "onnxruntime"),
    ("demo", "--duration", "2s"): ("emulation", "matplotlib"),
    ("report", "runs"): ("emulation", "matplotlib"),
    ("sweep", "narrow.toml"): ("emulation", "matplotlib"),
    ("models", "evaluate", "signs"): ("server", "onnxruntime"),
    ("models", "compare", "signs", "--pictures", "."): ("server", "onnxruntime"),
    ("models", "compare", "cifar10", "--pictures", "."): ("emulation", "matplotlib"),
    ("models", "train", "signs"): ("train", "torch"),
    ("models", "prune", "signs", "--flops", "0.5"): ("train", "torch"),
    ("models", "distill", "model.tflite", "--pictures", "."): ("train", "torch"),
    ("models", "filter", "."): ("train", "torch"),
    ("models", "ablate", "signs"): ("train", "torch"),
    ("models", "quantize", "signs"): ("train", "ai_edge_quantizer"),
}
BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["isthmus", *{arguments!r}]
from isthmus.cli.main import main
main()
"""


@pytest.mark.parametrize("arguments", ABSENT)
def test_an_extra_that_is_not_installed_is_one_line_before_any_work(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """`sweep` played everything first, and then ended in a traceback."""
    extra, absent = ABSENT[arguments]
    code = BLOCK.format(absent=absent, arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    told = f"not installed; this needs the '{extra}' extra: pip install "
    assert ended.returncode == ConfigError.exit_code, ended.stderr
    assert ended.stderr.startswith(f"error: {absent}")
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not ended.stdout
    assert not list(tmp_path.iterdir())


def test_the_way_out_is_a_checkout_s_or_a_wheel_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert install("server") == "pip install -e '.[server]'"
    assert install() == "pip install -e '.'"
    wheel = tmp_path / "site-packages" / "isthmus" / "cli" / "options.py"
    monkeypatch.setattr(options, "__file__", str(wheel))
    assert install("server") == "pip install 'isthmus[server]'"
    assert install() == "pip install 'isthmus'"


UNWRITABLE: tuple[tuple[str, ...], ...] = (
    ("bench", "device", "--out", "file/profile.toml"),
    ("bench", "server", "--out", "file/profile.toml"),
    ("emulate", "--duration", "2s", "--out", "file/out"),
    ("sweep", "narrow.toml", "--out", "file/out"),
    ("report", "run.jsonl", "--out", "file/out"),
    ("demo", "--duration", "1s"),
    ("traces", "convert", "demo", "file/demo.csv"),
    ("traces", "record", "file/link.csv", "--server", "127.0.0.1:9"),
    ("traces", "make", "constant", "file/demo.csv", "--up-mbps", "1"),
    ("models", "split", "model.tflite", "--out", "file/out"),
    ("models", "quantize", "signs", "--out", "file/out"),
    ("models", "export", "signs", "--out", "file/out"),
    ("models", "ablate", "signs", "--out", "file/out"),
)


@pytest.mark.parametrize("arguments", UNWRITABLE, ids=lambda a: "-".join(a[:2]))
def test_what_cannot_be_written_is_one_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`file` is no folder, so that even root cannot write into it."""
    if arguments[0] == "models" and arguments[1] != "split":
        pytest.importorskip("torch")
        pytest.importorskip("ai_edge_quantizer")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "runs").touch()
    (tmp_path / "narrow.toml").write_text('trace = "demo"\npolicy = ["local-only"]\nduration_s = 1.0\n')
    (tmp_path / "run.jsonl").touch()
    monkeypatch.setattr(sweep, "run", lambda *_, **__: pytest.fail("played before it was known whether it can be kept"))
    refused = CliRunner().invoke(application(arguments), list(arguments))
    assert isinstance(refused.exception, IsthmusError), refused.output
    assert refused.exception.exit_code == DataError.exit_code
    assert str(refused.exception).startswith(("file/", "runs/"))
    assert "\n" not in str(refused.exception)
    assert (tmp_path / "file").is_file()


def ctrl_c(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "at", "said"),
    [
        ("models split model.tflite", "isthmus.models.flatbuffer.read", "interrupted: nothing is written"),
        (
            "models pair a.tflite b.tflite --pictures x",
            "isthmus.models.pictures.samples",
            "interrupted: nothing is written",
        ),
        ("bench server", "isthmus.cli.bench._tail_times", "interrupted: nothing is written"),
        (
            "bench serve --server 127.0.0.1:1",
            "isthmus.emulation.load.live.answered",
            "interrupted: 0 devices were carried; the search for more was not at its end",
        ),
        (
            "traces record a.csv --server 127.0.0.1:1",
            "isthmus.emulation.realtime.record_link.record",
            "nothing is written",
        ),
    ],
)
def test_ctrl_c_says_what_there_is(command: str, at: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = command.split()
    app = application(arguments)
    monkeypatch.setattr(at, ctrl_c)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130
    assert said in done.output


def test_a_training_that_is_interrupted_says_how_to_go_on(tmp_path: Path) -> None:
    checkpoint = tmp_path / "signs.pt"
    assert trained_until_then(checkpoint) == "no epoch was finished; nothing is written"
    checkpoint.touch()
    assert "the same command goes on from it" in trained_until_then(checkpoint)
