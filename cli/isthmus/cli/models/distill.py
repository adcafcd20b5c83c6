"""`isthmus models distill`: a new head for any `.tflite` classifier, a bottleneck for any detector, from unlabelled pictures."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import typer

from isthmus.cli.models.injected import Asked, inject, is_classifier
from isthmus.cli.options import (
    BUNDLES,
    CHECKPOINTS,
    FIT,
    Fit,
    check,
    if_interrupted,
    label_names,
    missing,
    trained_until_then,
)
from isthmus.models import flatbuffer
from isthmus.models.bundling.writer import check_replaceable
from isthmus.models.splitting.uncut import PIXELS, input_of
from isthmus.models.training.tflite_teacher import Teacher
from isthmus.proto.errors import ConfigError

CLASSIFIER, DETECTOR = 20, 60
"""Epochs, unless others are asked for."""
OF_CLASSIFIERS = ("exit_epochs", "untouched", "views", "widths")
OF_DETECTORS = ("at", "boxes", "fallback", "fallback_pixels", "aimed_bytes", "fit")
"""Options that only the one kind of model has."""


def distill(
    context: typer.Context,
    model: Path = typer.Argument(help="A .tflite model that answers with a class, or with boxes; it is never changed."),
    pictures: Path = typer.Option(
        ..., "--pictures", help="A folder (with those below it) or .zip of pictures; no labels."
    ),
    validation: Path | None = typer.Option(None, help="Pictures to judge by [every tenth of --pictures]."),
    epochs: int | None = typer.Option(None, min=1, help=f"Passes [{CLASSIFIER}; a detector {DETECTOR}]."),
    exit_epochs: int = typer.Option(
        10, min=0, help="Classifiers: passes in which the early exit learns, before all else."
    ),
    untouched: bool = typer.Option(
        False, "--untouched", help="Classifiers: the server runs MODEL itself, not a copy that learnt."
    ),
    views: int = typer.Option(8, min=1, help="Classifiers: different views of each picture, in turn."),
    widths: str = typer.Option("0.5,0.75,1.0", help="Classifiers: the head's widths, ascending, up to 1.0."),
    head_share: float | None = typer.Option(
        None, min=0.01, max=1.0, help="Of the model's FLOPs that the head may take [0.1; of a detector's 0.32]."
    ),
    labels: Path | None = typer.Option(None, help="Names of the classes, one a line."),
    pixels: str | None = typer.Option(None, help=f"What a float model takes: {', '.join(PIXELS)}."),
    fit: Fit = FIT,
    boxes: str | None = typer.Option(
        None, help="Detectors: how boxes are read [told by the outputs]; see `models split`."
    ),
    at: int | None = typer.Option(None, help="Detectors: cut after this operator [the last that --head-share allows]."),
    aimed_bytes: int = typer.Option(
        1400, "--bytes", min=50, help="Detectors: bytes a frame at the second step of the ladder."
    ),
    fallback: Path | None = typer.Option(
        None, help="Detectors: a small .tflite that answers on the device [none does]."
    ),
    fallback_pixels: str | None = typer.Option(None, help="What it takes, if float [as MODEL]."),
    checkpoint: Path | None = typer.Option(None, help="Where to save and resume [checkpoints/MODEL-distilled.pt]."),
    cache: Path | None = typer.Option(
        None, help="Where pictures and the teacher's answers are kept [beside it, .cache]."
    ),
    out: Path | None = typer.Option(None, help="The bundle's folder [bundles/MODEL-distilled]."),
    seed: int = typer.Option(1, help="The same seed makes the same bundle."),
    threads: int = typer.Option(1, min=1, help="Threads of torch."),
) -> None:
    """Train a small head for a classifier, or a bottleneck within a detector, and what reads it on the server."""
    try:
        import torch

        from isthmus.models.distillation.pipeline import Distillation
        from isthmus.models.distillation.setup import DistillationSettings
    except ImportError as error:
        raise missing(error, "train") from error
    name = f"{model.stem}-distilled"
    state, target = checkpoint or CHECKPOINTS / f"{name}.pt", out or BUNDLES / name
    kept = cache or state.with_suffix(".cache")
    check_replaceable(target, (model, pictures, validation, labels, state, cache, fallback))
    check("--pixels", pixels, PIXELS)
    check("--fallback-pixels", fallback_pixels, PIXELS)
    graph = flatbuffer.read(model)
    torch.set_num_threads(threads)
    made_by = shlex.join(["isthmus", *sys.argv[1:]])
    classifier = boxes is None and is_classifier(graph)
    _refuse(context, model, classifier=classifier)
    if not classifier:
        asked = Asked(pixels, fit, boxes, at, aimed_bytes, fallback, fallback_pixels or pixels, labels)
        kept_in = (pictures, validation, state, kept)
        with if_interrupted(partial(trained_until_then, state)):
            inject(graph, asked, kept_in, target, made_by, epochs=epochs or DETECTOR, head_share=head_share, seed=seed)
        return
    teacher = Teacher(graph, input_of(graph, pixels))
    names = label_names(labels, teacher.classes) or tuple(str(i) for i in range(teacher.classes))
    distillation = Distillation(
        teacher=teacher,
        pictures=pictures,
        validation=validation,
        settings=DistillationSettings(
            widths=_widths(widths),
            epochs=epochs or CLASSIFIER,
            exit_epochs=exit_epochs,
            tuned=not untouched,
            views=views,
            head_share=0.1 if head_share is None else head_share,
        ),
        checkpoint=state,
        cache=kept,
        seed=seed,
    )
    with if_interrupted(partial(trained_until_then, state)):
        bundle = distillation.run(target, names, made_by, typer.echo)
    typer.echo(f"{bundle.folder}: bundle {bundle.sha256.hex()}")


def _refuse(context: typer.Context, model: Path, *, classifier: bool) -> None:
    """Raises ConfigError for an option that only the other kind of model has."""
    answers = "answers with a class" if classifier else "does not answer with a class"
    for name in OF_DETECTORS if classifier else OF_CLASSIFIERS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":  # typer brings an enumeration of its own, or click's
            flag = "--bytes" if name == "aimed_bytes" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{model}: {answers}, and {flag} has no meaning for it; leave it out")


def _widths(text: str) -> tuple[float, ...]:
    """Raises ConfigError unless they ascend to 1.0."""
    try:
        widths = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--widths: '{text}': numbers with commas between them, such as 0.25,0.5,1.0") from error
    if widths[-1] != 1.0 or widths[0] <= 0 or any(a >= b for a, b in pairwise(widths)):
        raise ConfigError(f"--widths: '{text}': must ascend, from above 0 to 1.0")
    return widths
