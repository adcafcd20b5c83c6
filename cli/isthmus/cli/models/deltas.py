"""`isthmus models deltas`: teach a bundle to code frames against those before, from clips."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer

from isthmus.cli.options import NOTHING, if_interrupted, require
from isthmus.models import bundle as bundles
from isthmus.models.bundle import SCHEMA, Bottleneck, Bundle
from isthmus.models.bundling import writer
from isthmus.models.bundling.deltas import Clips, with_deltas
from isthmus.models.bundling.films import FeatureHead, Film, Floats, film
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks.box_score import Judged, scored
from isthmus.proto.vocabulary import Guess

LEAST_SCORE = 0.01
"""Boxes below it say nothing; average precision counts all others, however unsure."""
JUDGED_EVERY = 5
"""Neighbouring frames say the same: every so many are judged."""


@if_interrupted(NOTHING)
def deltas(
    name: str = typer.Argument(help="A bundle of the zoo, or a folder."),
    clips: list[Path] = typer.Argument(
        help="Clips: videos, or folders of pictures; boxes beside a video in NAME.boxes.csv."
    ),
    out: Path = typer.Option(..., help="The folder of the bundle with deltas."),
    lag: int = typer.Option(3, help="Frames that an answer takes.", min=1),
    frames: int = typer.Option(100, help="Use at most so many of each clip.", min=8),
) -> None:
    """Learn how frames are coded against those before: the code from every second clip, what may be kept from the others."""
    require("server")
    bundle = bundles.load(name)
    if len(clips) < 2:
        raise ConfigError("CLIPS: one is not enough; the code is learnt from some and judged on others")
    writer.check_replaceable(out, (bundle.folder,))
    heads = [FeatureHead(bundle, width) for width in bundle.manifest.widths]
    films = [[film(clip, head, most=frames) for head in heads] for clip in sorted(clips)]
    fitting, judging = ([one for each in films[start::2] for one in each] for start in (0, 1))
    codec = with_deltas(
        bundle.manifest.bottleneck.codec,
        [f.features for f in fitting],
        [f.features for f in judging],
        _Judge(bundle, judging),
        lag=lag,
        report=lambda line: typer.echo(line, err=True),
    )
    old = bundle.manifest.bottleneck
    manifest = msgspec.structs.replace(
        bundle.manifest, schema=SCHEMA, bottleneck=Bottleneck.of(codec, old.tensors, old.contest)
    )
    writer.write(out, manifest, lambda folder: _copy(bundle, folder))
    assert codec.deltas is not None
    for step, keep in zip(codec.steps, codec.deltas.keep, strict=True):
        typer.echo(f"step {step:.4g}: {keep[0]:g} of the base's step kept, {keep[1]:g} of the step")
    typer.echo(f"bundle: {out}")


def _copy(bundle: Bundle, folder: Path) -> None:
    for file in bundle.manifest.files:
        shutil.copy(bundle.folder / file, folder / file)


class _Judge:
    """What answers to clips' features are worth: AP50 where there are boxes, else agreement with the answers to whole frames."""

    def __init__(self, bundle: Bundle, films: Sequence[Film]) -> None:
        manifest = bundle.manifest
        from isthmus.edge_server.engines import Tail

        self._films, self._labels, self._tail = films, manifest.labels, Tail(bundle, 1)
        self._boxed = manifest.boxes is not None and all(f.truth for f in films)
        if self._boxed and manifest.boxes is not None:
            boxes = msgspec.structs.replace(manifest.boxes, score=LEAST_SCORE)
            manifest = msgspec.structs.replace(manifest, boxes=boxes)
        self._task = manifest.answers
        self._whole: tuple[Clips, list[Guess]] = (), []

    def __call__(self, whole: Clips, sent: Clips) -> float:
        """How much less the answers to `sent` are worth than those to `whole`."""
        if self._whole[0] is not whole:  # asked again and again of the same
            self._whole = whole, self._guesses(whole)
        before, after = self._whole[1], self._guesses(sent)
        if self._boxed:
            return self._ap50(before) - self._ap50(after)
        return 1 - sum(map(self._task.agreement, after, before)) / len(after)

    def _ap50(self, guesses: Sequence[Guess]) -> float:
        places = [(f, i) for f in self._films for i in range(0, len(f.features), JUDGED_EVERY)]
        return scored([_judged(f, i, g) for (f, i), g in zip(places, guesses, strict=True)], self._labels).ap50

    def _guesses(self, clips: Clips) -> list[Guess]:
        return [self._guess(x) for clip in clips for x in clip[::JUDGED_EVERY]]

    def _guess(self, features: Floats) -> Guess:
        (packed,) = self._tail.run([features])
        return Guess(0, 0.0) if packed is None else self._task.guess(packed, temperature=1.0, accuracy=0.5)


def _judged(film_: Film, frame: int, guess: Guess) -> Judged:
    found = guess.detail if isinstance(guess.detail, tuple) else ()
    return Judged(*film_.shape, film_.truth[frame], found)
