"""`isthmus models split`: any `.tflite` cut in two, without training."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import typer

from isthmus.cli.models import cut_list
from isthmus.cli.models.sights import PICTURE_SIZE, QUALITIES, REGION, SMALLER, sights
from isthmus.cli.models.told import class_names, tell
from isthmus.cli.options import (
    FIT,
    FORMAT,
    NOTHING,
    Fit,
    Format,
    check,
    if_interrupted,
    label_names,
    megabits,
    seconds,
    size,
)
from isthmus.emulation.traces import BYTES_PER_MBIT
from isthmus.models import bundle, flatbuffer, pictures, profiles
from isthmus.models.bundling.writer import check_replaceable
from isthmus.models.flatbuffer import Graph
from isthmus.models.progress import Countdown
from isthmus.models.splitting import ladder as ladders
from isthmus.models.splitting import onnx_model, outputs
from isthmus.models.splitting import split as splits
from isthmus.models.splitting.cuts import cut_after, cuts
from isthmus.models.splitting.ladder import Coder
from isthmus.models.splitting.split import Conditions, Place, Split
from isthmus.models.splitting.uncut import PIXELS, Uncut, input_of
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks import TASKS

LEAST_MBPS = 1e-3


@if_interrupted(NOTHING)
def split(
    model: Path = typer.Argument(help="A .tflite model."),
    samples: Path | None = typer.Option(None, "--pictures", help="Sample pictures: a folder, or a zip archive."),
    most: int = typer.Option(200, "--samples", help="Use at most so many: half to fit, half to measure.", min=4),
    at: int | None = typer.Option(None, help="Cut after this operator [the best one]."),
    out: Path | None = typer.Option(None, help="Write the bundle to this folder [only list the cuts]."),
    device: str = typer.Option("pi4", help="Profile of the device that the best cut is for."),
    server: str = typer.Option("edge-server", help="Profile of the server."),
    uplink_mbps: float = typer.Option("5", parser=megabits, help="The uplink that it is for, e.g. 500kbit/s; Mbit/s."),
    rtt: str = typer.Option("20ms", help="Its round trip."),
    deadline: str = typer.Option("1s", help="From picture to answer, at most."),
    max_bytes: float | None = typer.Option(None, parser=size, help="A frame may take so much, e.g. 20kB [any]."),
    agreement: float = typer.Option(0.97, help="With the uncut model, at least.", min=0, max=1),
    fallback: Path | None = typer.Option(
        None, help="A small .tflite that answers on the device [a late frame is late]."
    ),
    labels: Path | None = typer.Option(None, help="Names of the classes, one a line [the model's own, if it has any]."),
    pixels: str | None = typer.Option(None, help=f"What a float model takes [its metadata]: {', '.join(PIXELS)}."),
    task: str | None = typer.Option(None, help=f"What its outputs are [told by their shapes]: {', '.join(TASKS)}."),
    boxes: str | None = typer.Option(
        None, help=f"How a detector's boxes are read [told by its outputs]: FAMILY,key=value,…; {outputs.FAMILIES}."
    ),
    fit: Fit = FIT,
    every: bool = typer.Option(False, "--all", help="List every cut, not only those that pay."),
    pictures_too: bool = typer.Option(
        False, "--pictures-too", help="The picture itself may be sent as well, to the uncut model on the server."
    ),
    larger: Path | None = typer.Option(
        None,
        help="With it: a larger .tflite or .onnx that pictures are sent to instead; right is then what that one answers.",
    ),
    picture_format: Literal["webp", "jpeg"] = typer.Option("webp", help="With it: how pictures are coded."),
    qualities: str = QUALITIES,
    picture_size: int | None = PICTURE_SIZE,
    smaller: list[str] | None = SMALLER,
    region: list[str] | None = REGION,
    format_: Format = FORMAT,
) -> None:
    """Cut a model in two. Without pictures: list where it can be cut. With pictures: what would be sent, and a bundle."""
    check("--pixels", pixels, PIXELS)
    check("--task", task, TASKS)
    if uplink_mbps < LEAST_MBPS:
        raise ConfigError(f"--uplink-mbps: {uplink_mbps:g} Mbit/s, expected at least 1 kbit/s")
    reading, pictures_too = outputs.told(task, boxes), pictures_too or larger is not None
    coder = Coder(picture_format, sights(qualities, picture_size, smaller, region))
    if out is not None:
        check_replaceable(out, (model, samples, fallback, larger, labels))
    graph = flatbuffer.read(model)
    if samples is None:
        if out is not None or at is not None:
            raise ConfigError(
                "--pictures: needed to fit the quantiser and to measure agreement; name a folder or a zip"
            )
        _list(graph, [Place(cut, None) for cut in cuts(graph)], None, format_, every=every)
        return
    chosen = cut_after(graph, at) if at is not None else None
    input_ = input_of(graph, pixels, fit=fit)
    label_names(labels, outputs.classes_told(graph, reading))  # before any picture is read
    shown = pictures.samples(samples, most)
    tick = Countdown(said, time.monotonic)
    uncut = Uncut.of(graph, input_, reading, shown, tick=tick)
    tell(uncut, task=task or boxes, pixels=pixels)
    names = class_names(uncut, labels)
    limits = Conditions(
        device=profiles.load(device),
        server=profiles.load(server),
        rate_Bps=uplink_mbps * BYTES_PER_MBIT,
        rtt_s=seconds(rtt, "--rtt") or 0.0,
        deadline_s=seconds(deadline, "--deadline") or 0.0,
        agreement=agreement,
        max_bytes=math.inf if max_bytes is None else max_bytes,
    )
    if out is None and chosen is None:
        _list(graph, splits.listed(uncut, tick), limits, format_, every=every)
        return
    small = None
    if fallback is not None:
        second = flatbuffer.read(fallback)
        small = splits.fallback_of(
            uncut, second, input_of(second, pixels, fit=fit), reading if boxes is None else None, shown
        )
    whole = uncut
    if larger is not None:
        second = onnx_model.read(larger) if onnx_model.is_onnx(larger) else flatbuffer.read(larger)
        whole = splits.fallback_of(
            uncut, second, input_of(second, pixels, fit=fit), reading if boxes is None else None, shown
        )
    truth = whole.guesses()
    if chosen is not None:
        found = splits.measured(uncut, chosen, small, truth, tick)
    else:
        found = splits.best(uncut, splits.listed(uncut, tick), limits, said, small, truth, tick)
    if pictures_too:
        exits = [answered for answered in found.answered if answered.point.exit is not None]
        first_step = len(found.coding.codec.steps)
        ladder = ladders.measured(whole, shown, coder, truth, said, device=small, exits=exits, first_step=first_step)
        found = splits.with_pictures(found, ladder)
    if out is not None:
        splits.write(out, found, labels=names, made_by=shlex.join(["isthmus", *sys.argv[1:]]))
    _show(found, limits, out, format_)


def said(line: str) -> None:
    """A line on standard error."""
    typer.echo(line, err=True)


def _list(graph: Graph, places: Sequence[Place], limits: Conditions | None, format_: str, *, every: bool) -> None:
    if format_ == "json":
        found = cut_list.rows(graph, places, limits)
        typer.echo(
            json.dumps({"model": str(graph.path), "flops": graph.flops, "estimated": _estimated(graph), "cuts": found})
        )
        return
    for line in cut_list.lines(graph, places, limits, every=every):
        typer.echo(line)
    if unknown := _estimated(graph):
        typer.echo(f"counted as one operation for each value that they give: {', '.join(unknown)}")


def _estimated(graph: Graph) -> list[str]:
    return sorted({operator.kind for operator in graph.operators if operator.estimated})


def _show(found: Split, limits: Conditions, out: Path | None, format_: str) -> None:
    graph, cut = found.uncut.graph, found.cut
    points = [a.point for a in found.answered]
    best = found.best(limits.agreement, limits.max_bytes)
    if format_ == "json":
        shown = [
            {"exit": p.exit, "step": p.step, "layers": p.layers, "bytes": p.bytes, "agreement": p.accuracy}
            for p in points
        ]
        row = cut_list.row(graph, Place(cut, best.bytes if best else None), limits)
        typer.echo(json.dumps({**row, "pictures": len(found.truth), "points": shown, "bundle": out and str(out)}))
        return
    shapes = " + ".join("×".join(map(str, t.shape[1:])) + f" {t.dtype}" for t in cut.crossing)
    typer.echo(
        f"cut after operator {cut.after} ({graph.operators[cut.after].kind}): {shapes} crosses, {cut.raw_bytes:,} bytes raw; "
        f"the head computes {cut.head_flops / graph.flops:.0%} of {graph.flops / 1e6:.1f} MFLOP"
    )
    typer.echo(f"agreement with the uncut model on {len(found.truth)} pictures that fitted nothing:")
    for a in found.answered:
        p, mark = a.point, "  <-" if a.point is best else ""
        typer.echo(f"  {_where(found, p):24} {p.bytes:8,.0f} bytes  {p.accuracy:7.2%} ± {a.error:.1%}{mark}")
    if out is not None:
        typer.echo(
            f"bundle: {out}\nserver: isthmus serve --bundle {out}\ndevice: isthmus agent --bundle {out} --server HOST:PORT"
        )


def _where(found: Split, point: bundle.Point) -> str:
    """Where an operating point's answer is from, and what crosses for it."""
    if point.exit is not None:
        return "fallback on the device"
    assert point.step is not None
    steps = len(found.coding.codec.steps)
    if found.ladder is None or point.step < steps:
        return f"step {point.step}, {point.layers} of {found.coding.codec.layers} layers"
    return found.ladder.table.named(point.step - steps)
