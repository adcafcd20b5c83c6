"""`isthmus models ablate`: what every choice in a training is worth, as one table with its plots."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from isthmus.cli.options import missing
from isthmus.cli.processes import command_line
from isthmus.models.bundling.writer import check_writable
from isthmus.proto.errors import ConfigError


def ablate(
    name: str = typer.Argument(help="A recipe: cifar10 or signs."),
    seeds: str = typer.Option("1,2", help="Every variant is trained once with each."),
    epochs: int = typer.Option(4, help="Of every training.", min=1),
    pictures: int = typer.Option(6_000, help="Train on the first so many.", min=256),
    tested: int = typer.Option(2_000, help="Judge on the first so many test pictures.", min=10),
    only: list[str] = typer.Option([], help="A variant [all]; may be given several times."),
    out: Path = typer.Option(Path("runs/ablation"), help="The table's folder; finished runs in it are kept."),
    threads: int = typer.Option(1, help="Threads of torch."),
) -> None:
    """Train a recipe with one thing changed at a time; goes on where it was cut off."""
    try:
        import torch

        from isthmus.models.ablation import report
        from isthmus.models.ablation.rows import Budget
        from isthmus.models.ablation.runs import Ablation
        from isthmus.models.ablation.variants import VARIANTS
        from isthmus.models.data.corpora import CORPORA
        from isthmus.models.training.recipes import RECIPES
    except ImportError as error:
        raise missing(error, "train") from error
    check_writable(out, out)
    if name not in RECIPES:
        raise ConfigError(f"{name}: no such recipe; there are {', '.join(RECIPES)}")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds: '{seeds}' is not a list like 1,2") from error
    torch.set_num_threads(threads)
    table = Ablation(Budget(name, epochs, pictures, tested), RECIPES[name], CORPORA[name], out)
    rows = table.run(only or list(VARIANTS), numbers, typer.echo)
    report.write(out, rows, command=command_line(sys.argv[1:]))
    typer.echo(f"{out}: {len(rows)} runs; table.md, table.csv, ingredients.png, designs.png")
