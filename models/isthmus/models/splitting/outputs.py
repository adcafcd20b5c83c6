"""What a model's outputs mean, told by their shapes and their values for sample pictures; what is uncertain is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from isthmus.models.flatbuffer import Graph
from isthmus.proto.errors import ConfigError, ModelError
from isthmus.proto.tasks import TASKS, WITHOUT_CLASSES, task_called
from isthmus.proto.tasks.boxes import (
    BINS,
    DECODERS,
    FACE,
    STRIDES,
    Boxes,
    Floats,
    Size,
    cell_count,
    cells_of,
    face_anchors,
)
from isthmus.proto.tasks.pose import SEEN
from isthmus.proto.tasks.task import Arrays, Task
from isthmus.proto.tasks.vectors import ROOM_BYTES
from isthmus.proto.vocabulary import Guess, Pose

POSTPROCESS = "TFLite_Detection_PostProcess"
"""TensorFlow's own end of an SSD: its outputs are places, classes, scores and their count, whatever the graph makes of them."""
SHARES_AT_MOST = 2.0
"""Places in shares of the picture reach a little over its edge; in pixels they are far larger."""
FAMILIES = ", ".join(DECODERS)
NEEDS = {
    "segmentation": "a map of classes (H, W), or of scores (H, W, classes)",
    "detection": "boxes (N, 4), classes (N,), scores (N,) and optionally a count, in this order",
    "pose": "keypoints (N, 3) of top, left, score, or heat maps (H, W, N), with offsets (H, W, 2 N) or alone",
    "depth": "one map of values (H, W)",
    "embedding": "one vector (N,)",
    "values": f"outputs that fit into {ROOM_BYTES:,} bytes",
}
"""What a task's outputs must be, for a detector of the family `places`."""
KEYPOINTS = 17
"""Of COCO, which MoveNet and PoseNet find: other networks give three numbers for each of many things too."""
NEAR = (-0.5, 1.5)
"""Keypoints in shares of the picture lie in it or near it."""
UNIT = 1e-2
"""An embedding that was scaled to a length of one has it, to within so much: it may be 8-bit."""


@dataclass(frozen=True)
class Reading:
    """A task and, for a detector, how its boxes are read."""

    task: str
    boxes: Boxes | None = None

    @property
    def words(self) -> str:
        """The reading in words."""
        return self.task if self.boxes is None else f"{self.task}, boxes as {self.boxes.decoder}"

    def opened(self, size: Size) -> Task:
        """The task, for a network that takes pictures of (height, width)."""
        return task_called(self.task, self.boxes, size)


def told(task: str | None, boxes: str | None) -> Reading | None:
    """What a user says of the outputs: a task's name, and `FAMILY,key=value,…` of a detector; None where nothing is said.

    Raises ConfigError for a key or value that `Boxes` does not have.
    """
    if boxes is None:
        return None if task is None else Reading(task)
    if task not in (None, "detection"):
        raise ConfigError(f"--boxes: goes with --task detection, not with {task}")
    family, *rest = boxes.split(",")
    table: dict[str, object] = {"decoder": family}
    for word in rest:
        key, _, value = word.partition("=")
        table[key.strip()] = value.split(":") if key.strip() == "order" else value.strip()
    try:
        return Reading("detection", msgspec.convert(table, Boxes, strict=False))
    except msgspec.ValidationError as error:
        raise ConfigError(f"--boxes {boxes}: {error}; write FAMILY,key=value,…: FAMILY is one of {FAMILIES}") from error


def task_of(graph: Graph) -> str:
    """The task that a graph's outputs look like by their shapes alone. Raises ModelError when they look like none."""
    outputs = [graph.tensors[i] for i in graph.outputs]
    if len(outputs) == 1:
        shape, whole = outputs[0].shape, not outputs[0].dtype.startswith("float")
        if len(shape) == 2:
            return "classification-probabilities" if _ends_in_softmax(graph) else "classification"
        if len(shape) == 3 and whole and min(shape[1:]) > 1:
            return "segmentation"
        if len(shape) == 4 and min(shape[1:]) > 1:
            return "segmentation"
    raise unknown(graph, [t.shape for t in outputs])


def unknown(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> ModelError:
    """What is said where outputs are of no form that is certain."""
    return ModelError(
        f"{graph.path}: gives {', '.join(map(str, shapes))}; say what that is: --task {', '.join(TASKS)}; for a detector "
        f"--boxes {FAMILIES}"
    )


def reading_of(graph: Graph, size: Size, outputs: Sequence[Arrays]) -> Reading:
    """What the outputs of a graph that takes pictures of `size` mean, from its answers to sample pictures.

    Raises ModelError when that is not certain.
    """
    if (boxes := boxes_of(graph, size, outputs)) is not None:
        return Reading("detection", boxes)
    if _is_pose(outputs):
        return Reading("pose")
    return Reading("embedding" if _is_embedding(outputs) else task_of(graph))


def classes_of(graph: Graph, task: str, boxes: Boxes | None = None) -> int | None:
    """How many classes a graph tells apart, or keypoints it finds; None where its outputs do not say."""
    shape = graph.tensors[graph.outputs[0]].shape
    if task in WITHOUT_CLASSES:
        return _points_of(shape) if task == "pose" else None
    if task.startswith("classification"):
        return max(shape) if shape else None
    if task == "detection":
        if boxes is not None and boxes.decoder == "blazeface":
            return 1
        return None if boxes is None or len(graph.outputs) > 1 else _classes_of_cells(boxes, shape)
    last = graph.operators[-1]
    if last.kind == "ARG_MAX":
        return graph.tensors[last.inputs[0]].shape[-1]
    return shape[-1] if len(shape) == 4 and shape[-1] > 1 else None


def _points_of(shape: tuple[int, ...]) -> int | None:
    """Of keypoints (…, K, 3), or of heat maps (1, H, W, K)."""
    if shape[-1:] == (3,) and math.prod(shape) == 3 * shape[-2]:
        return shape[-2]
    return shape[-1] if shape else None


def _classes_of_cells(boxes: Boxes, shape: tuple[int, ...]) -> int | None:
    """Of a detector whose cells hold a score for each class beside the place."""
    if boxes.decoder in ("yolov5", "yolox"):
        return shape[-1] - 5
    if boxes.decoder == "yolov8":
        return shape[1] - 4
    if boxes.decoder == "fastestdet" and len(shape) == 4:
        return (shape[3] if shape[1] == shape[2] else shape[1]) - 5
    return shape[-1] - 4 * BINS if boxes.decoder == "nanodet" else None


def classes_told(graph: Graph, reading: Reading | None) -> int | None:
    """How many classes a graph tells apart, as far as that is certain before it has answered anything."""
    if reading is not None:
        return classes_of(graph, reading.task, reading.boxes)
    flat = len(graph.outputs) == 1 and len(graph.tensors[graph.outputs[0]].shape) == 2
    return classes_of(graph, "classification") if flat else None


def unbatched(graph: Graph, outputs: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """What a graph gives to one picture, without the batch of one. Raises ModelError when an output has none."""
    arrays = list(outputs)
    if any(array.ndim == 0 for array in arrays):
        raise ModelError(f"{graph.path}: gives a single number without a batch; export the model with a batch of one")
    for array in arrays:
        if len(array) != 1:
            raise ModelError(
                f"{graph.path}: gives {array.shape} to one picture, without a batch; export the model with a batch of one"
            )
    return [array[0] for array in arrays]


def check(graph: Graph, reading: Reading, size: Size, outputs: Sequence[Arrays]) -> None:
    """Raises ModelError when outputs cannot be read so, or when nothing is in them in any sample picture."""
    task = reading.opened(size)
    if why := _unlike(reading.task, outputs):
        raise _misfit(graph, reading, outputs[0], why)
    if reading.task != "detection" and _flat(outputs):
        raise ModelError(
            f"{graph.path}: every value that it gives is the same, in each of {len(outputs)} pictures; its conversion is broken: "
            "convert it again, an 8-bit one with pictures of what it knows"
        )
    try:
        guesses = [task.guess(task.pack(arrays), temperature=1.0, accuracy=1.0) for arrays in outputs]
    except (ValueError, IndexError) as error:
        raise _misfit(graph, reading, outputs[0], str(error)) from error
    if what := _unseen(reading, guesses):
        raise ModelError(
            f"{graph.path}: no {what} or surer in any of {len(guesses)} pictures; show it pictures of what it knows, say how "
            "it is read (--boxes, --pixels), or convert it again if every score is zero"
        )


def _unlike(task: str, outputs: Sequence[Arrays]) -> str | None:
    """Why outputs cannot be what a task needs, as far as their shapes and kinds say it."""
    first = outputs[0][0]
    if task.startswith("classification"):
        if first.size != max(first.shape, default=0):
            return "not a vector"
        return "one number tells no classes apart; --task values keeps it" if first.size < 2 else None
    if task != "segmentation":
        return None
    if first.ndim not in (2, 3):
        return "not of this form"
    whole = all(((a[0] >= 0) & (a[0] <= 255) & (a[0] == np.rint(a[0]))).all() for a in outputs)
    return None if first.ndim == 3 or whole else "a map of values that are no classes; --task depth keeps them"


def _flat(outputs: Sequence[Arrays]) -> bool:
    """Whether each output is one value, in all places of all pictures: what is left of a model whose conversion failed.

    A map of classes may well be of one: there is nothing in the pictures.
    """
    first = np.asarray(outputs[0][0])
    if first.ndim == 2 and first.dtype.kind in "iub":
        return False
    every = (np.concatenate([np.ravel(a) for a in of]) for of in zip(*outputs, strict=True))
    return all(a.min(initial=np.inf) >= a.max(initial=-np.inf) for a in every)


def _unseen(reading: Reading, guesses: Sequence[Guess]) -> str | None:
    """What a model was to find and did not, in any picture."""
    if reading.task == "detection" and not any(guess.detail for guess in guesses):
        return f"box of {(reading.boxes or Boxes()).score:g}"
    if reading.task == "pose" and not any(
        p.score >= SEEN for g in guesses if isinstance(g.detail, Pose) for p in g.detail.points
    ):
        return f"keypoint of {SEEN:g}"
    return None


def _misfit(graph: Graph, reading: Reading, arrays: Arrays, why: str) -> ModelError:
    family = reading.boxes.decoder if reading.boxes is not None else "places"
    needs = NEEDS.get(reading.task, "logits (classes,)") if family == "places" else f"outputs of the family {family}"
    given = ", ".join(str((1, *a.shape)) for a in arrays)
    return ModelError(f"{graph.path}: --task {reading.task} needs {needs}; this model gives {given} ({why})")


def boxes_of(graph: Graph, size: Size, outputs: Sequence[Arrays]) -> Boxes | None:
    """How the outputs of a detector are read, where they are certain to be one's; else None."""
    last = next((o for o in graph.operators if o.kind == POSTPROCESS), None)
    if last is not None and set(last.outputs) == set(graph.outputs):
        return Boxes(order=tuple(graph.outputs.index(i) for i in last.outputs))
    shapes = [a.shape for a in outputs[0]]
    if len(shapes) == 4:
        return _ssd(outputs)
    if len(shapes) == 2 and _are_faces(shapes, size):
        return Boxes("blazeface")
    if len(shapes) != 1:
        return None
    every = [np.asarray(arrays[0], np.float32) for arrays in outputs]
    if len(shapes[0]) == 2:
        return _matrix(every, size)
    return Boxes("fastestdet") if len(shapes[0]) == 3 and _fastestdet(every, size) else None


def _ssd(outputs: Sequence[Arrays]) -> Boxes | None:
    """TensorFlow's two orders: places, classes, scores, count (1.x) and scores, places, count, classes (2.x)."""
    for order in ((0, 1, 2, 3), (1, 3, 0, 2)):
        places, classes, scores, count = (np.stack([np.asarray(a[i]) for a in outputs]) for i in order)
        n = classes[0].size
        if places[0].shape == (n, 4) and scores[0].size == n and count[0].size == 1 and _classes(classes, scores):
            return Boxes(order=order)
    return None


def _classes(classes: Floats, scores: Floats) -> bool:
    return bool((classes == np.rint(classes)).all() and (classes >= 0).all() and _shares(scores))


def _shares(values: Floats) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _matrix(every: Sequence[Floats], size: Size) -> Boxes | None:
    """One matrix a picture: told by its rows and columns, and where these do not tell, by what stands in it."""
    rows, columns = every[0].shape
    a, cells = np.stack(every), cell_count(size, STRIDES)
    if rows == 3 * cells and columns > 5:
        return Boxes("yolov5", unit=_unit(a[..., :4])) if _shares(a[..., 4:]) else None
    if columns == cells and rows > 4:
        return Boxes("yolov8", unit=_unit(a[:, :4])) if _shares(a[:, 4:]) else None
    if columns > 4 * BINS and _shares(a[..., : -4 * BINS]) and rows in (cells, cell_count(size, (*STRIDES, 64))):
        return Boxes("nanodet")
    if rows == cells and columns > 5 and _shares(a[..., 4:]):
        return Boxes("yolox") if (a[..., 2:4] < 0).any() else _on_grid(a, size)
    if columns in (6, 7) and _classes(a[..., -1], a[..., -2]):
        return Boxes("rows", form="ltrb", unit=_unit(a[..., -6:-2]))
    return None


def _on_grid(a: Floats, size: Size) -> Boxes | None:
    """Boxes of a grid that the network has placed itself, when their centers lie where their cells are."""
    at, stride = cells_of(size, STRIDES, a.shape[1])
    unit = _unit(a[..., :4])
    extent = np.array([size[1], size[0]]) if unit == "pixels" else np.ones(2)
    away = np.abs(a[..., :2] / extent - (at + 0.5) * stride / (size[1], size[0]))
    return Boxes("yolov5", unit=unit) if float(np.median(away)) < 0.1 else None


def _unit(places: Floats) -> Literal["shares", "pixels"]:
    return "pixels" if float(places.max()) > SHARES_AT_MOST else "shares"


def _fastestdet(every: Sequence[Floats], size: Size) -> bool:
    """Cells of 16 pixels whose classes are a softmax behind an objectness: (5 + K, H, W), or channels last."""
    shape, cells = every[0].shape, (size[0] // 16, size[1] // 16)
    if cells not in (shape[1:], shape[:2]):
        return False
    a = np.stack(every) if shape[1:] == cells and shape[:2] != cells else np.moveaxis(np.stack(every), 3, 1)
    return a.shape[1] > 6 and _shares(a[:, 0]) and bool(np.allclose(a[:, 5:].sum(axis=1), 1, atol=1e-2))


def _is_pose(outputs: Sequence[Arrays]) -> bool:
    """MoveNet's (1, 17, 3), and PoseNet's heat maps (H, W, 17) with their offsets (H, W, 34)."""
    shapes = [a.shape for a in outputs[0]]
    if shapes == [(1, KEYPOINTS, 3)]:
        a = np.stack([np.asarray(arrays[0], np.float32) for arrays in outputs])
        return _shares(a[..., 2]) and bool(((a[..., :2] >= NEAR[0]) & (a[..., :2] <= NEAR[1])).all())
    if len(shapes) < 2 or len(shapes[0]) != 3 or shapes[0][2] != KEYPOINTS:
        return False
    return (*shapes[0][:2], 2 * KEYPOINTS) in shapes[1:]


def _is_embedding(outputs: Sequence[Arrays]) -> bool:
    """One vector of length one, with values below zero: neither logits nor probabilities are that, picture after picture."""
    if len(outputs[0]) != 1 or outputs[0][0].ndim != 1:
        return False
    a = np.stack([np.asarray(arrays[0], np.float32) for arrays in outputs])
    return bool((a < 0).any(axis=1).all() and (np.abs(np.linalg.norm(a, axis=1) - 1) < UNIT).all())


def _are_faces(shapes: Sequence[tuple[int, ...]], size: Size) -> bool:
    """BlazeFace's places (N, 16) and logits (N, 1), for as many cells as a picture of this size has."""
    counts = [shape[0] for shape in shapes if len(shape) == 2]
    columns = sorted(shape[-1] for shape in shapes)
    return columns == [1, FACE] and len(counts) == 2 and counts[0] == counts[1] and counts[0] in face_anchors(size)


def _ends_in_softmax(graph: Graph) -> bool:
    """Whether the last operator that computes is a softmax."""
    moving = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE")
    return next((o.kind for o in reversed(graph.operators) if o.kind not in moving), "") == "SOFTMAX"
