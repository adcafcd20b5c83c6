"""`isthmus models prune`: fewer channels in a trained head, chosen by what each cut is measured to cost."""

from __future__ import annotations

from pathlib import Path

import typer

from isthmus.cli.options import BUNDLES, CHECKPOINTS, NOTHING, if_interrupted, missing
from isthmus.models import bundle
from isthmus.models.bundling.writer import check_replaceable
from isthmus.proto.errors import ConfigError

VARIANT = typer.Option(None, "--variant", help="One change of docs/ablation.md; may be given several times.")


@if_interrupted(NOTHING)
def prune(
    name: str = typer.Argument(help="A recipe: cifar10 or signs."),
    flops: float = typer.Option(help="The share of the full-width head's FLOPs that may be left, e.g. 0.5."),
    checkpoint: Path | None = typer.Option(None, help="A finished training's checkpoint [checkpoints/NAME.pt]."),
    begin: str | None = typer.Option(None, help="A bundle whose weights to prune, not a checkpoint's."),
    epochs: int = typer.Option(0, min=0, help="Fine-tune what is left for so many [0: measure its norms anew]."),
    pictures: Path | None = typer.Option(None, help="Your own, if it was trained on them [the recipe's]."),
    variant: list[str] | None = VARIANT,
    out: Path | None = typer.Option(None, help="The new bundle's folder [bundles/NAME-pruned]."),
    seed: int = typer.Option(1, help="The same seed makes the same bundle."),
    threads: int = typer.Option(1, help="Threads of torch."),
) -> None:
    """Prune a trained head to a budget of FLOPs and write what is left, at one width, as a bundle."""
    if begin is not None and checkpoint is not None:
        raise ConfigError("--begin and --checkpoint: one network is pruned; give one of them")
    try:
        import torch

        from isthmus.models.ablation.variants import open_run
        from isthmus.models.compression import prune as pruning
        from isthmus.models.training.run import load_averaged
    except ImportError as error:
        raise missing(error, "train") from error
    torch.set_num_threads(threads)
    run = open_run(name, pictures, variant or ())
    trained, target = checkpoint or CHECKPOINTS / f"{run.name}.pt", out or BUNDLES / f"{run.name}-pruned"
    whole = bundle.load(begin) if begin is not None else None
    check_replaceable(target, (pictures, trained if whole is None else whole.folder))
    if whole is not None:
        network, made = run.begun_with(whole), whole.manifest.made_by
    else:
        averaged = load_averaged(trained, run.recipe)
        network, made = averaged.network, averaged.made_by(run.arguments)
    pruning.to_bundle(
        run,
        network,
        made,
        target,
        pruning.Pruning(flops, epochs, seed),
        report=typer.echo,
    )
