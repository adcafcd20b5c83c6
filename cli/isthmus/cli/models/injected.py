"""The part of `isthmus models distill` that is a detector's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from isthmus.cli.models.told import class_names, tell
from isthmus.cli.options import Fit
from isthmus.models import flatbuffer, pictures
from isthmus.models.flatbuffer import Graph
from isthmus.models.splitting.outputs import Reading, task_of, told
from isthmus.models.splitting.uncut import Uncut, input_of
from isthmus.proto.errors import ModelError

if TYPE_CHECKING:
    from isthmus.models.injection.pipeline import Small

SHOWN = 40
"""Pictures by which a detector's answers are told."""


@dataclass(frozen=True)
class Asked:
    """What the command line says of a detector."""

    pixels: str | None
    fit: Fit
    boxes: str | None
    at: int | None
    aimed_bytes: int
    fallback: Path | None
    fallback_pixels: str | None
    labels: Path | None


def is_classifier(graph: Graph) -> bool:
    """Whether a model answers with one class, as far as the shapes of its outputs tell."""
    try:
        return task_of(graph).startswith("classification")
    except ModelError:
        return False


def inject(
    graph: Graph,
    asked: Asked,
    kept_in: tuple[Path, Path | None, Path, Path],
    target: Path,
    made_by: str,
    *,
    epochs: int,
    head_share: float | None,
    seed: int,
) -> None:
    """Cut a detector and train the bottleneck; `kept_in`: pictures, those that judge, checkpoint and cache.

    Raises ModelError when it answers neither with classes nor with boxes.
    """
    from isthmus.models.injection.pipeline import Injection
    from isthmus.models.injection.settings import InjectionSettings
    from isthmus.models.injection.teacher import HEAD_SHARE, DetectorTeacher

    source, validation, state, cache = kept_in
    input_ = input_of(graph, asked.pixels, fit=asked.fit)
    reading = told("detection" if asked.boxes else None, asked.boxes)
    shown = pictures.samples(source, SHOWN)
    uncut = Uncut.of(graph, input_, reading, shown)
    tell(uncut, task=asked.boxes, pixels=asked.pixels)
    if uncut.reading.task != "detection":
        raise ModelError(f"{graph.path}: answers with {uncut.reading.task}; classes and boxes can be learnt from")
    names = class_names(uncut, asked.labels)
    settings = InjectionSettings(epochs=epochs, aimed_bytes=asked.aimed_bytes)
    share = HEAD_SHARE if head_share is None else head_share
    injection = Injection(
        teacher=DetectorTeacher.of(graph, input_, head_share=share, at=asked.at),
        reading=uncut.reading,
        pictures=source,
        validation=validation,
        settings=settings,
        checkpoint=state,
        cache=cache,
        seed=seed,
        small=_small(asked),
    )
    bundle = injection.run(target, names, made_by, typer.echo)
    typer.echo(f"{bundle.folder}: bundle {bundle.sha256.hex()}")


def _small(asked: Asked) -> Small | None:
    """The detector that answers on the device. Raises ModelError when it cannot be read."""
    from isthmus.models.injection.pipeline import Small

    if asked.fallback is None:
        return None
    graph = flatbuffer.read(asked.fallback)
    return Small(graph, input_of(graph, asked.fallback_pixels, fit=asked.fit), Reading("detection"))
