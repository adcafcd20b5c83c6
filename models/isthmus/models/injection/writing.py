"""The bundle of an injected detector: head with or without a fallback before it, tail, outcome table, card."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from isthmus.models import flatbuffer
from isthmus.models.bundle import SCHEMA, Bottleneck, Bundle, Manifest, Outcomes, Stage
from isthmus.models.bundling import writer
from isthmus.models.bundling.evaluate import CONFIDENCE_EDGES
from isthmus.models.flatbuffer import Graph, Part, written
from isthmus.models.injection import halves
from isthmus.models.injection.measuring import Measured
from isthmus.models.injection.network import Injected
from isthmus.models.injection.teacher import DetectorTeacher
from isthmus.models.picture_ladder import TailPart
from isthmus.models.splitting.answered import WIDTH, card_table, outcomes_of
from isthmus.models.splitting.cuts import HEAD, IMAGE, whole
from isthmus.models.splitting.split import FALLBACK
from isthmus.models.splitting.uncut import Uncut
from isthmus.proto.codec import CodecConfig


@dataclass(frozen=True)
class Made:
    """A trained injection with all that its bundle says of it."""

    teacher: DetectorTeacher
    uncut: Uncut
    fallback: Uncut | None
    network: Injected
    found: Measured
    codec: CodecConfig
    gap: tuple[float, float]
    """By how much the exported head and tail differ from torch, as shares of their largest values."""
    learnt_from: int
    """The number of pictures."""

    @property
    def tail_flops(self) -> int:
        """What the server computes: the decoder, and the detector's layers behind the cut."""
        return (
            2 * self.network.decoder.macs(*self.network.cells) + self.teacher.graph.flops - self.teacher.cut.head_flops
        )


def write(target: Path, exported: Path, made: Made, *, labels: Sequence[str], made_by: str) -> Bundle:
    """Put the bundle at `target`, with the files that lie in `exported`, or nothing at all."""
    head = flatbuffer.read(exported / halves.HEAD_FILE)
    manifest = _manifest(target.name, head, made, tuple(labels), made_by)

    def fill(folder: Path) -> None:
        (folder / halves.HEAD_FILE).write_bytes(_head_file(head, made))
        (folder / halves.TAIL_FILE).write_bytes((exported / halves.TAIL_FILE).read_bytes())
        found = made.found
        table = outcomes_of(found.answered, found.truth, found.layer_bytes, made.uncut.reading.task)
        kept = {name: value for name in Outcomes.__dataclass_fields__ if (value := getattr(table, name)) is not None}
        np.savez_compressed(folder / "outcomes.npz", **kept)
        (folder / "MODEL_CARD.md").write_text(_card(manifest, made))

    return writer.write(target, manifest, fill)


def _head_file(head: Graph, made: Made) -> bytes:
    every = tuple(operator.index for operator in head.operators)
    part = Part(head, HEAD, every, {IMAGE: head.inputs[0]}, {halves.FEATURES: head.outputs[0]})
    return written([part] if made.fallback is None else [whole(made.fallback.graph, FALLBACK), part])


def _manifest(name: str, head: Graph, made: Made, labels: tuple[str, ...], made_by: str) -> Manifest:
    stages = [(Stage(WIDTH, HEAD, head.flops, exit=()),)]
    if (small := made.fallback) is not None:
        outputs = tuple(f"output{i}" for i in range(len(small.graph.outputs)))
        first = Stage(WIDTH, FALLBACK, small.graph.flops, exit=outputs, input=small.input, boxes=small.reading.boxes)
        stages.insert(0, (first,))
    version = importlib.metadata.version("isthmus")
    return Manifest(
        schema=SCHEMA,
        name=name,
        task=made.uncut.reading.task,
        boxes=made.uncut.reading.boxes,
        labels=labels,
        input=made.uncut.input,
        widths=(WIDTH,),
        stages=tuple(stages),
        bottleneck=Bottleneck.of(made.codec),
        tail_flops=made.tail_flops,
        confidence_edges=CONFIDENCE_EDGES,
        points=tuple(a.point for a in made.found.answered),
        files={},
        made_by=f"{made_by} (isthmus {version}, torch {torch.__version__})",
        reference="uncut",
        tail=(TailPart(halves.TAIL_FILE, "onnx"),),
    )


def _card(m: Manifest, made: Made) -> str:
    teacher, b, whole_flops = made.teacher, m.bottleneck, made.teacher.graph.flops
    head = m.stages[-1][0].flops
    alone = "Nothing answers on the device: without the server a frame is answered `none`, with the reason."
    if made.fallback is not None:
        small = made.fallback.graph
        alone = f"`{small.path.name}` ({small.flops / 1e6:.1f} MFLOP more) answers on the device."
    lines = [
        f"# {m.name}",
        "",
        f"`{teacher.graph.path.name}` ({whole_flops / 1e6:.1f} MFLOP) cut after operator {teacher.cut.after}, with a bottleneck "
        f"of {b.height} × {b.width} × {b.channels} injected there: {m.task}, input {m.input.shape[1]} × {m.input.size} RGB.",
        f"The head computes {head / 1e6:.1f} MFLOP ({head / whole_flops:.1%}), the tail {m.tail_flops / 1e6:.1f}. {alone}",
        "",
        f"Made by `{m.made_by}`, from {made.learnt_from:,} pictures without labels.",
        f"Measured on {len(made.found.truth)} others with the real codec, payloads with their headers. The exported head differs "
        f"from torch by at most {made.gap[0]:.1g} of its largest value, the tail (float16 on disk) by {made.gap[1]:.1g}.",
        "",
    ]
    steps = ["fallback" if p.step is None else m.step_name(p.step) for p in m.points]
    cells = [(step, str(point.layers)) for step, point in zip(steps, m.points, strict=True)]
    return "\n".join([*lines, *card_table(made.found.answered, made.found.truth, ("step", "layers"), cells), ""])
