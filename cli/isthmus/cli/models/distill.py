"""`isthmus models distill`: a new head and decoder for any `.tflite` classifier, from unlabelled pictures."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import typer

from isthmus.cli.options import BUNDLES, CHECKPOINTS, check, if_interrupted, label_names, missing, trained_until_then
from isthmus.models import flatbuffer
from isthmus.models.bundling.writer import check_replaceable
from isthmus.models.splitting.uncut import PIXELS, input_of
from isthmus.models.training.tflite_teacher import Teacher
from isthmus.proto.errors import ConfigError


def distill(
    model: Path = typer.Argument(help="A .tflite model that answers with a class; it is never changed."),
    pictures: Path = typer.Option(
        ..., "--pictures", help="A folder (with those below it) or .zip of pictures; no labels."
    ),
    validation: Path | None = typer.Option(None, help="Pictures to judge by [every tenth of --pictures]."),
    epochs: int = typer.Option(20, min=1, help="Passes over the pictures."),
    exit_epochs: int = typer.Option(10, min=0, help="Passes in which the early exit learns, before all else."),
    untouched: bool = typer.Option(False, "--untouched", help="The server runs MODEL itself, not a copy that learnt."),
    views: int = typer.Option(8, min=1, help="Different views of each picture, in turn."),
    widths: str = typer.Option("0.5,0.75,1.0", help="The head's widths, ascending, up to 1.0."),
    head_share: float = typer.Option(
        0.1, min=0.01, max=1.0, help="Of the model's FLOPs that the head may take at 1.0."
    ),
    labels: Path | None = typer.Option(None, help="Names of the classes, one a line."),
    pixels: str | None = typer.Option(None, help=f"What a float model takes: {', '.join(PIXELS)}."),
    checkpoint: Path | None = typer.Option(None, help="Where to save and resume [checkpoints/MODEL-distilled.pt]."),
    cache: Path | None = typer.Option(
        None, help="Where pictures and the teacher's answers are kept [beside it, .cache]."
    ),
    out: Path | None = typer.Option(None, help="The bundle's folder [bundles/MODEL-distilled]."),
    seed: int = typer.Option(1, help="The same seed makes the same bundle."),
    threads: int = typer.Option(1, min=1, help="Threads of torch."),
) -> None:
    """Train a head and a decoder that rebuild what of the picture the model's answers need; the server runs the model."""
    try:
        import torch

        from isthmus.models.distillation.pipeline import Distillation
        from isthmus.models.distillation.setup import DistillationSettings
    except ImportError as error:
        raise missing(error, "train") from error
    name = f"{model.stem}-distilled"
    state, target = checkpoint or CHECKPOINTS / f"{name}.pt", out or BUNDLES / name
    check_replaceable(target, (model, pictures, validation, labels, state, cache))
    graph = flatbuffer.read(model)
    check("--pixels", pixels, PIXELS)
    teacher = Teacher(graph, input_of(graph, pixels))
    names = label_names(labels, teacher.classes) or tuple(str(i) for i in range(teacher.classes))
    torch.set_num_threads(threads)
    distillation = Distillation(
        teacher=teacher,
        pictures=pictures,
        validation=validation,
        settings=DistillationSettings(
            widths=_widths(widths),
            epochs=epochs,
            exit_epochs=exit_epochs,
            tuned=not untouched,
            views=views,
            head_share=head_share,
        ),
        checkpoint=state,
        cache=cache or state.with_suffix(".cache"),
        seed=seed,
    )
    made_by = shlex.join(["isthmus", *sys.argv[1:]])
    with if_interrupted(partial(trained_until_then, state)):
        bundle = distillation.run(target, names, made_by, typer.echo)
    typer.echo(f"{bundle.folder}: bundle {bundle.sha256.hex()}")


def _widths(text: str) -> tuple[float, ...]:
    """Raises ConfigError unless they ascend to 1.0."""
    try:
        widths = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--widths: '{text}': numbers with commas between them, such as 0.25,0.5,1.0") from error
    if widths[-1] != 1.0 or widths[0] <= 0 or any(a >= b for a, b in pairwise(widths)):
        raise ConfigError(f"--widths: '{text}': must ascend, from above 0 to 1.0")
    return widths
