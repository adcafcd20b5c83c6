"""`isthmus models`: list, verify, train, and turn a checkpoint into a bundle. Torch is imported only by what needs it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from isthmus.cli.models import ablate, clips, compare, deltas, distill, evaluate, pair, prune, push, served, split
from isthmus.cli.models import filter as filtering
from isthmus.cli.options import (
    BUNDLES,
    CHECKPOINTS,
    FORMAT,
    NOTHING,
    Format,
    check,
    if_interrupted,
    missing,
    tell,
    trained_until_then,
)
from isthmus.models import bundle
from isthmus.models.bundling.writer import check_replaceable
from isthmus.models.splitting.uncut import PIXELS
from isthmus.proto.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.models.detection.run import DetectorRun
    from isthmus.models.training.run import TrainingRun

app = typer.Typer(no_args_is_help=True, help="Bundles: list, verify, train, export; and any .tflite cut in two.")
app.command("split")(split.split)
app.command("pair")(pair.pair)
app.command("distill")(distill.distill)
app.command("ablate")(ablate.ablate)
app.command("prune")(prune.prune)
app.command("evaluate")(evaluate.evaluate)
app.command("deltas")(deltas.deltas)
app.command("compare")(compare.compare)
app.command("filter")(filtering.filter_)
app.command("clips")(clips.clips)
app.command("push")(push.push)
app.command("served")(served.served)


@app.command("list")
def list_(format_: Format = FORMAT) -> None:
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
def verify(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    format_: Format = FORMAT,
) -> None:
    """Check every file of a bundle against its hashes."""
    found = bundle.load(name)
    files, sha256 = found.manifest.files, found.sha256.hex()
    tell(format_, f"{name}: {len(files)} files match; bundle {sha256}", bundle=name, files=files, sha256=sha256)


@app.command()
def info(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    format_: Format = FORMAT,
) -> None:
    """What a bundle is: its halves, its bottleneck, and what every operating point costs and gives."""
    m = bundle.load(name).manifest
    if format_ == "json":
        typer.echo(json.dumps(msgspec.to_builtins(m)))
        return
    typer.echo(f"{m.name}: {m.task}, {len(m.labels)} classes, input {m.input.shape[1]} x {m.input.shape[0]}")
    typer.echo(f"{_crosses(m)}, {m.tail_flops / 1e6:.1f} MFLOP")
    typer.echo(f"made by {m.made_by}\n")
    evaluate.tell(m, m.points)


def _crosses(m: bundle.Manifest) -> str:
    """What is sent, and which files answer it."""
    b, sent = m.bottleneck, []
    if b.steps:
        sent.append(f"bottleneck {b.height} x {b.width} x {b.channels}; tail {' then '.join(p.file for p in m.tail)}")
    if (p := m.picture) is not None:
        size = f"{p.crossing.shape[1]} x {p.crossing.shape[0]}"
        sent.append(f"picture {size} as {p.format}; tail {' then '.join(part.file for part in p.tail)}")
    return "; ".join(sent)


@app.command()
@if_interrupted(NOTHING)
def quantize(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    pictures: Path | None = typer.Option(None, help="Labelled pictures of your own [those it was trained on]."),
    uncut: Path | None = evaluate.UNCUT,
    pixels: str | None = evaluate.UNCUT_PIXELS,
    judges: Path | None = typer.Option(None, "--validation", help="With --uncut: other pictures, to judge by."),
    search: str = typer.Option("boosted", help="How options are chosen: boosted or random."),
    trials: int = typer.Option(18, min=1, help="Ways to quantise that are tried."),
    most: int | None = typer.Option(None, help="Validate on at most so many pictures.", min=10),
    out: Path | None = typer.Option(None, help="The new bundle's folder [bundles/NAME-int8]."),
    seed: int = typer.Option(1, help="The same seed makes the same bundle."),
) -> None:
    """Make a bundle's head int8 without training: for a Pi 5 or an Orin; a Pi 4 gains nothing by it."""
    try:
        from isthmus.models.compression import quantize as quantizing
        from isthmus.models.data import corpora
        from isthmus.models.distillation import judged
    except ImportError as error:
        raise missing(error, "train") from error
    if search not in ("boosted", "random"):
        raise ConfigError(f"--search: '{search}' is neither boosted nor random")
    found = bundle.load(name)
    m = found.manifest
    target = out or BUNDLES / f"{m.name}-int8"
    check_replaceable(target, (found.folder, pictures, uncut, judges))
    if uncut is None:
        if judges is not None:
            raise ConfigError("--validation: goes with --uncut; labelled pictures are shared out by themselves")
        images = corpora.training_of(m, pictures).pictures.images[: quantizing.PICTURES]
        validation = corpora.validation_of(m, pictures, most)
    else:
        check("--pixels", pixels, PIXELS)
        images = judged.answered(m, uncut, pixels, pictures, quantizing.PICTURES).images
        validation = corpora.judged_by(m, judged.answered(m, uncut, pixels, judges, most))
    quantizing.quantise(
        found,
        images,
        validation,
        target,
        how="boosted" if search == "boosted" else "random",
        trials=trials,
        seed=seed,
        report=typer.echo,
    )


PICTURES = typer.Option(
    None,
    "--pictures",
    help="Your own: a folder with one subfolder a class, or of clips with boxes; or a COCO-style .json [the recipe's own].",
)
RECIPE = typer.Argument(help="A recipe: cifar10, signs or skywatch.")


def _opened(name: str, pictures: Path | None, chosen: list[str] | None) -> TrainingRun | DetectorRun:
    try:
        from isthmus.models.ablation import variants
        from isthmus.models.detection import recipes, run
        from isthmus.models.training.recipes import RECIPES
    except ImportError as error:
        raise missing(error, "train") from error
    if name not in (known := [*RECIPES, *recipes.RECIPES]):
        raise ConfigError(f"{name}: no such recipe; there are {', '.join(known)}")
    if name not in recipes.RECIPES:
        return variants.open_run(name, pictures, chosen or ())
    if chosen:
        raise ConfigError(f"--variant: {chosen[0]}: not of {name}, which has none; leave it out")
    return run.open_run(name, pictures)


@app.command()
def train(
    name: str = RECIPE,
    checkpoint: Path | None = typer.Option(None, help="Where to save and resume [checkpoints/NAME.pt]."),
    pictures: Path | None = PICTURES,
    variant: list[str] | None = prune.VARIANT,
    epochs: int | None = typer.Option(None, min=1, help="Passes over the pictures [the recipe's]."),
    begin: str | None = typer.Option(None, help="A bundle of the same recipe whose weights to begin with."),
    seed: int = typer.Option(1, help="The same seed makes the same bundle."),
    threads: int = typer.Option(1, help="Threads of torch."),
) -> None:
    """Train a network, or tune a bundle's; resumes from its checkpoint."""
    begun_with = bundle.load(begin) if begin is not None else None
    run = _opened(name, pictures, variant).lasting(epochs)
    path = checkpoint or CHECKPOINTS / f"{run.name}.pt"
    with if_interrupted(partial(trained_until_then, path)):
        run.train(path, seed=seed, threads=threads, report=typer.echo, begin=begun_with)


@app.command()
@if_interrupted(NOTHING)
def export(
    name: str = RECIPE,
    checkpoint: Path | None = typer.Option(None, help="A finished training's checkpoint [checkpoints/NAME.pt]."),
    pictures: Path | None = PICTURES,
    variant: list[str] | None = prune.VARIANT,
    out: Path | None = typer.Option(None, help="The bundle's folder [the zoo's; bundles/ for your own or a variant]."),
    threads: int = typer.Option(1, help="Threads of torch."),
) -> None:
    """Evaluate a checkpoint at every operating point and write its bundle, model card and outcome table."""
    run = _opened(name, pictures, variant)
    path = checkpoint or CHECKPOINTS / f"{run.name}.pt"
    target = out or (bundle.ZOO if run.name == name else BUNDLES) / run.name
    check_replaceable(target, (path, pictures))
    run.export(path, target, threads=threads, report=typer.echo)


@app.command()
def recount(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    out: Path | None = typer.Option(None, help="The new bundle's folder [in the place of the old one]."),
) -> None:
    """Give an older trained bundle a predictor, from its own outcome table; its networks stay as they are."""
    from isthmus.models.bundling import recount as recounting
    from isthmus.models.data import corpora

    found = bundle.load(name)
    made = recounting.recounted(found, out or found.folder, corpora.halves(len(found.outcomes().truth)))
    predicts = f"predictors for {len(made.manifest.predictors)} widths" if made.manifest.predictors else "no predictor"
    typer.echo(f"{made.folder}: {predicts}; bundle {made.sha256.hex()}")


@app.command()
def inputs(name: str = typer.Argument(help="A bundle of the zoo, or a folder.")) -> None:
    """Measure what sending the picture itself would give (JPEG, WebP), for the rivals that do; writes inputs.npz."""
    from isthmus.models.bundling import picture_rival

    found = bundle.load(name)
    typer.echo(f"{picture_rival.measure(found, typer.echo)}: written")
