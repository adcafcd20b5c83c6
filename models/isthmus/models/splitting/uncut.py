"""A model before it is cut: what it takes, what its answers mean, and what it says to sample pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.models.flatbuffer import Graph, Part, Tensor, written
from isthmus.models.litert import signature_of
from isthmus.models.picture_ladder import Input
from isthmus.models.pictures import Intake, placing
from isthmus.models.progress import Tick, unheard
from isthmus.models.splitting import metadata
from isthmus.models.splitting.cuts import IMAGE, Cut, names, whole
from isthmus.models.splitting.onnx_model import OnnxGraph, OnnxRun
from isthmus.models.splitting.outputs import Reading, boxes_of, check, classes_of, reading_of, unbatched
from isthmus.proto.errors import DataError, ModelError
from isthmus.proto.tasks.boxes import Boxes
from isthmus.proto.tasks.task import Packed, Task
from isthmus.proto.vocabulary import Guess, Placing, Pose

Run = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
"""A picture as a model takes it, to what the model gives, by output."""
Levels = tuple[float, float, float]
PIXELS: Mapping[str, tuple[Levels, Levels]] = {
    "0..255": ((0.0,) * 3, (1 / 255,) * 3),
    "0..1": ((0.0,) * 3, (1.0,) * 3),
    "-1..1": ((0.5,) * 3, (0.5,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""(mean, std) of `Input` for what a float model takes: the values of its darkest and brightest pixel, or torchvision's."""
IMAGENET_RANGE = (-2.12, 2.64)
"""What torchvision's normalisation makes of the darkest and the brightest pixel, at most."""
ALIKE = 0.01
"""Of the range of an 8-bit input: 2.5 levels."""
FEWEST = 4


def input_of(
    graph: Graph,
    pixels: str | None = None,
    *,
    fit: Literal["stretch", "letterbox"] = "stretch",
    colours: Literal["rgb", "bgr"] = "rgb",
) -> Input:
    """The picture that a graph takes. `pixels` is a key of PIXELS; without it the file tells: by its input's quantisation, by its
    bare bytes, or by its metadata.

    Raises ModelError when it takes no picture, or when a float model's pixels are not told.
    """
    if len(graph.inputs) != 1:
        raise ModelError(f"{graph.path}: takes {len(graph.inputs)} inputs, expected one picture")
    tensor = graph.tensors[graph.inputs[0]]
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or not {1, 3} & {tensor.shape[1], tensor.shape[3]}:
        raise ModelError(
            f"{graph.path}: input {tensor.name} is {tensor.shape}, expected (1, height, width, channels) of RGB or grey, or "
            "(1, channels, height, width)"
        )
    first = tensor.shape[3] not in (1, 3)
    channels, height, width = tensor.shape[1:] if first else (tensor.shape[3], *tensor.shape[1:3])
    mean, std = _levels(graph, tensor, pixels)
    return Input(
        height,
        mean,
        std,
        width=width,
        colours="grey" if channels == 1 else colours,
        layout="first" if first else "last",
        fit=fit,
    )


def _levels(graph: Graph, tensor: Tensor, pixels: str | None) -> tuple[Levels, Levels]:
    if pixels is not None:
        return PIXELS[pixels]
    if tensor.dtype == "uint8" and tensor.scale <= 0:
        return PIXELS["0..255"]
    own = metadata.of(graph).normalisation
    if tensor.dtype not in ("int8", "uint8") or tensor.scale <= 0:
        if own is None:
            raise ModelError(
                f"{graph.path}: takes {tensor.dtype}; say what its pixels are: --pixels {', '.join(PIXELS)}"
            )
        return own
    lowest = tensor.zero_point + (128 if tensor.dtype == "int8" else 0)
    darkest, brightest = -lowest * tensor.scale, (255 - lowest) * tensor.scale
    if own is not None and not _same_range(own, darkest, brightest):
        return own
    if all(abs(a - b) < 0.1 for a, b in zip((darkest, brightest), IMAGENET_RANGE, strict=True)):
        return PIXELS["imagenet"]
    return (lowest / 255,) * 3, (1 / (255 * tensor.scale),) * 3  # one stored level is one level of a pixel


def _same_range(own: tuple[Levels, Levels], darkest: float, brightest: float) -> bool:
    """Whether a normalisation is what the quantisation says too: it is then kept, where no level is rounded to another."""
    span = brightest - darkest
    return all(
        abs(-m / s - darkest) < ALIKE * span and abs((1 - m) / s - brightest) < ALIKE * span
        for m, s in zip(*own, strict=True)
    )


def runner(graph: Graph) -> Run:
    """The whole graph, ready to run on one picture (1, …) as it takes them."""
    if isinstance(graph, OnnxGraph):
        return OnnxRun(graph)
    signature = signature_of(written([whole(graph, "uncut")]), "uncut", whose=graph.path)
    return lambda image: signature(image=image)


def _answers(
    graph: Graph, run: Run, images: Sequence[NDArray[np.float32]], tick: Tick
) -> list[Mapping[str, NDArray[Any]]]:
    """By picture: what the graph gives. Raises ModelError where it does not take real values."""
    found = []
    try:
        for number, image in enumerate(images):
            tick(f"pictures answered by {graph.path.name}", number, len(images))
            found.append(run(image))
        return found
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{graph.path}: LiteRT cannot run it on a picture ({str(error).strip()})") from error


def check_sizes(graph: Graph, expected: Mapping[str, Tensor], out: Mapping[str, NDArray[Any]]) -> None:
    """Raises ModelError where LiteRT gives tensors of other sizes than the file says they have."""
    for name, tensor in expected.items():
        if out[name].shape != tensor.shape:
            raise ModelError(
                f"{graph.path}: {tensor.name} is {out[name].shape} when it runs, the file says {tensor.shape}; convert it again"
            )


@dataclass(frozen=True)
class Uncut:
    """A graph, how it is fed, and its answers to sample pictures."""

    graph: Graph
    input: Input
    reading: Reading
    """What its outputs mean."""
    images: tuple[NDArray[np.float32], ...]
    """The pictures, each (1, H, W, 3), real values."""
    packed: tuple[Packed, ...]
    outputs: tuple[NDArray[np.float32], ...]
    """The first output of each answer, without the batch."""
    fitting: NDArray[np.intp]
    """The pictures that quantiser and temperatures are fitted on."""
    measuring: NDArray[np.intp]
    """The numbers of the pictures that measure, and fit nothing."""
    placings: tuple[Placing, ...]
    """Where each picture lies in what the graph takes."""

    @classmethod
    def of(
        cls,
        graph: Graph,
        input_: Input,
        reading: Reading | None,
        pictures: Sequence[NDArray[np.uint8]],
        *,
        fit_first: int | None = None,
        tick: Tick = unheard,
    ) -> Uncut:
        """Run the graph on every picture; the first `fit_first` are for fitting, or else every other one.

        What its outputs mean is told, or else found in them. Raises DataError when there are too few pictures, ModelError
        when outputs mean nothing that is certain, or cannot be what was told.
        """
        if len(pictures) < FEWEST:
            raise DataError(f"{len(pictures)} sample pictures, expected {FEWEST} at least; a few hundred tell more")
        for_fitting = np.arange(len(pictures)) < fit_first if fit_first else np.arange(len(pictures)) % 2 == 0
        intake = Intake(input_)
        images = tuple(intake(picture) for picture in pictures)
        arrays = [unbatched(graph, out.values()) for out in _answers(graph, runner(graph), images, tick)]
        reading = reading or reading_of(graph, input_.shape, arrays)
        if reading.task == "detection" and reading.boxes is None:
            reading = Reading("detection", boxes_of(graph, input_.shape, arrays) or Boxes())
        check(graph, reading, input_.shape, arrays)
        if input_.fit == "letterbox" and reading.task in ("segmentation", "depth"):
            raise ModelError(f"{graph.path}: {reading.task} would show the border of a letterbox; use --fit stretch")
        task = reading.opened(input_.shape)
        packed, first = tuple(map(task.pack, arrays)), tuple(each[0] for each in arrays)
        roles = np.flatnonzero(for_fitting), np.flatnonzero(~for_fitting)
        placings = tuple(placing(picture.shape, input_) for picture in pictures)
        return cls(graph, input_, reading, images, packed, first, *roles, placings)

    @property
    def task(self) -> Task:
        """How its outputs are packed and read."""
        return self.reading.opened(self.input.shape)

    @property
    def classes(self) -> int | None:
        """How many classes it tells apart, or keypoints it finds; None where its outputs do not say."""
        return classes_of(self.graph, self.reading.task, self.reading.boxes)

    @property
    def form(self) -> tuple[int, ...] | None:
        """What its answers must have in common with another model's to be compared; None for boxes, which always can be."""
        if self.reading.boxes is not None:
            return None
        detail = self.guesses()[0].detail
        return (len(detail.points),) if isinstance(detail, Pose) else self.outputs[0].shape

    def guesses(self) -> list[Guess]:
        """The answers, uncalibrated."""
        return self.read(self.packed)

    def read(self, packed: Sequence[Packed]) -> list[Guess]:
        """What was answered to the pictures as the graph takes them, uncalibrated, about the whole ones."""
        guesses = [self.task.guess(each, temperature=1.0, accuracy=1.0) for each in packed]
        return [where.outward(guess) for where, guess in zip(self.placings, guesses, strict=True)]


class Activations:
    """What would cross at any cut, for a few pictures, from one pass each: a model whose every such tensor is an output."""

    def __init__(self, uncut: Uncut, cuts: Sequence[Cut], *, most: int, values: int) -> None:
        """Run at most `most` pictures; fewer are kept of a cut that would take more than `values` values, but two at least."""
        graph = uncut.graph
        tensors = {t.index: t for cut in cuts for t in cut.crossing}
        wanted = {f"t{index}": index for index in tensors}
        every = tuple(operator.index for operator in graph.operators)
        part = Part(graph, "all", every, {IMAGE: graph.inputs[0]}, wanted)
        signature = signature_of(written([part]), "all", whose=graph.path)
        self._ports = {index: signature.outputs[name] for name, index in wanted.items()}
        self._keep = {index: min(most, max(2, values // t.elements)) for index, t in tensors.items()}
        self._stored: dict[int, list[NDArray[Any]]] = {index: [] for index in tensors}
        for shown, image in enumerate(uncut.images[:most]):
            out = signature.stored(image=signature.inputs[IMAGE].stored(image))
            check_sizes(graph, {name: graph.tensors[index] for name, index in wanted.items()}, out)
            for name, index in wanted.items():
                if shown < self._keep[index]:
                    self._stored[index].append(out[name].copy())

    def at(self, cut: Cut) -> list[dict[str, NDArray[Any]]]:
        """The features of each picture by name: real values, each (1, ...)."""
        count = min(len(self._stored[t.index]) for t in cut.crossing)
        named = list(zip(names(cut), (t.index for t in cut.crossing), strict=True))
        return [{n: self._ports[i].real(self._stored[i][shown]) for n, i in named} for shown in range(count)]
