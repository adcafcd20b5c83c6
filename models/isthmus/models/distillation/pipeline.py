"""Makes a bundle from a `.tflite` and a folder of pictures: what `isthmus models distill` does.

Nothing here asks for labels: what is right is what the uncut model answers. Pictures that the student is judged by are
never trained on: some are set aside, or others are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.models import inputs
from isthmus.models.bundle import Bundle
from isthmus.models.bundling import picture_rival
from isthmus.models.bundling.evaluate import Evaluation, evaluate, fitted_codec
from isthmus.models.data import labelled
from isthmus.models.data.corpora import halves
from isthmus.models.data.labelled import Validation
from isthmus.models.distillation.distiller import Distiller
from isthmus.models.distillation.setup import DistillationSettings, DistillationSetup
from isthmus.models.distillation.student import Student
from isthmus.models.distillation.views import Album, Answers
from isthmus.models.flatbuffer import written
from isthmus.models.litert import Signature
from isthmus.models.pictures import squeezed
from isthmus.models.progress import Report
from isthmus.models.training.run import CODEC_PICTURES, Trained
from isthmus.models.training.tflite_teacher import Original, Teacher
from isthmus.proto.errors import DataError
from isthmus.proto.tasks.classification import Classification

SET_ASIDE = 10
"""One picture in so many is kept to judge by, unless others are given."""
MOST_JUDGED = 500
"""The most pictures to judge by: every operating point answers each of them."""
WELL = 0.95
"""The agreement with the uncut model at which sizes are compared; the best there is, where none comes so far."""
REDUCED = 4 / 7
"""The share of a picture's side for the rival that is sent smaller and enlarged again: below 3 kB it is the better one."""
FEWEST = 16
"""The fewest pictures to train on, and to judge by."""


@dataclass(frozen=True)
class StudentHalves:
    """A student with its teacher's own tail behind it, as `evaluate.Halves`: what the server will run."""

    trained: Trained
    behind: Signature
    task: Classification

    def head(self, images: NDArray[np.uint8], width: float) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """See `evaluate.Halves`."""
        return self.trained.head(images, width)

    def tail(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `evaluate.Halves`."""
        rebuilt = self.trained.tail(features)  # (N, H, W, C)
        return np.stack([self.task.logits(tuple(self.behind(features=m[None]).values())) for m in rebuilt])


@dataclass(frozen=True)
class Distillation:
    """What is to be distilled, from which pictures, and where everything is kept."""

    teacher: Teacher
    pictures: Path
    validation: Path | None
    settings: DistillationSettings
    checkpoint: Path
    cache: Path
    seed: int

    def run(self, target: Path, labels: tuple[str, ...], made_by: str, report: Report) -> Bundle:
        """Train (or go on), evaluate every operating point, and put the bundle at `target`.

        Raises DataError when there are too few pictures or the checkpoint is of another run, ModelError when the
        teacher cannot be distilled.
        """
        album = Album(self.pictures, self.teacher.size, self.cache, report)
        training_index, judged_by = self._shared_out(album, report)
        answers = Answers(album, self.teacher, seed=self.seed)
        setup = DistillationSetup(self.teacher, answers, training_index, self.settings)
        distiller = Distiller(setup, report=report)
        report(_described(setup, distiller.student))
        student = distiller.run(self.checkpoint, report).cpu()
        sample = np.stack([answers.image(int(i), 0) for i in _spread(training_index, CODEC_PICTURES)])
        return self._bundle(target, student, sample, judged_by, labels, made_by, report)

    def _shared_out(self, album: Album, report: Report) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The pictures of the album that are trained on, and the pictures (N, S, S, 3) that the student is judged by."""
        index = np.arange(len(album))
        if self.validation is None:
            aside, training_index = index[::SET_ASIDE], index[index % SET_ASIDE > 0]
            judges, whence = album, self.pictures
        else:
            judges, whence = Album(self.validation, self.teacher.size, self.cache, report), self.validation
            aside, training_index = np.arange(len(judges)), index
        for path, count in ((self.pictures, len(training_index)), (whence, len(aside))):
            if count < FEWEST:
                raise DataError(
                    f"{path}: {count} pictures to learn from or to judge by; give {FEWEST} for each, or more"
                )
        size = self.teacher.size
        return training_index, np.stack([squeezed(judges[int(i)], size) for i in _spread(aside, MOST_JUDGED)])

    def _bundle(
        self,
        target: Path,
        student: Student,
        sample: NDArray[np.uint8],
        judged_by: NDArray[np.uint8],
        labels: tuple[str, ...],
        made_by: str,
        report: Report,
    ) -> Bundle:
        from isthmus.models.training.export import Behind, write_bundle  # training alone needs none of the converters

        teacher = self.teacher
        mean, std = teacher.input.mean, teacher.input.std
        task = Classification(probabilities=teacher.task == "classification-probabilities")
        original = Original(teacher)
        truth = original.logits(judged_by).argmax(1)
        validation = Validation(labelled.Pictures(judged_by, truth), halves(len(truth)), mean, std)
        student_alone = Trained(student, mean, std)
        both = student_alone if student.tuned else StudentHalves(student_alone, teacher.opened_tail(), task)
        codec = fitted_codec(both, self.settings.widths, self.settings.steps, sample, frequencies=True)
        evaluation = evaluate(both, self.settings.widths, codec, validation, report)
        report("the picture itself, coded, sent and answered by the uncut model:")
        pictures = picture_rival.tabulated(judged_by, evaluation.outcomes.truth, original.answers, report)
        smaller = picture_rival.tabulated(
            judged_by, truth, original.answers, report, side=round(REDUCED * teacher.size)
        )
        compared = f"{_compared(evaluation, (pictures, smaller))} {_steadiness(original, judged_by, truth)}"
        bundle = write_bundle(
            target,
            student,
            evaluation,
            name=target.name,
            labels=labels,
            mean=mean,
            std=std,
            images=labelled.normalised(judged_by[:4], mean, std),
            made_by=made_by,
            reference="uncut",
            behind=None if student.tuned else Behind(written([teacher.tail]), teacher.graph.flops, teacher.task),
            remark=compared,
        )
        inputs.save(bundle, pictures)
        report(compared)
        return bundle


def _spread(index: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The numbers of `index`, at most `most` of them, taken evenly."""
    return index if len(index) <= most else index[np.arange(most) * len(index) // most]


def _compared(evaluation: Evaluation, pictures: Sequence[inputs.Inputs]) -> str:
    """What the cheapest operating point that agrees well takes, beside the picture itself at the same agreement."""
    sent = [p for p in evaluation.points if p.exit is None]
    well = [p for p in sent if p.accuracy >= WELL] or [max(sent, key=lambda p: (p.accuracy, -p.bytes))]
    point = min(well, key=lambda p: p.bytes)
    rivals = " and ".join(_rival(format_, point.accuracy, evaluation, pictures) for format_ in inputs.FORMATS)
    alone = max(p.accuracy for p in evaluation.points if p.exit is not None)
    return (
        f"The early exit alone agrees in {alone:.1%}; "
        f"{point.accuracy:.1%} agreement takes {point.bytes:,.0f} bytes a frame (width {point.width}, step {point.step}, "
        f"{point.layers} of {evaluation.codec.layers} layers); of the picture itself, {rivals}."
    )


def _rival(format_: str, share: float, evaluation: Evaluation, pictures: Sequence[inputs.Inputs]) -> str:
    """The fewest bytes that a format takes for such an agreement, at the best of its sizes."""
    truth, f = evaluation.outcomes.truth, list(inputs.FORMATS).index(format_)
    needed = [(size, table) for table in pictures if (size := inputs.bytes_for(share, table, truth)[format_])]
    if not needed:
        return f"{format_} never agrees so well"
    size, table = min(needed, key=lambda pair: pair[0])
    coarsest = float(table.size_bytes[:, f, -1].mean())
    return f"{format_} {'at most ' * (size == coarsest)}{size:,.0f} bytes"


def _steadiness(original: Original, images: NDArray[np.uint8], truth: NDArray[np.int64]) -> str:
    """Says how often the model repeats its own answer where nobody sees a difference: what agreement is read against."""
    rng = np.random.default_rng(0)
    grained = np.empty_like(images)
    for i, image in enumerate(images):
        grained[i] = np.rint(image + rng.standard_normal(image.shape, np.float32)).clip(0, 255)
    mirrored, grain = (float((original.logits(x).argmax(1) == truth).mean()) for x in (images[:, :, ::-1], grained))
    return (
        f"The model itself answers {mirrored:.1%} of the pictures alike when they are mirrored, and {grain:.1%} under a grain "
        f"of one grey level."
    )


def _described(setup: DistillationSetup, student: Student) -> str:
    teacher, widths = setup.teacher, setup.settings.widths
    flops = [2 * sum(student.head.macs(width)) for width in widths]
    whole = teacher.graph.flops
    head = ", ".join(f"{width}: {f / 1e6:.1f}" for width, f in zip(widths, flops, strict=True))
    size = student.arch.bottleneck_size
    return (
        f"bottleneck {size}×{size}×{student.arch.bottleneck_channels}; head MFLOP {head} of {whole / 1e6:.1f} "
        f"({max(flops) / whole:.1%}); decoder {2 * student.decoder.macs(size) / 1e6:.0f} MFLOP; "
        f"{len(setup.training_index)} pictures to learn from"
    )
