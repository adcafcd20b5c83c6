"""Distillation: the student begins as a transform and learns the teacher's answers; the teacher itself runs behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; distilling needs it")

import torch
from typer.testing import CliRunner

from graphs import MIDDLES, around, classifier
from isthmus.cli.main import application
from isthmus.edge_server.engines import Tail
from isthmus.emulation.fakes import Content
from isthmus.emulation.policies.contestant import pictures as sending_pictures
from isthmus.models import bundle as bundles
from isthmus.models import data, flatbuffer, inputs
from isthmus.models.distill import Course, Distiller, Settings
from isthmus.models.distilled import Commission
from isthmus.models.litert import Signature, opened
from isthmus.models.spectra import trained
from isthmus.models.students import STRAIGHT, PatchHead, fitted
from isthmus.models.views import Album, Answers, as_seen
from isthmus.proto.codec import Codec
from isthmus.proto.errors import DataError, ModelError
from isthmus.proto.spectrum import SPECTRAL_LAYERS
from schools import SIZE, fill, silent, teacher

SETTINGS = Settings(
    widths=(0.5, 1.0),
    epochs=8,
    batch=16,
    views=2,
    decoder_channels=8,
    decoder_finer_channels=8,
    bottleneck_channels=8,
    head_share=1.0,
)


def course(tmp_path: Path, settings: Settings = SETTINGS) -> Course:
    if not (tmp_path / "pictures").is_dir():
        fill(tmp_path / "pictures", 40)
    album = Album(tmp_path / "pictures", SIZE, tmp_path / "cache", silent)
    return Course(teacher(tmp_path), Answers(album, teacher(tmp_path), seed=1), np.arange(32), settings)


def test_the_widest_head_within_the_share_is_chosen() -> None:
    small, large = (fitted(224, 1001, (0.25, 1.0), 40, flops) for flops in (20e6, 60e6))
    assert 2 * sum(PatchHead(small).macs(1.0)) <= 20e6
    assert 50e6 < 2 * sum(PatchHead(large).macs(1.0)) <= 60e6
    assert large.bottleneck_size == 14
    with pytest.raises(ModelError, match=r"head: none of at most 0\.1 MFLOP for 224 pixels"):
        fitted(224, 1001, (1.0,), 40, 1e5)
    with pytest.raises(ModelError, match="input: 20 pixels; a student takes a multiple of 16, and 32 or more"):
        fitted(20, 10, (1.0,), 40, 1e9)


def test_a_student_begins_as_a_transform_of_the_picture(tmp_path: Path) -> None:
    """With as many components as pixels nothing is lost, whatever the width."""
    everything = replace(SETTINGS, bottleneck_channels=4 * STRAIGHT, head_share=3.0)
    begun = course(tmp_path, everything)
    student, images = begun.student().eval(), begun.some_images
    x = data.normalised(images, begun.teacher.input.mean, begun.teacher.input.std)
    with torch.no_grad():
        features = [student.head(x, width)[0] for width in SETTINGS.widths]
        rebuilt = student.tail(features[0])
    assert torch.equal(*features)
    assert float((rebuilt.permute(0, 3, 1, 2) - x).square().mean()) < 0.02 * float(x.var())


def test_what_training_rounds_is_what_the_codec_decodes(tmp_path: Path) -> None:
    distiller = Distiller(course(tmp_path), report=silent)
    with torch.no_grad():
        x = distiller._pictures(distiller.course.some_images)
        features = distiller.student.eval().head(x, 1.0)[0]
        rounded, bits = distiller.rounding(features, torch.full((len(x), 1, 1, 1), 0.55))
    as_coded = features.permute(0, 2, 3, 1).numpy()
    codec = Codec(trained(as_coded, (0.4, 0.55, 0.75)))
    decoded = np.stack([codec.decode(codec.encode(np.ascontiguousarray(each), 1)) for each in as_coded])
    within = np.abs(decoded - rounded.permute(0, 2, 3, 1).numpy())  # but for ties, and values at the floor
    assert np.quantile(within, 0.95) < 1e-3
    assert float(bits) > 0


def test_learning_brings_the_late_map_nearer(tmp_path: Path) -> None:
    said: list[str] = []
    faster = replace(SETTINGS, views=1, rate_weight=0.0, peak_rate=5e-3, straight_rate=5e-3)
    Distiller(course(tmp_path, faster), report=silent).run(tmp_path / "state.pt", said.append)
    epochs = [line for line in said if line.startswith("epoch")]
    guides = [float(line.split("guide ")[1].split(",")[0]) for line in epochs]
    assert len(epochs) == 8
    assert guides[-1] < 0.9 * guides[0]


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    first = Distiller(course(tmp_path), report=silent)
    first.epoch(silent)
    first.epochs_done = 1
    first.save(state)
    said: list[str] = []
    second = Distiller(course(tmp_path), report=silent)
    second.load(state)
    for mine, theirs in zip(first.student.parameters(), second.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    second.run(state, said.append)
    assert said[0] == "resumed after epoch 1 of 8"
    assert second.epochs_done == 8


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Distiller(course(tmp_path), report=silent).save(tmp_path / "state.pt")
    other = Distiller(course(tmp_path, replace(SETTINGS, decoder_channels=16)), report=silent)
    with pytest.raises(DataError, match=r"state\.pt: a checkpoint of another run \(decoder_channels differ\)"):
        other.load(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"state\.pt: no checkpoint of a distillation"):
        other.load(tmp_path / "state.pt")


def commission(tmp_path: Path, pictures: Path, validation: Path | None = None) -> Commission:
    return Commission(
        teacher=teacher(tmp_path),
        pictures=pictures,
        validation=validation,
        settings=replace(SETTINGS, epochs=1),
        checkpoint=tmp_path / "state.pt",
        cache=tmp_path / "cache",
        seed=1,
    )


def test_too_few_pictures_are_refused_by_the_folder(tmp_path: Path) -> None:
    few = commission(tmp_path, fill(tmp_path / "few", 20))
    with pytest.raises(DataError, match="few: 2 pictures to learn from or to judge by; give 16 for each, or more"):
        few.carry_out(tmp_path / "bundle", ("a", "b", "c", "d"), "", silent)
    assert not (tmp_path / "bundle").exists()


def cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(application(["models"]), ["models", "distill", *arguments])
    return result.exit_code, result.output if result.exception is None else str(result.exception)


def test_the_verb_refuses_what_cannot_be_distilled_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model, empty = classifier(tmp_path / "model.tflite", size=SIZE), tmp_path / "empty"
    empty.mkdir()
    cut_off, odd = tmp_path / "cut_off.tflite", around(tmp_path / "odd.tflite", MIDDLES["unknown"])
    cut_off.write_bytes(model.read_bytes()[:200])
    kept = ["--checkpoint", str(tmp_path / "kept" / "c.pt"), "--out", str(tmp_path / "kept" / "bundle")]
    for path, pixels, widths, complaint in (
        (cut_off, "0..1", "0.5,1.0", "cut_off.tflite: "),
        (odd, "0..1", "0.5,1.0", "odd.tflite: "),
        (model, "0..1", "0.5,1.0", "empty: no pictures in it"),
        (model, "0..9", "0.5,1.0", "--pixels: '0..9' is not one of"),
        (model, "0..1", "1.0,0.5", "--widths: '1.0,0.5': must ascend"),
    ):
        code, said = cli(str(path), "--pictures", str(empty), "--pixels", pixels, "--widths", widths, *kept)
        assert (code, complaint in said) == (1, True), said
    assert not list((tmp_path / "kept").glob("*"))


@pytest.mark.filterwarnings("ignore")  # the converters' own
def test_the_verb_makes_a_bundle_of_a_student_with_the_teachers_own_tail_behind_it(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting a head needs it")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed; exporting a decoder needs it")

    given, judges = fill(tmp_path / "pictures", 32), fill(tmp_path / "judges", 16, side=40, seed=9)
    source = ["--pictures", str(given), "--validation", str(judges), "--pixels", "0..1", "--head-share", "1.0"]
    state = ["--checkpoint", str(tmp_path / "state.pt"), "--out", str(tmp_path / "made")]
    short = ["--epochs", "1", "--views", "1", "--widths", "0.5,1.0"]
    code, said = cli(str(teacher(tmp_path).graph.path), *source, *state, *short)
    assert code == 0, said
    made = bundles.load(str(tmp_path / "made"))
    m = made.manifest
    assert (m.reference, m.task, m.labels) == ("uncut", "classification-probabilities", tuple("0123"))
    assert [part.engine for part in m.tail] == ["onnx", "litert"]
    original = Signature(opened(flatbuffer.written([teacher(tmp_path).tail])), "tail")
    assert Signature(opened(made.folder / m.tail[1].file), "tail").outputs == original.outputs

    picture = Album(judges, SIZE, tmp_path / "state.cache", silent)[0]
    head = opened(made.head_path)
    x = (as_seen(picture, SIZE).astype(np.float32) / 255 - m.input.mean[0]) / m.input.std[0]
    hidden = Signature(head, "w100_stage1")(image=x[None])["hidden"]
    features = Signature(head, "w100_stage2")(hidden=hidden)["features"]
    (packed,) = Tail(made, threads=1).run(features)
    best = m.answers.guess(packed, temperature=1.0, accuracy=0.5)
    point = next(i for i, p in enumerate(m.points) if p.width == 1.0 and p.step == 0 and p.layers == SPECTRAL_LAYERS)
    assert best.label == made.outcomes().label[0, point]

    comparison = said.splitlines()[-2]
    assert "agreement takes" in comparison
    assert comparison in (made.folder / "MODEL_CARD.md").read_text()
    sent = sending_pictures(made, format_="webp")  # in the emulator, as a rival
    assert len(sent.outcomes.truth) == len(Content.of(made).outcomes.truth) == 16


def test_the_bytes_for_an_agreement_lie_between_two_qualities() -> None:
    truth, qualities = np.zeros(4, np.uint8), len(inputs.QUALITIES)
    label = np.ones((4, len(inputs.FORMATS), qualities), np.uint8)
    for q, right in enumerate((4, 3, 3, 1, 0)):
        label[:right, 0, q] = 0
    size = np.broadcast_to(np.uint32([5000, 4000, 3000, 2000, 1000]), label.shape)
    table = inputs.Inputs(size, label, np.zeros(label.shape, np.float16))
    for share, expected in ((1.0, 5000), (0.75, 3000), (0.5, 2500), (0.0, 1000)):
        assert inputs.bytes_for(share, table, truth) == {"jpeg": expected, "webp": 1000 if share == 0 else None}
