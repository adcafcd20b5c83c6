"""What a network's outputs mean, a small file for each kind of answer. Pure.

A task is one class with three verbs, and one line of registration here: `pack` outputs -> what crosses, `guess` what
crossed -> an answer, `agreement` of two answers, 0 to 1. Nobody else knows classes from masks from boxes from poses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from isthmus.proto.tasks.boxes import Boxes, Size
from isthmus.proto.tasks.classification import Classification
from isthmus.proto.tasks.depth import DepthEstimation
from isthmus.proto.tasks.detection import Detection
from isthmus.proto.tasks.pose import PoseEstimation
from isthmus.proto.tasks.segmentation import Segmentation
from isthmus.proto.tasks.task import Task
from isthmus.proto.tasks.vectors import Embeddings, Tensors

TASKS: dict[str, Callable[..., Task]] = {
    "classification": Classification,
    "classification-probabilities": partial(Classification, probabilities=True),
    "segmentation": Segmentation,
    "detection": Detection,
    "pose": PoseEstimation,
    "depth": DepthEstimation,
    "embedding": Embeddings,
    "values": Tensors,
}
"""Every task, by the name that a bundle gives it; each takes `classes`, how many there are."""
WITHOUT_CLASSES = frozenset({"pose", "depth", "embedding", "values"})
"""Tasks whose answers are all of class 0, which has no name; what a bundle names are the points of a pose, if anything."""


def task_called(name: str, boxes: Boxes | None, size: Size, classes: int | None = None) -> Task:
    """The task of this name, of a network that takes pictures of `size`; a detector's outputs are read as `boxes` says.

    Raises KeyError when there is no such task.
    """
    if name == "detection":
        return Detection(boxes, size, classes=classes)
    if name == "pose":
        return PoseEstimation(size, classes=classes)
    return TASKS[name](classes=classes)
