"""A model before it is cut: what it takes, what its answers mean, and what it says to sample pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.models.bundle import Input
from isthmus.models.flatbuffer import Graph, Part, written
from isthmus.models.litert import Signature, opened
from isthmus.models.pictures import Intake
from isthmus.models.splitting.cuts import IMAGE, Cut, names, whole
from isthmus.proto.errors import DataError, ModelError
from isthmus.proto.tasks import TASKS, Packed
from isthmus.proto.vocabulary import Guess

PIXELS: Mapping[str, tuple[float, float]] = {"0..255": (0.0, 1 / 255), "0..1": (0.0, 1.0), "-1..1": (0.5, 0.5)}
"""(mean, std) of `Input` for what a float model takes as its darkest and brightest pixel."""

FEWEST = 4


def input_of(graph: Graph, pixels: str | None = None) -> Input:
    """The picture that a graph takes. `pixels` is a key of PIXELS; a quantised input says so itself.

    Raises ModelError when it takes no RGB picture, or when a float model's pixels are not given.
    """
    if len(graph.inputs) != 1:
        raise ModelError(f"{graph.path}: takes {len(graph.inputs)} inputs, expected one picture")
    tensor = graph.tensors[graph.inputs[0]]
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] != 3:
        raise ModelError(f"{graph.path}: input {tensor.name} is {tensor.shape}, expected (1, height, width, 3) RGB")
    if pixels is not None:
        mean, std = PIXELS[pixels]
    elif tensor.dtype in ("int8", "uint8") and tensor.scale > 0:  # one stored level is one level of a pixel
        darkest = tensor.zero_point + (128 if tensor.dtype == "int8" else 0)
        mean, std = darkest / 255, 1 / (255 * tensor.scale)
    else:
        known = ", ".join(PIXELS)
        raise ModelError(f"{graph.path}: takes {tensor.dtype}; say what its pixels are: --pixels {known}")
    return Input(tensor.shape[1], (mean,) * 3, (std,) * 3, width=tensor.shape[2])


def task_of(graph: Graph) -> str:
    """The task that a graph's outputs look like. Raises ModelError when they look like none."""
    outputs = [graph.tensors[i] for i in graph.outputs]
    shapes = [t.shape for t in outputs]
    if len(outputs) == 1 and len(shapes[0]) == 2:
        return "classification-probabilities" if _ends_in_softmax(graph) else "classification"
    if len(outputs) == 1 and len(shapes[0]) in (3, 4) and min(shapes[0][1:3]) > 1:
        return "segmentation"
    if len(outputs) in (3, 4) and shapes[0][-1] == 4:
        return "detection"
    raise ModelError(f"{graph.path}: gives {shapes}; say what that is: --task {', '.join(TASKS)}")


def _ends_in_softmax(graph: Graph) -> bool:
    """Whether the last operator that computes is a softmax."""
    moving = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE")
    return next((o.kind for o in reversed(graph.operators) if o.kind not in moving), "") == "SOFTMAX"


@dataclass(frozen=True)
class Uncut:
    """A graph, how it is fed, and its answers to sample pictures."""

    graph: Graph
    input: Input
    task: str
    images: tuple[NDArray[np.float32], ...]
    """The pictures, each (1, H, W, 3), real values."""
    packed: tuple[Packed, ...]
    outputs: tuple[NDArray[np.float32], ...]
    """The first output of each answer, without the batch."""
    fitting: NDArray[np.intp]
    """The pictures that quantiser and temperatures are fitted on."""
    measuring: NDArray[np.intp]
    """The numbers of the pictures that measure, and fit nothing."""

    @classmethod
    def of(
        cls,
        graph: Graph,
        input_: Input,
        task: str,
        pictures: Sequence[NDArray[np.uint8]],
        *,
        fit_first: int | None = None,
    ) -> Uncut:
        """Run the graph on every picture; the first `fit_first` are for fitting, or else every other one.

        Raises DataError when there are too few.
        """
        if len(pictures) < FEWEST:
            raise DataError(f"{len(pictures)} sample pictures, expected {FEWEST} at least; a few hundred tell more")
        for_fitting = np.arange(len(pictures)) < fit_first if fit_first else np.arange(len(pictures)) % 2 == 0
        intake, signature = Intake(input_), Signature(opened(written([whole(graph, "uncut")])), "uncut")
        images = tuple(intake(picture) for picture in pictures)
        outputs = [signature(image=image) for image in images]
        packed = tuple(TASKS[task]().pack([array[0] for array in out.values()]) for out in outputs)
        first = tuple(next(iter(out.values()))[0] for out in outputs)
        roles = np.flatnonzero(for_fitting), np.flatnonzero(~for_fitting)
        return cls(graph, input_, task, images, packed, first, *roles)

    def guesses(self) -> list[Guess]:
        """The answers, uncalibrated."""
        task = TASKS[self.task]()
        return [task.guess(packed, temperature=1.0, accuracy=1.0) for packed in self.packed]


class Activations:
    """What would cross at any cut, for a few pictures, from one pass each: a model whose every such tensor is an output."""

    def __init__(self, uncut: Uncut, cuts: Sequence[Cut], *, most: int, values: int) -> None:
        """Run at most `most` pictures; fewer are kept of a cut that would take more than `values` values, but two at least."""
        graph = uncut.graph
        tensors = {t.index: t for cut in cuts for t in cut.crossing}
        wanted = {f"t{index}": index for index in tensors}
        every = tuple(operator.index for operator in graph.operators)
        part = Part(graph, "all", every, {IMAGE: graph.inputs[0]}, wanted)
        signature = Signature(opened(written([part])), "all")
        self._ports = {index: signature.outputs[name] for name, index in wanted.items()}
        self._keep = {index: min(most, max(2, values // t.elements)) for index, t in tensors.items()}
        self._stored: dict[int, list[NDArray[Any]]] = {index: [] for index in tensors}
        for shown, image in enumerate(uncut.images[:most]):
            out = signature.stored(image=signature.inputs[IMAGE].stored(image))
            for name, index in wanted.items():
                if shown < self._keep[index]:
                    self._stored[index].append(out[name].copy())

    def at(self, cut: Cut) -> list[dict[str, NDArray[Any]]]:
        """The features of each picture by name: real values, each (1, ...)."""
        count = min(self._keep[t.index] for t in cut.crossing)
        named = list(zip(names(cut), (t.index for t in cut.crossing), strict=True))
        return [{n: self._ports[i].real(self._stored[i][shown]) for n, i in named} for shown in range(count)]
