"""The teacher: a `.tflite` that is never touched, and the tensors that are read from it. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundling.calibration import softmax
from isthmus.models.flatbuffer import Graph, Part, Tensor, written
from isthmus.models.litert import Signature, opened
from isthmus.models.picture_ladder import Input
from isthmus.models.pictures import Intake
from isthmus.models.splitting.cuts import CODABLE, IMAGE, TAIL, cuts
from isthmus.models.splitting.outputs import task_of
from isthmus.proto.errors import ModelError
from isthmus.proto.tasks.classification import Classification

Stored = NDArray[Any]
HINT_SHARE = 0.75
"""The least share of the teacher's work that lies in front of the hint."""


class Teacher:
    """A graph, and the tensors that a student learns from.

    `logits` is what the answer is read from: in front of the softmax, where there is one. `hint` is the smallest map
    behind three quarters of the work, and nothing where there is none.
    """

    def __init__(self, graph: Graph, input_: Input) -> None:
        """Raises ModelError when its picture is not square, or its answer not one of classes."""
        self.graph, self.input = graph, input_
        self.answer = graph.tensors[graph.outputs[0]]
        if input_.shape[0] != input_.shape[1]:
            raise ModelError(f"{graph.path}: takes pictures of {input_.shape}; a student takes square ones")
        self.task = task_of(graph)
        if not self.task.startswith("classification") or self.answer.dtype not in CODABLE:
            what = f"{self.answer.dtype} {self.answer.shape}"
            raise ModelError(f"{graph.path}: answers {what}; only classes can be learnt from")
        self.size = input_.size
        self.fingerprint = hashlib.sha256(graph.path.read_bytes()).hexdigest()
        self.logits = self._in_front_of_softmax()
        self.classes = self.logits.elements
        self.targets = {"logits": self.logits} | self._hint()
        """The tensors that a student learns from, by name."""

    def _hint(self) -> dict[str, Tensor]:
        late = [c for c in cuts(self.graph) if c.obstacle is None and c.head_flops >= HINT_SHARE * self.graph.flops]
        maps = [c.crossing[0] for c in late if len(c.crossing) == 1 and len(c.crossing[0].shape) == 4]
        wide = [tensor for tensor in maps if min(tensor.shape[1:3]) > 1]
        return {"hint": min(wide, key=lambda tensor: tensor.elements)} if wide else {}

    def _in_front_of_softmax(self) -> Tensor:
        if self.task == "classification":
            return self.answer
        made_by = {output: operator for operator in self.graph.operators for output in operator.outputs}
        operator = made_by[self.answer.index]
        while operator.kind != "SOFTMAX":
            operator = made_by[operator.inputs[0]]
        return self.graph.tensors[operator.inputs[0]]

    def part(self, key: str, input_: str, outputs: Mapping[str, Tensor]) -> Part:
        """The whole graph as a signature with other outputs."""
        every = tuple(operator.index for operator in self.graph.operators)
        return Part(self.graph, key, every, {input_: self.graph.inputs[0]}, {n: t.index for n, t in outputs.items()})

    @property
    def tail(self) -> Part:
        """What the server runs behind the decoder: the picture in, the teacher's answer out."""
        return self.part(TAIL, "features", {"output0": self.answer})

    def opened_tail(self) -> Signature:
        """The tail opened for LiteRT, of real values."""
        return Signature(opened(written([self.tail])), TAIL)


class TeacherTargets:
    """Runs the teacher: one picture (S, S, 3) in, the targets and the answer out, without the batch.

    The arrays are as the file stores them, and valid until the next call.
    """

    def __init__(self, teacher: Teacher) -> None:
        part = teacher.part("targets", IMAGE, teacher.targets | {"answer": teacher.answer})
        self._run = Signature(opened(written([part])), "targets")
        self._intake = Intake(teacher.input)

    def __call__(self, picture: NDArray[np.uint8]) -> Mapping[str, Stored]:
        """The targets and the answer for a picture (S, S, 3), by name."""
        image = self._run.inputs[IMAGE].stored(self._intake(picture))
        return {name: values[0] for name, values in self._run.stored(**{IMAGE: image}).items()}


class Original:
    """The teacher's own answers: what is right where nobody labelled the pictures, and a server that is sent pictures."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._targets = TeacherTargets(teacher)
        self._task = Classification(probabilities=teacher.task == "classification-probabilities")

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, K) for pictures (N, S, S, 3)."""
        answers = (real(self._targets(image)["answer"], self.teacher.answer) for image in images)
        return np.stack([self._task.logits((answer,)) for answer in answers])

    def answers(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Class and confidence (N,)."""
        logits = self.logits(images)
        return logits.argmax(1), softmax(logits, 1.0).max(1)


def real(stored: Stored, tensor: Tensor) -> NDArray[np.float32]:
    """The real numbers that stored values of `tensor` stand for."""
    values = stored.astype(np.float32)
    return (values - np.float32(tensor.zero_point)) * np.float32(tensor.scale) if tensor.scale else values
