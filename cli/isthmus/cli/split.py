"""`isthmus models split`: any `.tflite` cut in two, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from isthmus.models import flatbuffer
from isthmus.models.cuts import Cut, cuts
from isthmus.models.flatbuffer import Graph


def split(
    model: Path = typer.Argument(help="A .tflite model."),
    format_: str = typer.Option("text", "--format", help="text or json."),
) -> None:
    """List the places where a model can be cut: what would cross, and what each half would compute."""
    graph = flatbuffer.read(model)
    rows = [_row(graph, cut) for cut in cuts(graph)]
    if format_ == "json":
        typer.echo(
            json.dumps({"model": str(model), "flops": graph.flops, "estimated": _estimated(graph), "cuts": rows})
        )
        return
    _print(graph, rows)


def _row(graph: Graph, cut: Cut) -> dict[str, Any]:
    return {
        "after": cut.after,
        "operator": graph.operators[cut.after].kind,
        "crossing": [{"name": t.name, "shape": t.shape[1:], "dtype": t.dtype} for t in cut.crossing],
        "raw_bytes": cut.raw_bytes,
        "head_flops": cut.head_flops,
        "tail_flops": cut.tail_flops,
        "obstacle": cut.obstacle,
    }


def _estimated(graph: Graph) -> list[str]:
    return sorted({operator.kind for operator in graph.operators if operator.estimated})


def _print(graph: Graph, rows: list[dict[str, Any]]) -> None:
    table = Table("after", "operator", "crosses", "raw bytes", "head MFLOP", "tail MFLOP", box=None, header_style="dim")
    for row in rows:
        shapes = " + ".join("×".join(map(str, t["shape"])) + f" {t['dtype']}" for t in row["crossing"])
        cells = [shapes, f"{row['raw_bytes']:,}", f"{row['head_flops'] / 1e6:.1f}", f"{row['tail_flops'] / 1e6:.1f}"]
        table.add_row(str(row["after"]), row["operator"], *([row["obstacle"]] if row["obstacle"] else cells))
    Console(soft_wrap=True, highlight=False).print(table)
    if unknown := _estimated(graph):
        typer.echo(f"counted as one operation for each value that they give: {', '.join(unknown)}")
