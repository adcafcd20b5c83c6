"""`isthmus models pair`: a small model on the device and a larger one behind the picture itself, as one bundle."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import typer

from isthmus.cli.models.sights import PICTURE_SIZE, QUALITIES, REGION, SMALLER, sights
from isthmus.cli.models.told import class_names, tell
from isthmus.cli.options import BUNDLES, FIT, NOTHING, Fit, check, if_interrupted
from isthmus.models import flatbuffer, pictures
from isthmus.models.bundling.writer import check_replaceable
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting import onnx_model, outputs
from isthmus.models.splitting import pair as pairing
from isthmus.models.splitting.ladder import Coder
from isthmus.models.splitting.outputs import Reading
from isthmus.models.splitting.uncut import PIXELS, Uncut, input_of
from isthmus.proto.picture_codec import Pixels
from isthmus.proto.tasks import TASKS


@if_interrupted(NOTHING)
def pair(
    small: Path = typer.Argument(help="The device's .tflite model."),
    large: Path = typer.Argument(help="The server's .tflite or .onnx model, of the same kind of answers."),
    samples: Path = typer.Option(..., "--pictures", help="Sample pictures: a folder, or a zip archive. No labels."),
    most: int = typer.Option(200, "--samples", help="Use at most so many: half to fit, half to measure.", min=4),
    out: Path | None = typer.Option(None, help="The bundle's folder [bundles/SMALL-LARGE]."),
    format_: Literal["webp", "jpeg"] = typer.Option("webp", "--format", help="How the picture is coded."),
    qualities: str = QUALITIES,
    picture_size: int | None = PICTURE_SIZE,
    smaller: list[str] | None = SMALLER,
    region: list[str] | None = REGION,
    labels: Path | None = typer.Option(None, help="Names of the classes, one a line [the large model's own]."),
    small_pixels: str | None = typer.Option(
        None, help=f"What the small model takes, if float [its metadata]: {', '.join(PIXELS)}."
    ),
    large_pixels: str | None = typer.Option(
        None, help=f"What the large model takes, if float [its metadata]: {', '.join(PIXELS)}."
    ),
    large_colours: Literal["rgb", "bgr"] = typer.Option("rgb", help="The order of the large model's channels."),
    task: str | None = typer.Option(None, help=f"What both give [told by their outputs]: {', '.join(TASKS)}."),
    small_boxes: str | None = typer.Option(None, help="How a small detector's boxes are read; see `models split`."),
    large_boxes: str | None = typer.Option(None, help="How a large detector's boxes are read."),
    fit: Fit = FIT,
) -> None:
    """Make a bundle of two models without any training: the device's own answers, and the server's to the picture itself."""
    for flag, value in (("--small-pixels", small_pixels), ("--large-pixels", large_pixels)):
        check(flag, value, PIXELS)
    check("--task", task, TASKS)
    target, coder = (
        out or BUNDLES / f"{small.stem}-{large.stem}",
        Coder(format_, sights(qualities, picture_size, smaller, region)),
    )
    check_replaceable(target, (small, large, samples, labels))
    shown = pictures.samples(samples, most)
    device = _shown(flatbuffer.read(small), small_pixels, outputs.told(task, small_boxes), shown, fit)
    second = onnx_model.read(large) if onnx_model.is_onnx(large) else flatbuffer.read(large)
    server = _shown(second, large_pixels, outputs.told(task, large_boxes), shown, fit, large_colours)
    tell(device, task=task or small_boxes, pixels=small_pixels)
    tell(server, task=task or large_boxes, pixels=large_pixels)
    names = class_names(server, labels)
    made = pairing.pair(device, server, shown, coder, lambda line: typer.echo(line, err=True))
    alone = made.answered[0].point.accuracy
    pairing.write(target, made, labels=names, made_by=shlex.join(["isthmus", *sys.argv[1:]]))
    typer.echo(f"the device alone agrees in {alone:.2%}, on {len(made.truth)} pictures that fitted nothing")
    typer.echo(
        f"bundle: {target}\nserver: isthmus serve --bundle {target}\ndevice: isthmus agent --bundle {target} --server HOST:PORT"
    )


def _shown(
    graph: Graph,
    pixels: str | None,
    reading: Reading | None,
    pictures: Sequence[Pixels],
    fit: Fit,
    colours: Literal["rgb", "bgr"] = "rgb",
) -> Uncut:
    return Uncut.of(graph, input_of(graph, pixels, fit=fit, colours=colours), reading, pictures)
