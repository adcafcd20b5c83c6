"""Two models as one bundle, without training: a small one on the device, a larger one that the picture itself is sent to.

What is right is what the larger one answers to the undamaged picture. Half of the sample pictures fit sizes and temperatures,
the other half, which they never saw, measures.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isthmus.models.bundle import SCHEMA, Bottleneck, Bundle, Manifest, Outcomes, Stage
from isthmus.models.bundling import writer
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.flatbuffer import written
from isthmus.models.progress import Report
from isthmus.models.splitting import ladder as ladders
from isthmus.models.splitting.answered import WIDTH, Answered, card_table, from_fallback, outcomes_of
from isthmus.models.splitting.cuts import whole
from isthmus.models.splitting.ladder import Coder, Ladder
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.errors import ModelError
from isthmus.proto.picture_codec import Pixels
from isthmus.proto.vocabulary import Guess

SMALL = "small"
NO_FEATURES = Bottleneck(0, 0, 0, (), (), (), ())


@dataclass(frozen=True)
class Pair:
    """Two models, how the picture crosses to the larger one, and what the operating points answer."""

    small: Uncut
    alone: Answered
    """What the small model answers."""
    ladder: Ladder
    truth: tuple[Guess, ...]
    """The larger model's answers to the measured pictures as they were."""

    @property
    def large(self) -> Uncut:
        """The server's model."""
        return self.ladder.server

    @property
    def answered(self) -> tuple[Answered, ...]:
        """The small model's, then one for each quality."""
        return self.alone, *self.ladder.answered


def pair(small: Uncut, large: Uncut, pictures: Sequence[Pixels], coder: Coder, report: Report) -> Pair:
    """Measure two models that were shown the same `pictures`. Raises ModelError when their answers are of two kinds."""
    _check(small, large)
    truth = large.guesses()
    alone = from_fallback(small, truth)
    ladder = ladders.measured(large, pictures, coder, truth, report, device=small, exits=[alone])
    return Pair(small, alone, ladder, tuple(truth[i] for i in large.measuring))


def _check(small: Uncut, large: Uncut) -> None:
    one, other = small.reading.task, large.reading.task
    if (one, small.form) != (other, large.form):
        raise ModelError(
            f"{small.graph.path}: gives {one} {small.outputs[0].shape}, {large.graph.path.name} gives {other} "
            f"{large.outputs[0].shape}; a pair answers alike"
        )
    mine, theirs = small.reading.boxes, large.reading.boxes
    if mine is not None and theirs is not None and theirs.most > mine.most:
        raise ModelError(
            f"{large.graph.path}: gives up to {theirs.most} boxes, {small.graph.path.name} up to {mine.most}; say "
            f"most={theirs.most} of the small one's boxes too"
        )


def write(target: Path, made: Pair, *, labels: Sequence[str] = (), made_by: str = "") -> Bundle:
    """The bundle of a pair at `target`: both models, outcome table and model card, or nothing at all."""
    manifest = _manifest(target.name, made, tuple(labels), made_by)

    def fill(folder: Path) -> None:
        (folder / "head.tflite").write_bytes(written([whole(made.small.graph, SMALL)]))
        (folder / made.ladder.file).write_bytes(made.ladder.model)
        sizes = made.ladder.sizes[:, None, :, None]  # (N, 1, Q, 1)
        table = outcomes_of(made.answered, made.truth, sizes, made.large.reading.task)
        kept = {name: value for name in Outcomes.__dataclass_fields__ if (value := getattr(table, name)) is not None}
        np.savez_compressed(folder / "outcomes.npz", **kept)
        (folder / "MODEL_CARD.md").write_text(_card(manifest, made))

    return writer.write(target, manifest, fill)


def _manifest(name: str, made: Pair, labels: tuple[str, ...], made_by: str) -> Manifest:
    small, large, first = made.small, made.large, made.answered[0].point
    outputs = tuple(f"output{i}" for i in range(len(small.graph.outputs)))
    version = importlib.metadata.version("isthmus")
    files = f"{small.graph.path.name} and {large.graph.path.name}; isthmus {version}"
    return Manifest(
        schema=SCHEMA,
        name=name,
        task=large.reading.task,
        labels=labels,
        input=small.input,
        widths=(WIDTH,),
        stages=(
            (Stage(WIDTH, SMALL, small.graph.flops, first.temperature, outputs),),
            (Stage(WIDTH, "", 0, exit=()),),
        ),
        bottleneck=NO_FEATURES,
        tail_flops=large.graph.flops,
        confidence_edges=CONFIDENCE_EDGES,
        points=tuple(a.point for a in made.answered),
        files={},
        made_by=f"{made_by or 'isthmus.models.pair'} ({files})",
        reference="uncut",
        tail=(),
        boxes=small.reading.boxes,
        picture=made.ladder.table,
    )


def _card(m: Manifest, made: Pair) -> str:
    small, large = made.small, made.large
    height, width = made.ladder.table.crossing.shape
    lines = [
        f"# {m.name}",
        "",
        f"`{small.graph.path.name}` on the device ({small.graph.flops / 1e6:.1f} MFLOP), `{large.graph.path.name}` on the server "
        f"({large.graph.flops / 1e6:.1f} MFLOP), which is sent the picture of {width} × {height} pixels: {m.task}, "
        "without training.",
        "",
        f"Made by `{m.made_by}`. Agreement is with what the server's model answers to the undamaged picture, on "
        f"{len(made.truth)} pictures that fitted nothing.",
        "",
    ]
    sent = [("device alone" if p.step is None else m.step_name(p.step),) for p in m.points]
    return "\n".join([*lines, *card_table(made.answered, made.truth, ("sent",), sent), ""])
