"""`isthmus models evaluate`: what a bundle's own files answer to labelled pictures, at every operating point."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import typer

from isthmus.cli.models.halves import Halves, unsure
from isthmus.cli.options import FORMAT, Format, check
from isthmus.models import bundle
from isthmus.models.bundle import Bundle
from isthmus.models.splitting.uncut import PIXELS
from isthmus.proto.errors import ConfigError

FEW = 5
"""So many names of classes are enough to see that they are others."""
UNCUT = typer.Option(None, "--uncut", help="The .tflite that the bundle was made of: no labels then, it answers them.")
UNCUT_PIXELS = typer.Option(None, "--pixels", help=f"What a float one takes: {', '.join(PIXELS)}.")


def evaluate(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    pictures: Path | None = typer.Option(
        None,
        help="Your own: a folder of class folders or of clips, a COCO-style .json, or any folder beside --uncut "
        "[those it was validated on].",
    ),
    uncut: Path | None = UNCUT,
    pixels: str | None = UNCUT_PIXELS,
    most: int | None = typer.Option(None, help="At most so many pictures.", min=10),
    every: int = typer.Option(1, help="Of clips with boxes: every so many frames.", min=1),
    format_: Format = FORMAT,
) -> None:
    """Answer pictures at every operating point with the bundle's own files, and count what is right.

    Of boxes, right is average precision; with --uncut, right is what the uncut model answers.
    """
    from isthmus.models.bundling.evaluate import evaluate
    from isthmus.models.bundling.shipped import Shipped
    from isthmus.models.data import corpora
    from isthmus.models.distillation import judged

    found = bundle.load(name)
    m = found.manifest
    if uncut is not None and (m.task != "classification" or any(part.engine != "onnx" for part in m.tail)):
        _ended(interrupted=_agreement(found, uncut, pictures, most, format_))
        return
    if m.task == "detection":
        _ended(interrupted=_boxes(found, pictures, most, every, format_))
        return
    if uncut is None:
        validation = corpora.validation_of(m, pictures, most)
    else:
        check("--pixels", pixels, PIXELS)
        validation = corpora.judged_by(m, judged.answered(m, uncut, pixels, pictures, most))
    result = evaluate(Shipped(found), m.widths, found.codec, validation, lambda line: typer.echo(line, err=True))
    if format_ == "json":
        rows = [
            {**msgspec.to_builtins(p), "ece": e} for p, e in zip(result.points, result.calibration_error, strict=True)
        ]
        typer.echo(json.dumps({"bundle": m.name, "pictures": len(validation.pictures), "points": rows}))
        return
    tell(m, result.points)
    typer.echo(
        f"\n{len(validation.pictures):,} pictures; largest calibration error {max(result.calibration_error):.3f}"
    )


def tell(
    m: bundle.Manifest,
    points: Sequence[bundle.Point],
    *,
    measure: str = "accuracy",
    also: tuple[str, Sequence[float]] | None = None,
) -> None:
    """A line for each operating point: what the head computes, what is sent, what is right; `also` is a second measure."""
    title, second = also or ("", [0.0] * len(points))
    typer.echo(f"{'width':>6} {'answer from':<30} {'head MFLOP':>10} {'bytes':>7} {measure:>9} {title:>9}".rstrip())
    for p, value in zip(points, second, strict=True):
        stages = len(m.stages) if p.exit is None else p.exit + 1
        flops = sum(s.flops for row in m.stages[:stages] for s in row if s.width == p.width)
        where = f"exit {stages}" if p.exit is not None else _sent(m, p)
        more = f" {value:>9.2%}" if also else ""
        typer.echo(f"{p.width:>6g} {where:<30} {flops / 1e6:>10.1f} {p.bytes:>7.0f} {p.accuracy:>9.2%}{more}")


def _sent(m: bundle.Manifest, point: bundle.Point) -> str:
    """What crosses at an operating point."""
    step, steps = point.step or 0, m.bottleneck.steps
    if step < len(steps):
        return f"tail, step {steps[step]:g}, {point.layers} layer(s)"
    return m.step_name(step)


@dataclass
class Interruption:
    """Whether somebody pressed Ctrl-C while pictures were answered."""

    happened: bool = False


@contextlib.contextmanager
def interruptible(done: Sequence[object]) -> Iterator[Interruption]:
    """Ctrl-C ends what is inside, and what is `done` by then counts; where that is nothing, it ends the command."""
    interruption = Interruption()
    try:
        yield interruption
    except KeyboardInterrupt:
        if not done:
            raise
        interruption.happened = True
        typer.echo(f"interrupted: these are the figures of the first {len(done)} pictures", err=True)


def _ended(*, interrupted: bool) -> None:
    """End as Ctrl-C ends every command, where it did, now that everything is told."""
    if interrupted:
        raise KeyboardInterrupt


def _boxes(found: Bundle, labels: Path | None, most: int | None, every_: int, format_: str) -> bool:
    """Average precision of a detector at every operating point, against clips' tables or labels in COCO's format.

    Whether it was interrupted.
    """
    from isthmus.models.data.clips import classes, shown
    from isthmus.proto.tasks.box_score import Judged, scored

    m = found.manifest
    if labels is None:
        raise ConfigError(
            f"--pictures: needed to judge {m.name}; name a COCO-style .json of labelled pictures, or a folder of clips"
        )
    names = classes(labels)
    if not set(names) & set(m.labels):
        raise ConfigError(
            f"{m.name}: none of its classes ({', '.join(m.labels[:FEW]) or 'without names'}) is in {labels} "
            f"({', '.join(names[:FEW])}); make it again with --labels, named as they are there"
        )
    judged: list[list[Judged]] = [[] for _ in m.points]
    counted: list[list[int]] = []
    halves = Halves(found, unsure(m))
    with interruptible(counted) as interrupted:
        for picture in islice(shown(labels, every_), most):
            height, width = picture.pixels.shape[:2]
            answers = list(halves.answers(picture.pixels))
            for i, (guess, _) in enumerate(answers):
                boxes = guess.detail if guess is not None and isinstance(guess.detail, tuple) else ()
                judged[i].append(Judged(height, width, picture.boxes, boxes))
            counted.append([size_bytes for _, size_bytes in answers])
    judged = [every[: len(counted)] for every in judged]  # an interruption may come between two points
    sizes, pictures = np.array(counted), len(counted)
    scores = [scored(every, m.labels) for every in judged]
    if format_ == "json":
        rows = [
            {"width": p.width, "exit": p.exit, "step": p.step, "layers": p.layers, "bytes": b, **asdict(score)}
            for p, b, score in zip(m.points, sizes.mean(0).tolist(), scores, strict=True)
        ]
        typer.echo(json.dumps({"bundle": m.name, "pictures": pictures, "points": rows}))
        return interrupted.happened
    measured = zip(m.points, sizes.mean(0).tolist(), scores, strict=True)
    points = [msgspec.structs.replace(p, accuracy=score.ap50, bytes=size) for p, size, score in measured]
    tell(m, points, measure="AP50", also=("AP50-95", [score.ap50_95 for score in scores]))
    best = max(scores, key=lambda score: score.ap50)
    by_class = ", ".join(f"{name} {value:.3f}" for name, value in best.by_class.items())
    typer.echo(f"\naverage precision on {pictures:,} pictures, boxes of any score; the best point's AP50")
    typer.echo(f"whatever the class {best.agnostic50:.3f}, by class: {by_class}")
    return interrupted.happened


def _agreement(found: Bundle, model: Path, folder: Path | None, most: int | None, format_: str) -> bool:
    """Mean agreement with what an uncut model answers to unlabelled pictures, at every operating point.

    Whether it was interrupted.
    """
    from isthmus.models import flatbuffer, pictures
    from isthmus.models.splitting import onnx_model
    from isthmus.models.splitting.outputs import Reading
    from isthmus.models.splitting.uncut import Uncut

    m = found.manifest
    if folder is None:
        raise ConfigError("--uncut: needs pictures without labels: name a folder or archive of them with --pictures")
    whole = m.picture if m.picture is not None and not m.bottleneck.steps else m
    shown = pictures.samples(folder, most or sys.maxsize)
    graph = onnx_model.read(model) if onnx_model.is_onnx(model) else flatbuffer.read(model)
    uncut = Uncut.of(graph, whole.input, Reading(m.task, whole.boxes), shown)
    halves, task = Halves(found, m), uncut.task
    answered: list[list[tuple[float, float]]] = []
    with interruptible(answered) as interrupted:
        for picture, truth in zip(shown, uncut.guesses(), strict=True):
            answers = halves.answers(picture)
            answered.append([(0.0 if guess is None else task.agreement(guess, truth), size) for guess, size in answers])
    scores, sizes = np.moveaxis(np.array(answered), 2, 0)  # (pictures, points) each
    measured = zip(m.points, scores.mean(0).tolist(), sizes.mean(0).tolist(), strict=True)
    points = [msgspec.structs.replace(p, accuracy=score, bytes=size) for p, score, size in measured]
    if format_ == "json":
        rows = [msgspec.to_builtins(p) for p in points]
        typer.echo(json.dumps({"bundle": m.name, "pictures": len(answered), "reference": str(model), "points": rows}))
        return interrupted.happened
    tell(m, points, measure="agreement")
    typer.echo(f"\nagreement is with what {model.name} answers, on {len(answered):,} pictures")
    return interrupted.happened
