"""What `split` and `pair` found out about a model by themselves, said to the user; and the names of its classes."""

from __future__ import annotations

from pathlib import Path

import typer

from isthmus.cli.options import label_names
from isthmus.models.splitting import metadata
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.errors import ConfigError, DataError
from isthmus.proto.tasks import WITHOUT_CLASSES
from isthmus.proto.vocabulary import Guess


def tell(uncut: Uncut, *, task: str | None, pixels: str | None) -> None:
    """Say on standard error what was not told: what the outputs are read as, and which pixels the model takes."""
    name, own, taken = uncut.graph.path.name, metadata.of(uncut.graph), uncut.input
    if own.fault:
        typer.echo(f"{name}: {own.fault}", err=True)
    if task is None:
        typer.echo(f"{name}: read as {uncut.reading.words} (--task, --boxes say otherwise)", err=True)
    if pixels is None and own.normalisation == (taken.mean, taken.std):
        means, deviations = (", ".join(f"{255 * v:g}" for v in dict.fromkeys(levels)) for levels in own.normalisation)
        typer.echo(f"{name}: takes pixels less {means}, by {deviations}, as its metadata says (or --pixels)", err=True)


def class_names(uncut: Uncut, path: Path | None) -> tuple[str, ...]:
    """The names in the user's file, or the model's own; empty without either, or where its own are not as many as its classes.

    Raises DataError where the user's are not, ConfigError where the answers have no classes.
    """
    if path is not None:
        if uncut.reading.task in WITHOUT_CLASSES - {"pose"}:
            raise ConfigError(f"--labels: answers of {uncut.reading.task} have no classes to name; leave it out")
        names = label_names(path, uncut.classes)
        if (needed := _needed(uncut)) > len(names):
            raise DataError(
                f"{path}: {len(names)} names, the model found class {needed - 1}; give one a line, from class 0 on"
            )
        return names
    own = metadata.of(uncut.graph)
    if not own.labels or uncut.reading.task in WITHOUT_CLASSES:
        return ()
    where = f"{uncut.graph.path.name}: {len(own.labels)} names in its own {own.file}"
    expected = uncut.classes or max(_needed(uncut), len(own.labels))
    if expected != len(own.labels):
        typer.echo(f"{where}, it has {expected} classes: not used (--labels)", err=True)
        return ()
    typer.echo(f"{where} name its classes (or --labels)", err=True)
    return own.labels


def _needed(uncut: Uncut) -> int:
    """How many classes there are at least, by those that were found in the sample pictures."""
    return max((label + 1 for guess in uncut.guesses() for label in _labels(guess)), default=0)


def _labels(guess: Guess) -> list[int]:
    return [box.label for box in guess.detail] if isinstance(guess.detail, tuple) else []
