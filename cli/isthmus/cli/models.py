"""`isthmus models`: list, verify, train, and turn a checkpoint into a bundle. Torch is imported only by what needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from isthmus.cli import split
from isthmus.cli.extras import missing
from isthmus.models import bundle
from isthmus.models import inputs as sent_inputs

if TYPE_CHECKING:
    from isthmus.models.workshop import Workshop

app = typer.Typer(no_args_is_help=True, help="Bundles: list, verify, train, export; and any .tflite cut in two.")
app.command("split")(split.split)
CHECKPOINTS, BUNDLES = Path("checkpoints"), Path("bundles")


@app.command("list")
def list_(format_: str = typer.Option("text", "--format", help="text or json.")) -> None:
    """The bundles of the zoo."""
    found = [bundle.load(p.parent.name) for p in sorted(bundle.ZOO.glob("*/bundle.toml"))]
    rows = [_row(b) for b in found]
    if format_ == "json":
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(
            f"{row['name']:10} {row['task']}, {row['classes']} classes, {row['input']} px; "
            f"best {row['accuracy']:.1%}, device alone {row['accuracy_local']:.1%}; {row['sha256'][:12]}"
        )


def _row(b: bundle.Bundle) -> dict[str, Any]:
    m = b.manifest
    return {
        "name": m.name,
        "task": m.task,
        "classes": len(m.labels),
        "input": m.input.size,
        "widths": list(m.widths),
        "accuracy": max(p.accuracy for p in m.points),
        "accuracy_local": max(p.accuracy for p in m.points if p.exit is not None),
        "sha256": b.sha256.hex(),
    }


@app.command()
def verify(name: str = typer.Argument(help="A bundle of the zoo, or a folder.")) -> None:
    """Check every file of a bundle against its hashes."""
    found = bundle.load(name)
    typer.echo(f"{name}: {len(found.manifest.files)} files match; bundle {found.sha256.hex()}")


PICTURES = typer.Option(
    None, "--pictures", help="Your own: a folder with one subfolder a class, or a COCO-style .json [the recipe's own]."
)


def _workshop(name: str, pictures: Path | None) -> Workshop:
    try:
        from isthmus.models import workshop
    except ImportError as error:
        raise missing(error, "train") from error
    return workshop.open_workshop(name, pictures)


@app.command()
def train(
    name: str = typer.Argument(help="A recipe: cifar10 or signs."),
    checkpoint: Path | None = typer.Option(None, help="Where to save and resume [checkpoints/NAME.pt]."),
    pictures: Path | None = PICTURES,
    seed: int = typer.Option(1),
    threads: int = typer.Option(1, help="Threads of torch."),
) -> None:
    """Train a network; resumes from its checkpoint."""
    shop = _workshop(name, pictures)
    shop.train(checkpoint or CHECKPOINTS / f"{shop.name}.pt", seed=seed, threads=threads, report=typer.echo)


@app.command()
def export(
    name: str = typer.Argument(help="A recipe: cifar10 or signs."),
    checkpoint: Path | None = typer.Option(None, help="A finished training's checkpoint [checkpoints/NAME.pt]."),
    pictures: Path | None = PICTURES,
    out: Path | None = typer.Option(None, help="The bundle's folder [the zoo's, or bundles/ for your own pictures]."),
    threads: int = typer.Option(1, help="Threads of torch."),
) -> None:
    """Evaluate a checkpoint at every operating point and write its bundle, model card and outcome table."""
    shop = _workshop(name, pictures)
    path = checkpoint or CHECKPOINTS / f"{shop.name}.pt"
    target = out or (bundle.ZOO if pictures is None else BUNDLES) / shop.name
    shop.export(path, target, threads=threads, report=typer.echo)


@app.command()
def inputs(name: str = typer.Argument(help="A bundle of the zoo, or a folder.")) -> None:
    """Measure what sending the picture itself would give (JPEG, WebP), for the rivals that do; writes inputs.npz."""
    found = bundle.load(name)
    sent_inputs.measure(found, typer.echo)
    typer.echo(f"{sent_inputs.path_of(found)}: written")
