"""`isthmus models split`: any `.tflite` cut in two, without training."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from isthmus.cli.models.told import class_names, tell
from isthmus.cli.options import FIT, FORMAT, Fit, Format, check, label_names, seconds
from isthmus.emulation.traces import BYTES_PER_MBIT
from isthmus.models import flatbuffer, pictures, profiles
from isthmus.models.bundling.writer import check_replaceable
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting import outputs
from isthmus.models.splitting import split as splits
from isthmus.models.splitting.cuts import Cut, cut_after, cuts
from isthmus.models.splitting.split import Conditions, Place, Split
from isthmus.models.splitting.uncut import PIXELS, Uncut, input_of
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks import TASKS


def split(
    model: Path = typer.Argument(help="A .tflite model."),
    samples: Path | None = typer.Option(None, "--pictures", help="Sample pictures: a folder, or a zip archive."),
    most: int = typer.Option(200, "--samples", help="Use at most so many: half to fit, half to measure.", min=4),
    at: int | None = typer.Option(None, help="Cut after this operator [the best one]."),
    out: Path | None = typer.Option(None, help="Write the bundle to this folder [only list the cuts]."),
    device: str = typer.Option("pi4", help="Profile of the device that the best cut is for."),
    server: str = typer.Option("edge-server", help="Profile of the server."),
    uplink_mbps: float = typer.Option(5.0, help="The uplink that it is for, Mbit/s.", min=1e-3),
    rtt: str = typer.Option("20ms", help="Its round trip."),
    deadline: str = typer.Option("1s", help="From picture to answer, at most."),
    max_bytes: float = typer.Option(float("inf"), help="A frame may take so many bytes.", show_default=False),
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
    format_: Format = FORMAT,
) -> None:
    """Cut a model in two. Without pictures: list where it can be cut. With pictures: what would be sent, and a bundle."""
    check("--pixels", pixels, PIXELS)
    check("--task", task, TASKS)
    reading = outputs.told(task, boxes)
    if out is not None:
        check_replaceable(out, (model, samples, fallback, labels))
    graph = flatbuffer.read(model)
    if samples is None:
        if out is not None or at is not None:
            raise ConfigError(
                "--pictures: needed to fit the quantiser and to measure agreement; name a folder or a zip"
            )
        _list(graph, [Place(cut, None) for cut in cuts(graph)], None, format_)
        return
    chosen = cut_after(graph, at) if at is not None else None
    input_ = input_of(graph, pixels, fit=fit)
    label_names(labels, outputs.classes_told(graph, reading))  # before any picture is read
    shown = pictures.samples(samples, most)
    uncut = Uncut.of(graph, input_, reading, shown)
    tell(uncut, task=task or boxes, pixels=pixels)
    names = class_names(uncut, labels)
    limits = Conditions(
        device=profiles.load(device),
        server=profiles.load(server),
        rate_Bps=uplink_mbps * BYTES_PER_MBIT,
        rtt_s=seconds(rtt, "--rtt") or 0.0,
        deadline_s=seconds(deadline, "--deadline") or 0.0,
        agreement=agreement,
        max_bytes=max_bytes,
    )
    if out is None and chosen is None:
        _list(graph, splits.listed(uncut), limits, format_)
        return
    small = None
    if fallback is not None:
        second = flatbuffer.read(fallback)
        small = splits.fallback_of(
            uncut, second, input_of(second, pixels, fit=fit), reading if boxes is None else None, shown
        )
    if chosen is not None:
        found = splits.measured(uncut, chosen, small)
    else:
        found = splits.best(uncut, splits.listed(uncut), limits, lambda line: typer.echo(line, err=True), small)
    if out is not None:
        splits.write(out, found, labels=names, made_by=shlex.join(["isthmus", *sys.argv[1:]]))
    _show(found, limits, out, format_)


def _list(graph: Graph, places: Sequence[Place], limits: Conditions | None, format_: str) -> None:
    rows = [_row(graph, place, limits) for place in places]
    if format_ == "json":
        typer.echo(
            json.dumps({"model": str(graph.path), "flops": graph.flops, "estimated": _estimated(graph), "cuts": rows})
        )
        return
    columns = ["after", "operator", "crosses", "raw bytes", "head MFLOP", "tail MFLOP"]
    more = ["coded bytes", "device ms", "server ms", "answer ms"] if limits else []
    table = Table(*columns, *more, box=None, header_style="dim")
    for row in rows:
        table.add_row(
            str(row["after"]), row["operator"], *([row["obstacle"]] if row["obstacle"] else _cells(row, bool(limits)))
        )
    Console(soft_wrap=True, highlight=False).print(table)
    if unknown := _estimated(graph):
        typer.echo(f"counted as one operation for each value that they give: {', '.join(unknown)}")


def _row(graph: Graph, place: Place, limits: Conditions | None) -> dict[str, Any]:
    cut = place.cut
    row = {
        "after": cut.after,
        "operator": graph.operators[cut.after].kind,
        "crossing": [{"name": t.name, "shape": t.shape[1:], "dtype": t.dtype} for t in cut.crossing],
        "raw_bytes": cut.raw_bytes,
        "head_flops": cut.head_flops,
        "tail_flops": cut.tail_flops,
        "obstacle": cut.obstacle,
    }
    if limits is not None and place.coded_bytes is not None:
        row |= {"coded_bytes": round(place.coded_bytes, 1), **_times(cut, place.coded_bytes, limits)}
    return row


def _times(cut: Cut, size_bytes: float, limits: Conditions) -> dict[str, float]:
    return {
        "device_s": round(limits.head_s(cut), 6),
        "server_s": round(limits.tail_s(cut), 6),
        "answer_s": round(limits.seconds(cut, size_bytes), 6),
    }


def _cells(row: dict[str, Any], timed: bool) -> list[str]:
    shapes = " + ".join("×".join(map(str, t["shape"])) + f" {t['dtype']}" for t in row["crossing"])
    cells = [shapes, f"{row['raw_bytes']:,}", f"{row['head_flops'] / 1e6:.1f}", f"{row['tail_flops'] / 1e6:.1f}"]
    if timed:
        cells += [
            f"{row['coded_bytes']:,.0f}",
            *(f"{row[key] * 1e3:.1f}" for key in ("device_s", "server_s", "answer_s")),
        ]
    return cells


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
        row = _row(graph, Place(cut, best.bytes if best else None), limits)
        typer.echo(json.dumps({**row, "pictures": len(found.truth), "points": shown, "bundle": out and str(out)}))
        return
    shapes = " + ".join("×".join(map(str, t.shape[1:])) + f" {t.dtype}" for t in cut.crossing)
    typer.echo(
        f"cut after operator {cut.after} ({graph.operators[cut.after].kind}): {shapes} crosses, {cut.raw_bytes:,} bytes raw; "
        f"the head computes {cut.head_flops / graph.flops:.0%} of {graph.flops / 1e6:.1f} MFLOP"
    )
    typer.echo(f"agreement with the uncut model on {len(found.truth)} pictures that fitted nothing:")
    for p in points:
        where = (
            "fallback on the device"
            if p.exit is not None
            else f"step {p.step}, {p.layers} of {found.coding.codec.layers} layers"
        )
        typer.echo(f"  {where:24} {p.bytes:8,.0f} bytes  {p.accuracy:7.2%}{'  <- ' if p is best else ''}")
    if out is not None:
        typer.echo(
            f"bundle: {out}\nserver: isthmus serve --bundle {out}\ndevice: isthmus agent --bundle {out} --server HOST:PORT"
        )
