"""`isthmus models filter`: a camera's own neural filter, from a labelled video or two folders of its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import typer

from isthmus.cli.options import FORMAT, NOTHING, Format, if_interrupted, missing
from isthmus.models.bundling.writer import check_replaceable

FILTERS = Path("filters")


@if_interrupted(NOTHING)
def filter_(
    footage: list[Path] = typer.Argument(
        help="Videos with NAME.boxes.csv or NAME.frames.csv beside them, or folders with subfolders nothing and something."
    ),
    out: Path | None = typer.Option(None, help="The filter's folder [filters/NAME of the first]."),
    seed: int = typer.Option(1, help="The same seed makes the same bundle."),
    threads: int = typer.Option(1, help="Threads of torch."),
    format_: Format = FORMAT,
) -> None:
    """Train a filter that lets the agent answer "nothing of interest" by itself (agent --filter FOLDER).

    The first half of each camera's pictures trains it, the next fifth chooses its threshold, the rest scores it.
    """
    try:
        import torch

        from isthmus.models.filtering import footage as cameras
        from isthmus.models.filtering import train
    except ImportError as error:
        raise missing(error, "train") from error
    target = out or FILTERS / (footage[0].name if footage[0].is_dir() else footage[0].stem)
    check_replaceable(target, footage)
    torch.set_num_threads(threads)
    videos = [cameras.load(path, train.SIZE) for path in footage]
    trained = train.train(videos, seed=seed, report=lambda line: typer.echo(line, err=True))
    made_by = train.command(footage, seed)
    made = train.write(target, trained, name=target.name, made_by=made_by, images=videos[0].images[:4])
    score = made.manifest.score
    if format_ == "json":
        typer.echo(json.dumps(msgspec.to_builtins(made.manifest)))
        return
    typer.echo(f"{target}: {made.manifest.flops / 1e6:.1f} MFLOP a frame, threshold {made.manifest.threshold:g}")
    typer.echo(
        f"of {score.empty} empty frames {_share(score.dismissed)} dismissed, of {score.interesting} interesting ones "
        f"{_share(score.lost)} lost, of {score.visits} visits {score.visits_lost}; "
        f"AUC {'–' if score.auc is None else f'{score.auc:.4f}'}"
    )


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
