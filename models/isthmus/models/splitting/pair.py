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
from numpy.typing import NDArray

from isthmus.models.bundle import SCHEMA, Bottleneck, Bundle, Manifest, Outcomes, PictureLadder, Point, Stage, TailPart
from isthmus.models.bundling import writer
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.flatbuffer import written
from isthmus.models.litert import signature_of
from isthmus.models.pictures import Intake, sendable
from isthmus.models.progress import Report
from isthmus.models.splitting.cuts import IMAGE, whole
from isthmus.models.splitting.split import Answered, answered, by_confidence, from_fallback, outcomes_of
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto import picture_codec
from isthmus.proto.codec import HEADER_BYTES
from isthmus.proto.errors import ModelError
from isthmus.proto.picture_codec import Format, PictureConfig, Pixels
from isthmus.proto.vocabulary import Guess

QUALITIES = (90, 70, 50, 30, 15, 5, 1)
"""WebP's own, finest first: from 16 kB to 2 kB of a picture of 416 x 416 pixels."""
SMALL, LARGE, LARGE_FILE = "small", "large", "large.tflite"
WIDTH = 1.0
NO_FEATURES = Bottleneck(0, 0, 0, (), (), (), ())


@dataclass(frozen=True)
class Pair:
    """Two models, how the picture crosses, and what the operating points answer."""

    small: Uncut
    large: Uncut
    config: PictureConfig
    answered: tuple[Answered, ...]
    """The small model's, then one for each quality."""
    truth: tuple[Guess, ...]
    """The larger model's answers to the measured pictures as they were."""
    layer_bytes: NDArray[np.uint32]
    """(N, 1, Q, 1)"""


def pair(
    small: Uncut, large: Uncut, pictures: Sequence[Pixels], format_: Format, qualities: Sequence[int], report: Report
) -> Pair:
    """Measure two models that were shown the same `pictures`. Raises ModelError when their answers are of two kinds."""
    _check(small, large)
    sent = [sendable(picture, large.input) for picture in pictures]
    config = picture_codec.fit([sent[i] for i in large.fitting], format_, qualities)
    truth = large.guesses()
    exit_ = from_fallback(small, truth)
    file, intake = written([whole(large.graph, LARGE)]), Intake(large.input)
    signature = signature_of(file, LARGE, whose=large.graph.path)
    steps, sizes = [], np.zeros((len(large.measuring), 1, len(qualities), 1), np.uint32)
    for quality, value in enumerate(qualities):
        files = [picture_codec.encode(pixels, config, quality) for pixels in sent]
        seen = [picture_codec.decode(file, config) for file in files]
        outputs = [[a[0] for a in signature(**{IMAGE: intake(pixels)}).values()] for pixels in seen]
        sizes[:, 0, quality, 0] = [HEADER_BYTES + len(files[i]) for i in large.measuring]
        point = Point(width=WIDTH, step=quality, layers=1, bytes=round(float(sizes[:, 0, quality, 0].mean()), 1))
        packed = [large.task.pack(arrays) for arrays in outputs]
        found = answered(large, point, [arrays[0] for arrays in outputs], packed, truth)
        steps.append(by_confidence(found, [exit_]))
        report(f"{format_} {value}: {point.bytes:,.0f} bytes, agreement {found.point.accuracy:.2%}")
    kept = tuple(truth[i] for i in large.measuring)
    return Pair(small, large, config, (exit_, *steps), kept, sizes)


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
        (folder / LARGE_FILE).write_bytes(written([whole(made.large.graph, LARGE)]))
        table = outcomes_of(made.answered, made.truth, made.layer_bytes, made.large.reading.task)
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
        picture=PictureLadder(
            input=large.input,
            format=made.config.format,
            qualities=made.config.qualities,
            size_fit=made.config.size_fit,
            tail=(TailPart(LARGE_FILE, "litert"),),
            flops=large.graph.flops,
            boxes=large.reading.boxes,
        ),
    )


def _card(m: Manifest, made: Pair) -> str:
    small, large = made.small, made.large
    height, width = large.input.shape
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
        f"| {made.config.format} quality | bytes | agreement % |",
        "|---|---|---|",
    ]
    for point in m.points:
        quality = "device alone" if point.step is None else str(made.config.qualities[point.step])
        lines.append(f"| {quality} | {point.bytes:.0f} | {100 * point.accuracy:.2f} |")
    return "\n".join([*lines, ""])
