"""Distillation: the student begins as a transform and learns the teacher's answers; the teacher itself runs behind it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; distilling needs it")

import torch
from typer.testing import CliRunner

from graphs import MIDDLES, Builder, around, classifier
from isthmus.cli.main import application
from isthmus.edge_server.engines import Tail
from isthmus.emulation.policies.contestant import pictures as sending_pictures
from isthmus.emulation.replay import Content
from isthmus.models import bundle as bundles
from isthmus.models import flatbuffer, inputs
from isthmus.models.bundling.spectral_fit import trained
from isthmus.models.data import labelled
from isthmus.models.distillation.distiller import Distiller
from isthmus.models.distillation.exit_trainer import ExitTrainer
from isthmus.models.distillation.pipeline import Distillation
from isthmus.models.distillation.setup import DistillationSettings, DistillationSetup
from isthmus.models.distillation.student import STRAIGHT, StudentHead, architecture, reduced, sides
from isthmus.models.distillation.views import Album, Answers
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import squeezed
from isthmus.models.splitting.uncut import input_of
from isthmus.models.training.tflite_teacher import Teacher
from isthmus.models.training.torch_graph import TorchPart
from isthmus.proto.bits.spectrum import SPECTRAL_LAYERS
from isthmus.proto.codec import Codec
from isthmus.proto.errors import DataError, ModelError
from small_teachers import SIZE, fill, silent, teacher

SETTINGS = DistillationSettings(
    widths=(0.5, 1.0),
    epochs=8,
    batch=16,
    exit_epochs=1,
    views=2,
    decoder_channels=8,
    decoder_finer_channels=8,
    bottleneck_channels=8,
    head_share=1.0,
)


def setup(tmp_path: Path, settings: DistillationSettings = SETTINGS) -> DistillationSetup:
    if not (tmp_path / "pictures").is_dir():
        fill(tmp_path / "pictures", 40)
    album = Album(tmp_path / "pictures", SIZE, tmp_path / "cache", silent)
    return DistillationSetup(teacher(tmp_path), Answers(album, teacher(tmp_path), seed=1), np.arange(32), settings)


def model(tmp_path: Path) -> TorchPart:
    found = teacher(tmp_path)
    return TorchPart(found.part("targets", "image", found.targets))


def test_a_width_is_the_largest_picture_whose_work_its_share_allows(tmp_path: Path) -> None:
    copied = model(tmp_path)
    whole = copied.macs(SIZE)
    assert 2 * whole == pytest.approx(teacher(tmp_path).graph.flops, rel=0.02)  # additions are not counted
    assert sides(copied, SIZE, (0.26, 1.0), whole) == {0.26: SIZE // 2, 1.0: SIZE}
    arch = architecture(SIZE, 4, (0.5, 1.0), 8)
    head = StudentHead(arch, copied, 0.9 * 2 * whole)
    assert 0.6 * whole < sum(head.macs(1.0)) <= 0.9 * whole
    with pytest.raises(ModelError, match=r"head: the model takes 0\.01 million .* at width 0\.01; allow the head more"):
        sides(copied, SIZE, (0.01, 1.0), whole)
    with pytest.raises(ModelError, match="input: 20 pixels; a student takes a multiple of 16, and 32 or more"):
        architecture(20, 10, (1.0,), 40)


def test_a_model_that_takes_pictures_of_its_own_size_only_is_refused(tmp_path: Path) -> None:
    b = Builder()
    image = b.tensor((1, SIZE, SIZE, 3))
    maps = b.conv(image, 3, 4, SIZE, stride=2)
    path = b.write(tmp_path / "stiff.tflite", [image], [b.softmax(b.dense(maps, 4 * (SIZE // 2) ** 2, 3), 3)])
    graph = flatbuffer.read(path)
    stiff = Teacher(graph, input_of(graph, "0..1"))
    with pytest.raises(ModelError, match=r"stiff\.tflite: takes pictures of its own size only, not of 8 pixels"):
        sides(TorchPart(stiff.part("targets", "image", stiff.targets)), SIZE, (1.0,), 1e9)


def test_a_picture_is_reduced_by_means_of_squares_and_linearly_from_there() -> None:
    x = torch.rand(2, 3, 24, 24)
    assert torch.equal(reduced(x, 24), x)
    assert torch.equal(reduced(x, 6), torch.nn.functional.avg_pool2d(x, 4))
    assert reduced(x, 10).shape == (2, 3, 10, 10)
    assert float((reduced(x, 10).mean() - x.mean()).abs()) < 0.02


def test_a_student_begins_as_a_transform_of_the_picture(tmp_path: Path) -> None:
    """With as many components as pixels nothing is lost, whatever the width."""
    everything = replace(SETTINGS, bottleneck_channels=4 * STRAIGHT, head_share=3.0)
    begun = setup(tmp_path, everything)
    student, images = begun.student().eval(), begun.some_images
    x = labelled.normalised(images, begun.teacher.input.mean, begun.teacher.input.std)
    with torch.no_grad():
        features = [student.head(x, width)[0] for width in SETTINGS.widths]
        rebuilt = student.decoder(features[0])
    assert torch.equal(*features)
    assert float((rebuilt.permute(0, 3, 1, 2) - x).square().mean()) < 0.02 * float(x.var())


def test_what_training_rounds_is_what_the_codec_decodes(tmp_path: Path) -> None:
    distiller = Distiller(setup(tmp_path), report=silent)
    with torch.no_grad():
        x = distiller.setup.pictures(distiller.setup.some_images)
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
    Distiller(setup(tmp_path, faster), report=silent).run(tmp_path / "state.pt", said.append)
    epochs = [line for line in said if line.startswith("epoch")]
    hints = [float(line.split("hint ")[1].split(",")[0]) for line in epochs]
    assert len(epochs) == 8
    assert hints[-1] < 0.9 * hints[0]


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    first = Distiller(setup(tmp_path), report=silent)
    first.epoch(silent)
    first.epochs_done = 1
    first.save(state)
    said: list[str] = []
    second = Distiller(setup(tmp_path), report=silent)
    second.load(state)
    for mine, theirs in zip(first.student.parameters(), second.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    second.run(state, said.append)
    assert said[0] == "resumed after epoch 1 of 8"
    assert second.epochs_done == 8


def test_the_exit_learns_first_and_then_stands_still(tmp_path: Path) -> None:
    """What it answers in the end is what it answered before the rest of the student began to learn."""
    settings = replace(SETTINGS, exit_epochs=30, epochs=1, exit_rate=1e-2)
    prepared = setup(tmp_path, settings)
    finished = Distiller(prepared, report=silent).run(tmp_path / "state.pt", silent)
    x = prepared.pictures(np.stack([prepared.answers.image(i, 0) for i in range(32)]))
    aim = torch.log_softmax(prepared.target("logits", prepared.answers.of_view(0, silent)["logits"][:32]), 1)

    def missed(head: StudentHead) -> float:
        with torch.no_grad():
            return float((torch.log_softmax(head.logits(x, 0.5), 1) - aim).square().mean())

    assert missed(finished.head) < 0.5 * missed(prepared.student().head)
    alone = ExitTrainer(prepared, prepared.student().head)
    alone.load(tmp_path / "state.exits.pt")
    with torch.no_grad():
        for width in settings.widths:
            assert torch.equal(alone.averaged.logits(x, width), finished.head.logits(x, width))


class Attendance(ExitTrainer):
    """Notes which pictures of the album stood where in every batch."""

    places: dict[int, set[int]]

    def step(self, x: torch.Tensor, logits: torch.Tensor, progress: float) -> float:
        every = self.setup.target("logits", self.setup.answers.of_view(0, silent)["logits"])
        for place, row in enumerate(logits):
            picture = int((every - row).abs().sum(1).argmin())
            self.places.setdefault(picture, set()).add(place)
        return 0.0


def test_every_picture_is_learnt_from_at_every_width(tmp_path: Path) -> None:
    """Widths take parts of a batch by their place: a batch in the album's order would give each its own classes."""
    prepared = setup(tmp_path, replace(SETTINGS, views=1))
    trainer = Attendance(prepared, prepared.student().head)
    trainer.places = {}
    for _ in range(12):
        trainer.epoch(silent)
    half = trainer.batch // 2
    assert set(trainer.places) == set(range(32))
    assert all(min(places) < half <= max(places) for places in trainer.places.values())


def test_an_exit_that_was_cut_off_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    settings, state = replace(SETTINGS, exit_epochs=3, epochs=1), tmp_path / "state.exits.pt"
    prepared = setup(tmp_path, settings)
    first = ExitTrainer(prepared, prepared.student().head)
    first.epoch(silent)
    first.epochs_done = 1
    first.save(state)
    said: list[str] = []
    Distiller(prepared, report=silent).run(tmp_path / "state.pt", said.append)
    assert said[0] == "resumed after epoch 1 of 3 of the exit"
    assert sum(line.startswith("exit, epoch") for line in said) == 2
    with pytest.raises(DataError, match=r"state\.exits\.pt: a checkpoint of another run \(exit_epochs differ\)"):
        ExitTrainer(setup(tmp_path, SETTINGS), prepared.student().head).load(state)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Distiller(setup(tmp_path), report=silent).save(tmp_path / "state.pt")
    other = Distiller(setup(tmp_path, replace(SETTINGS, decoder_channels=16)), report=silent)
    with pytest.raises(DataError, match=r"state\.pt: a checkpoint of another run \(decoder_channels differ\)"):
        other.load(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"state\.pt: not a checkpoint"):
        other.load(tmp_path / "state.pt")


def distillation(tmp_path: Path, pictures: Path, validation: Path | None = None) -> Distillation:
    return Distillation(
        teacher=teacher(tmp_path),
        pictures=pictures,
        validation=validation,
        settings=replace(SETTINGS, epochs=1),
        checkpoint=tmp_path / "state.pt",
        cache=tmp_path / "cache",
        seed=1,
    )


def test_too_few_pictures_are_refused_by_the_folder(tmp_path: Path) -> None:
    few = distillation(tmp_path, fill(tmp_path / "few", 20))
    with pytest.raises(DataError, match="few: 2 pictures to learn from or to judge by; give 16 for each, or more"):
        few.run(tmp_path / "bundle", ("a", "b", "c", "d"), "", silent)
    assert not (tmp_path / "bundle").exists()


def cli(*arguments: str) -> tuple[int, str]:
    return models("distill", *arguments)


def models(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was said, of a verb."""
    result = CliRunner().invoke(application(["models"]), ["models", *arguments])
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
@pytest.mark.parametrize("untouched", [False, True])
def test_the_verb_makes_a_bundle_of_a_student(tmp_path: Path, untouched: bool) -> None:
    """Behind the decoder runs a copy of the model that has learnt, or the model's own file."""
    pytest.importorskip("litert_torch", reason="litert-torch is not installed; exporting a head needs it")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed; exporting a decoder needs it")

    given, judges = fill(tmp_path / "pictures", 32), fill(tmp_path / "judges", 16, side=40, seed=9)
    source = ["--pictures", str(given), "--validation", str(judges), "--pixels", "0..1", "--head-share", "1.0"]
    state = ["--checkpoint", str(tmp_path / "state.pt"), "--out", str(tmp_path / "made")]
    short = ["--epochs", "1", "--exit-epochs", "1", "--views", "1", "--widths", "0.5,1.0"]
    code, said = cli(str(teacher(tmp_path).graph.path), *source, *state, *short, *["--untouched"] * untouched)
    assert code == 0, said
    made = bundles.load(str(tmp_path / "made"))
    m = made.manifest
    assert (m.reference, m.labels) == ("uncut", tuple("0123"))
    if untouched:
        assert m.task == "classification-probabilities"
        assert [part.engine for part in m.tail] == ["onnx", "litert"]
        original = Signature(opened(flatbuffer.written([teacher(tmp_path).tail])), "tail")
        assert Signature(opened(made.folder / m.tail[1].file), "tail").outputs == original.outputs
    else:
        assert (m.task, [part.engine for part in m.tail]) == ("classification", ["onnx"])

    picture = Album(judges, SIZE, tmp_path / "state.cache", silent)[0]
    x = (squeezed(picture, SIZE).astype(np.float32) / 255 - m.input.mean[0]) / m.input.std[0]
    out = Signature(opened(made.head_path), "w100_stage1")(image=x[None])
    (packed,) = Tail(made, threads=1).run(list(out["features"]))
    last, local = (
        next(i for i, p in enumerate(m.points) if p.width == 1.0 and wanted(p))
        for wanted in (lambda p: p.step == 0 and p.layers == SPECTRAL_LAYERS, lambda p: p.exit is not None)
    )
    assert packed is not None
    best = m.answers.guess(packed, temperature=1.0, accuracy=0.5)
    assert best.label == made.outcomes().label[0, last]
    assert out["logits"].argmax() == made.outcomes().label[0, local]

    comparison = said.splitlines()[-2]
    assert "agreement takes" in comparison
    assert re.search(
        r"itself answers \d+\.\d% of the pictures alike when .* mirrored, and \d+\.\d% under a grain", comparison
    )
    assert comparison in (made.folder / "MODEL_CARD.md").read_text()
    sent = sending_pictures(made, format_="webp")  # in the emulator, as a rival
    assert len(sent.outcomes.truth) == len(Content.of(made).outcomes.truth) == 8  # 16 less the half that calibrates


@pytest.mark.filterwarnings("ignore")  # the converters' own
def test_a_distilled_bundle_is_evaluated_and_quantised_by_what_the_model_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for needed in ("litert_torch", "onnxscript", "ai_edge_quantizer"):
        pytest.importorskip(needed, reason=f"{needed} is not installed; exporting and quantising need it")
    from isthmus.models.compression import quantize

    for few, count in (("CALIBRATING", (4,)), ("SCORING", 8), ("PICTURES", 12)):
        monkeypatch.setattr(quantize, few, count)
    given, judges = str(fill(tmp_path / "pictures", 32)), str(fill(tmp_path / "judges", 16, side=40, seed=9))
    path, made = str(teacher(tmp_path).graph.path), str(tmp_path / "made")
    state = ["--checkpoint", str(tmp_path / "state.pt"), "--out", made, "--widths", "1.0", "--head-share", "1.0"]
    short = ["--epochs", "1", "--exit-epochs", "1", "--views", "1", "--pixels", "0..1"]
    code, said = cli(path, "--pictures", given, "--validation", judges, *state, *short)
    assert code == 0, said

    uncut = ["--uncut", path, "--pixels", "0..1"]
    code, said = models("evaluate", made, "--pictures", judges, *uncut, "--format", "json")
    told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert [p["accuracy"] for p in told["points"]] == [p.accuracy for p in bundles.load(made).manifest.points]

    int8 = str(tmp_path / "int8")
    rest = ["--validation", judges, "--trials", "1", "--search", "random", "--out", int8]
    code, said = models("quantize", made, "--pictures", given, *uncut, *rest)
    assert code == 0, said
    before, after = bundles.load(made), bundles.load(int8)
    assert after.head_path.stat().st_size < before.head_path.stat().st_size
    assert after.manifest.reference == "uncut"
    assert after.manifest.bottleneck.spectrum is not None
    assert after.codec.zero_point != (0.0,) * after.codec.channels

    code, said = models("quantize", "signs", "--validation", judges)
    assert (code, "--validation: goes with --uncut" in said) == (1, True), said
    other = str(classifier(tmp_path / "other.tflite", size=2 * SIZE))
    for name, arguments, complaint in (
        (made, ["--pictures", judges], "what is right is what its uncut model answers; name that .tflite"),
        (made, uncut, "--uncut: takes pictures without labels"),
        (made, ["--pictures", judges, "--uncut", other, "--pixels", "0..1"], "made was made of another model"),
        (made, ["--pictures", judges, "--uncut", path, "--pixels", "0..9"], "--pixels: '0..9' is not one of"),
        ("signs", ["--pictures", judges, *uncut], "--uncut: signs is judged by labels"),
    ):
        code, said = models("evaluate", name, *arguments)
        assert (code, complaint in said) == (1, True), said


def test_the_bytes_for_an_agreement_lie_between_two_qualities() -> None:
    truth, qualities = np.zeros(4, np.uint8), len(inputs.QUALITIES)
    label = np.ones((4, len(inputs.FORMATS), qualities), np.uint8)
    for q, right in enumerate((4, 3, 3, 1, 0)):
        label[:right, 0, q] = 0
    size = np.broadcast_to(np.array([5000, 4000, 3000, 2000, 1000], np.uint32), label.shape)
    table = inputs.Inputs(size, label, np.zeros(label.shape, np.float16))
    for share, expected in ((1.0, 5000), (0.75, 3000), (0.5, 2500), (0.0, 1000)):
        assert inputs.bytes_for(share, table, truth) == {"jpeg": expected, "webp": 1000 if share == 0 else None}
