"""From a detector's file and a folder of pictures to a bundle that runs, by the command that users type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; distilling needs it")
pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting a head needs it")
pytest.importorskip("onnxscript", reason="onnxscript is not installed; exporting a tail needs it")

from typer.testing import CliRunner

from graphs import classifier
from isthmus.cli.main import application
from isthmus.edge_server.engines import Tail
from isthmus.emulation.replay import Content
from isthmus.models import bundle as bundles
from isthmus.models.injection.settings import InjectionSettings
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake, samples
from isthmus.proto.codec import Codec
from small_detectors import CLASSES, SIZE, small_detector
from small_teachers import fill

pytestmark = pytest.mark.filterwarnings("ignore")  # the converters' own
QUICK = InjectionSettings(views=32, batch=8, small=1.0, small_share=1.0, steps=(0.2, 0.4), inside=8)


def command(arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what was said."""
    result = CliRunner().invoke(application(["models"]), arguments)
    said = "" if result.exception is None else str(result.exception)
    return result.exit_code, result.output + said


@pytest.fixture
def laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command, with settings that are quick."""
    fill(tmp_path / "pictures", 170, side=80)
    small_detector(tmp_path / "eyes.tflite")

    def quick(epochs: int, aimed_bytes: int) -> InjectionSettings:
        return replace(QUICK, epochs=epochs, aimed_bytes=aimed_bytes)

    monkeypatch.setattr("isthmus.models.injection.settings.InjectionSettings", quick)
    return [
        *(
            "models",
            "distill",
            str(tmp_path / "eyes.tflite"),
            "--pictures",
            str(tmp_path / "pictures"),
            "--epochs",
            "1",
        ),
        *("--pixels", "0..1", "--head-share", "0.95", "--out", str(tmp_path / "made")),
        *("--checkpoint", str(tmp_path / "state.pt")),
    ]


def test_a_detector_becomes_a_bundle_that_runs(tmp_path: Path, laid_out: list[str]) -> None:
    small = small_detector(tmp_path / "small.tflite", width=4, seed=1)
    code, said = command([*laid_out, "--fallback", str(small), "--bytes", "70"])
    assert code == 0, said
    assert "read as detection, boxes as fastestdet" in said
    made = bundles.load(str(tmp_path / "made"))
    manifest = made.manifest
    assert (manifest.task, manifest.reference, manifest.widths) == ("detection", "uncut", (1.0,))
    assert [stage[0].signature for stage in manifest.stages] == ["fallback", "head"]
    assert manifest.bottleneck.steps == QUICK.steps
    points = [p for p in manifest.points if p.exit is None]
    assert len(points) == 2 * 3
    assert points[2].bytes > points[0].bytes > 0
    picture = samples(tmp_path / "pictures", 1)[0]
    features = Signature(opened(made.head_path), "head")(image=Intake(manifest.input)(picture))["features"][0]
    decoded = Codec(made.codec).decode(Codec(made.codec).encode(np.ascontiguousarray(features), 0))
    one, same = Tail(made, 1).run([decoded, decoded])
    assert one == same is not None
    assert one is not None
    guess = manifest.answers.guess(one, temperature=1.0, accuracy=1.0)
    assert isinstance(guess.detail, tuple)
    assert all(box.label < CLASSES for box in guess.detail)
    assert len(made.outcomes().truth) == 17
    assert len(Content.of(made).points) == 1 + 2 * 3  # the emulator takes it
    card = (tmp_path / "made" / "MODEL_CARD.md").read_text()
    assert "`eyes.tflite`" in card
    assert "`small.tflite`" in card
    assert "AP50 %" in card


def test_without_a_fallback_nothing_answers_on_the_device(tmp_path: Path, laid_out: list[str]) -> None:
    code, said = command(laid_out)
    assert code == 0, said
    made = bundles.load(str(tmp_path / "made"))
    assert [stage[0].exit for stage in made.manifest.stages] == [()]
    assert "answered `none`" in (tmp_path / "made" / "MODEL_CARD.md").read_text()


def test_options_of_the_other_kind_of_model_are_refused(tmp_path: Path, laid_out: list[str]) -> None:
    code, said = command([*laid_out, "--widths", "0.5,1.0"])
    assert code != 0
    assert "eyes.tflite: does not answer with a class, and --widths has no meaning for it" in said
    laid_out[2] = str(classifier(tmp_path / "classes.tflite", size=32))
    code, said = command([*laid_out, "--bytes", "500"])
    assert "classes.tflite: answers with a class, and --bytes has no meaning for it" in said
    assert not (tmp_path / "made").exists()


def test_too_few_pictures_and_a_model_of_other_answers_are_named(tmp_path: Path, laid_out: list[str]) -> None:
    fill(tmp_path / "few", 30, side=SIZE)
    laid_out[laid_out.index("--pictures") + 1] = str(tmp_path / "few")
    _, said = command(laid_out)
    assert "few: 3 pictures to learn from or to judge by; give 16 for each, or more" in said
    assert not (tmp_path / "made").exists()
