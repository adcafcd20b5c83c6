"""The teacher: a `.tflite` that is never touched, and what it is asked for. Nothing here knows torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Input
from isthmus.models.cuts import CODABLE, IMAGE, TAIL, Cut, cut_after, cuts, halves
from isthmus.models.flatbuffer import Graph, Part, Tensor, written
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake
from isthmus.models.uncut import task_of
from isthmus.proto.errors import ModelError

Stored = NDArray[Any]
TAIL_SHARE = 0.6
"""Of the teacher's work that an automatic cut leaves behind it."""
GUIDE_SHARE = 0.25
"""Of the tail's work that lies in front of the guide, at least."""


def chosen_cut(graph: Graph) -> Cut:
    """The cut to distil where none is named: the smallest map in front of three fifths of the work, the first of equals.

    Raises ModelError when the graph has no such place.
    """
    fitting = [c for c in cuts(graph) if _is_map(c) and c.tail_flops >= TAIL_SHARE * graph.flops]
    if not fitting:
        raise ModelError(f"{graph.path}: no single map crosses in front of three fifths of its work; name a cut")
    return min(fitting, key=lambda c: (c.crossing[0].elements, c.after))


def named_cut(graph: Graph, name: str) -> Cut:
    """The cut after operator `name`, where it is a number, behind the tensor of that name, or `auto`: the chosen one.

    Raises ModelError naming what there is instead.
    """
    if name == "auto":
        return chosen_cut(graph)
    if name.isdigit():
        return cut_after(graph, int(name))
    for cut in cuts(graph):
        if _is_map(cut) and cut.crossing[0].name == name:
            return cut
    raise ModelError(f"{graph.path}: no cut '{name}'; `isthmus models split {graph.path.name}` lists them by number")


def _is_map(cut: Cut) -> bool:
    """Whether one tensor of some height and width crosses."""
    shape = cut.crossing[0].shape if len(cut.crossing) == 1 else ()
    return cut.obstacle is None and len(shape) == 4 and shape[1] > 1 and shape[2] > 1


class Teacher:
    """A graph cut at one place, and the tensors that a student learns from.

    `features` is the map that crosses at the cut, `logits` what the answer is read from: in front of the softmax, where
    there is one. Between them lies the guide: a map no larger than the features, or that same one.
    """

    def __init__(self, graph: Graph, cut: Cut, input_: Input) -> None:
        """Raises ModelError when its picture is not square, its answer not one of classes, or no single map crosses."""
        self.graph, self.cut, self.input = graph, cut, input_
        self.answer = graph.tensors[graph.outputs[0]]
        if input_.shape[0] != input_.shape[1]:
            raise ModelError(f"{graph.path}: takes pictures of {input_.shape}; a student takes square ones")
        self.task = task_of(graph)
        if not self.task.startswith("classification") or self.answer.dtype not in CODABLE:
            what = f"{self.answer.dtype} {self.answer.shape}"
            raise ModelError(f"{graph.path}: answers {what}; only classes can be distilled")
        if not _is_map(cut):
            crossing = ", ".join(f"{t.name} {t.shape}" for t in cut.crossing)
            raise ModelError(
                f"{graph.path}: after operator {cut.after}: {crossing} cross; a single map can be distilled"
            )
        self.size = input_.size
        self.fingerprint = hashlib.sha256(graph.path.read_bytes()).hexdigest()
        self.features = cut.crossing[0]
        self._guide = self._guide_cut()
        self.logits = self._in_front_of_softmax()
        self.classes = self.logits.elements
        _, self.tail = halves(graph, cut)

    def _guide_cut(self) -> Cut:
        most = (1 - GUIDE_SHARE) * self.cut.tail_flops
        behind = [c for c in cuts(self.graph) if c.after > self.cut.after and c.tail_flops <= most and _is_map(c)]
        return next((c for c in behind if c.crossing[0].elements <= self.features.elements), self.cut)

    def _in_front_of_softmax(self) -> Tensor:
        if self.task == "classification":
            return self.answer
        made_by = {output: operator for operator in self.graph.operators for output in operator.outputs}
        operator = made_by[self.answer.index]
        while operator.kind != "SOFTMAX":
            operator = made_by[operator.inputs[0]]
        return self.graph.tensors[operator.inputs[0]]

    @property
    def taught(self) -> dict[str, Tensor]:
        """What a student learns from, by name."""
        return {"features": self.features, "logits": self.logits}

    @property
    def guided_tail(self) -> tuple[Part, Part]:
        """The tail in two: from the map at the cut to the guide, and from there to the logits."""
        _, behind = halves(self.graph, self._guide)
        first = tuple(i for i in self.tail.operators if i not in behind.operators)
        guide = {"guide": self._guide.crossing[0].index}
        return (
            Part(self.graph, "guide", first, self.tail.inputs, guide),
            Part(self.graph, TAIL, behind.operators, guide, {"logits": self.logits.index}),
        )

    def opened_tail(self) -> Signature:
        """What the server runs behind the decoder: the map in, the teacher's answer out, as real values."""
        return Signature(opened(written([self.tail])), TAIL)


class Lesson:
    """The teacher at work: one picture (S, S, 3) in, what it teaches and its answer out, without the batch.

    The arrays are as the file stores them, and valid until the next call.
    """

    def __init__(self, teacher: Teacher) -> None:
        graph, everything = teacher.graph, tuple(o.index for o in teacher.graph.operators)
        outputs = {name: tensor.index for name, tensor in teacher.taught.items()} | {"answer": teacher.answer.index}
        part = Part(graph, "lesson", everything, {IMAGE: graph.inputs[0]}, outputs)
        self._run = Signature(opened(written([part])), "lesson")
        self._intake = Intake(teacher.input)

    def __call__(self, picture: NDArray[np.uint8]) -> Mapping[str, Stored]:
        """What the teacher makes of it."""
        image = self._run.inputs[IMAGE].stored(self._intake(picture))
        return {name: values[0] for name, values in self._run.stored(**{IMAGE: image}).items()}


def real(stored: Stored, tensor: Tensor) -> NDArray[np.float32]:
    """What stored values of `tensor` mean."""
    values = stored.astype(np.float32)
    return (values - np.float32(tensor.zero_point)) * np.float32(tensor.scale) if tensor.scale else values
