"""`isthmus models evaluate`: what a bundle's own files answer to labelled pictures, at every operating point."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray

from isthmus.cli.options import FORMAT, Format, check, missing
from isthmus.device.executor import Executor
from isthmus.models import bundle
from isthmus.models.bundle import Bundle
from isthmus.models.splitting.uncut import PIXELS
from isthmus.proto.errors import ConfigError
from isthmus.proto.frame_codec import FrameCodec
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.vocabulary import Guess, OperatingPoint, Placing

FEW = 5
"""So many names of classes are enough to see that they are others."""
LEAST_SCORE = 0.01
"""Boxes less sure than this change no average precision worth telling."""
UNCUT = typer.Option(None, "--uncut", help="The .tflite that the bundle was made of: no labels then, it answers them.")
UNCUT_PIXELS = typer.Option(None, "--pixels", help=f"What a float one takes: {', '.join(PIXELS)}.")


def evaluate(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    pictures: Path | None = typer.Option(
        None,
        help="Your own: a folder of class folders, a COCO-style .json, or any folder beside --uncut [those it was validated on].",
    ),
    uncut: Path | None = UNCUT,
    pixels: str | None = UNCUT_PIXELS,
    most: int | None = typer.Option(None, help="At most so many pictures.", min=10),
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
        _agreement(found, uncut, pictures, most, format_)
        return
    if m.task == "detection":
        _boxes(found, pictures, most, format_)
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


def tell(m: bundle.Manifest, points: Sequence[bundle.Point]) -> None:
    """A line for each operating point: what the head computes, what is sent, what is right."""
    typer.echo(f"{'width':>6} {'answer from':<30} {'head MFLOP':>10} {'bytes':>7} {'accuracy':>9}")
    for p in points:
        stages = len(m.stages) if p.exit is None else p.exit + 1
        flops = sum(s.flops for row in m.stages[:stages] for s in row if s.width == p.width)
        where = f"exit {stages}" if p.exit is not None else _sent(m, p)
        typer.echo(f"{p.width:>6g} {where:<30} {flops / 1e6:>10.1f} {p.bytes:>7.0f} {p.accuracy:>9.2%}")


def _sent(m: bundle.Manifest, point: bundle.Point) -> str:
    """What crosses at an operating point."""
    step, steps = point.step or 0, m.bottleneck.steps
    if step < len(steps):
        return f"tail, step {steps[step]:g}, {point.layers} layer(s)"
    assert m.picture is not None  # or the ladder would end here
    return f"{m.picture.format} {m.picture.qualities[step - len(steps)]}"


def _boxes(found: Bundle, labels: Path | None, most: int | None, format_: str) -> None:
    """Average precision of a detector at every operating point, against labels in COCO's format."""
    from isthmus.models.bundling.box_score import Judged, scored
    from isthmus.models.data.boxes import boxed

    m = found.manifest
    if labels is None:
        raise ConfigError(f"--pictures: needed to judge {m.name}; name a COCO-style .json of labelled pictures")
    pictures = boxed(labels, most)
    shown = sorted({name for picture in pictures for name, _ in picture.boxes})
    if not set(shown) & set(m.labels):
        raise ConfigError(
            f"{m.name}: none of its classes ({', '.join(m.labels[:FEW]) or 'without names'}) is in {labels} "
            f"({', '.join(shown[:FEW])}); make it again with --labels, named as they are there"
        )
    judged: list[list[Judged]] = [[] for _ in m.points]
    sizes = np.zeros((len(pictures), len(m.points)))
    halves = _Halves(found, _unsure(m))
    for n, picture in enumerate(pictures):
        pixels = picture.pixels()
        height, width = pixels.shape[:2]
        for i, (guess, size_bytes) in enumerate(halves.answers(pixels)):
            boxes = guess.detail if guess is not None and isinstance(guess.detail, tuple) else ()
            judged[i].append(Judged(height, width, picture.boxes, boxes))
            sizes[n, i] = size_bytes
    scores = [scored(every, m.labels) for every in judged]
    if format_ == "json":
        rows = [
            {"width": p.width, "exit": p.exit, "step": p.step, "layers": p.layers, "bytes": b, **asdict(score)}
            for p, b, score in zip(m.points, sizes.mean(0).tolist(), scores, strict=True)
        ]
        typer.echo(json.dumps({"bundle": m.name, "pictures": len(pictures), "points": rows}))
        return
    measured = zip(m.points, sizes.mean(0).tolist(), scores, strict=True)
    tell(m, [msgspec.structs.replace(p, accuracy=score.ap50, bytes=size) for p, size, score in measured])
    best = max(scores, key=lambda score: score.ap50)
    by_class = ", ".join(f"{name} {value:.3f}" for name, value in best.by_class.items())
    typer.echo(f"\naccuracy is AP50 on {len(pictures):,} pictures; of the best point AP50-95 is {best.ap50_95:.3f},")
    typer.echo(f"AP50 whatever the class {best.agnostic50:.3f}, by class: {by_class}")


def _agreement(found: Bundle, model: Path, folder: Path | None, most: int | None, format_: str) -> None:
    """Mean agreement with what an uncut model answers to unlabelled pictures, at every operating point."""
    from isthmus.models import flatbuffer, pictures
    from isthmus.models.splitting.outputs import Reading
    from isthmus.models.splitting.uncut import Uncut

    m = found.manifest
    if folder is None:
        raise ConfigError("--uncut: needs pictures without labels: name a folder or archive of them with --pictures")
    whole = m.picture if m.picture is not None and not m.bottleneck.steps else m
    shown = pictures.samples(folder, most or sys.maxsize)
    uncut = Uncut.of(flatbuffer.read(model), whole.input, Reading(m.task, whole.boxes), shown)
    halves, task = _Halves(found, m), uncut.task
    scores, sizes = np.zeros((2, len(shown), len(m.points)))
    for n, (picture, truth) in enumerate(zip(shown, uncut.guesses(), strict=True)):
        for i, (guess, size_bytes) in enumerate(halves.answers(picture)):
            scores[n, i] = 0.0 if guess is None else task.agreement(guess, truth)
            sizes[n, i] = size_bytes
    measured = zip(m.points, scores.mean(0).tolist(), sizes.mean(0).tolist(), strict=True)
    points = [msgspec.structs.replace(p, accuracy=score, bytes=size) for p, score, size in measured]
    if format_ == "json":
        rows = [msgspec.to_builtins(p) for p in points]
        typer.echo(json.dumps({"bundle": m.name, "pictures": len(shown), "reference": str(model), "points": rows}))
        return
    tell(m, points)
    typer.echo(f"\naccuracy is agreement with what {model.name} answers, on {len(shown):,} pictures")


class _Halves:
    """A bundle's two halves as they run live."""

    def __init__(self, found: Bundle, manifest: bundle.Manifest) -> None:
        """`manifest` stands for the bundle's own. Raises ConfigError when what runs a tail is not installed."""
        try:
            from isthmus.edge_server.engines import Tail
        except ImportError as error:
            raise missing(error, "server") from error
        self._manifest = manifest
        whole = replace(found, manifest=manifest)
        self._executor, self._tail, self._codec = Executor(whole), Tail(whole, 1), FrameCodec(found.codec)

    def answers(self, pixels: NDArray[np.uint8]) -> Iterator[tuple[Guess | None, int]]:
        """The answer of each operating point, in the manifest's order, and the bytes that it takes; None where it has none."""
        by_exit: dict[tuple[float, int], Guess | None] = {}
        by_point: dict[OperatingPoint, tuple[Guess | None, int]] = {}
        for width in self._manifest.widths:
            self._executor.hold(0, pixels)
            for stage in range(len(self._manifest.stages)):
                result = self._executor.job(0, stage, width)()
                by_exit[width, stage] = result.guess
            for point in self._manifest.points:
                if point.width == width and point.step is not None:
                    by_point[point.key] = self._from_server(point.step, point.layers, result.placings)
            self._executor.forget(0)
        for point in self._manifest.points:
            yield by_point.get(point.key) or (by_exit[point.width, point.exit or 0], 0)

    def _from_server(self, step: int, layers: int, placings: Sequence[Placing]) -> tuple[Guess | None, int]:
        payloads = [self._executor.encode(0, step, layer) for layer in range(layers)]
        (packed,) = self._tail.run([self._codec.decode(payloads)])
        if packed is None:
            return None, sum(map(len, payloads))  # no number: the device would answer for itself
        guess = self._manifest.answers.guess(packed, temperature=1.0, accuracy=1.0)
        return placings[step].outward(guess) if placings else guess, sum(map(len, payloads))


def _unsure(m: bundle.Manifest) -> bundle.Manifest:
    """`m`, with boxes of any score."""

    def low(boxes: Boxes | None) -> Boxes:
        return msgspec.structs.replace(boxes or Boxes(), score=LEAST_SCORE)

    stages = tuple(tuple(msgspec.structs.replace(s, boxes=low(s.boxes)) for s in row) for row in m.stages)
    sent = m.picture and msgspec.structs.replace(m.picture, boxes=low(m.picture.boxes))
    return msgspec.structs.replace(m, boxes=low(m.boxes), stages=stages, picture=sent)
