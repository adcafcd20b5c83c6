"""How well many answers do: against labels of somebody's own pictures, or against another answer to each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np

from isthmus.models.data.truth import IGNORED, Truth
from isthmus.proto.errors import ConfigError
from isthmus.proto.tasks.box_score import Judged, evaluator, scored
from isthmus.proto.tasks.segmentation import pixels
from isthmus.proto.tasks.task import Task
from isthmus.proto.vocabulary import Box, Guess, Mask

MEASURES = {"classification": "accuracy", "detection": "AP50", "segmentation": "mIoU"}
Answers = Sequence[Guess | None]
"""None where there was no answer: wrong, empty."""


def measure_of(task: str) -> str:
    """What answers of a task are judged by where there are labels.

    Raises ConfigError where labels do not suffice, or a package is missing.
    """
    name = task.removesuffix("-probabilities")
    if name not in MEASURES:
        raise ConfigError(f"--labels: answers of {task} are judged by agreement alone; leave it out")
    if name == "detection":
        evaluator()
    return MEASURES[name]


def agreement(task: Task, answers: Answers, others: Answers) -> float:
    """Mean agreement, 0 to 1."""
    both = zip(answers, others, strict=True)
    return float(np.mean([0.0 if a is None or b is None else task.agreement(a, b) for a, b in both]))


def score(
    measure: str, answers: Answers, truths: Sequence[Truth], labels: Sequence[str], shapes: Sequence[tuple[int, int]]
) -> float:
    """Accuracy, AP50 or mean IoU over classes, 0 to 1, of answers whose classes are called `labels`.

    `shapes` are (height, width) of the pictures in pixels. Raises ConfigError for labels of another kind.
    """
    kinds = {"accuracy": str, "AP50": tuple, "mIoU": np.ndarray}
    if not all(isinstance(truth, kinds[measure]) for truth in truths):
        raise ConfigError(f"--labels: {measure} needs {_WORDS[measure]} for every picture")
    if measure == "accuracy":
        return float(np.mean([_is(a, str(truth), labels) for a, truth in zip(answers, truths, strict=True)]))
    if measure == "AP50":
        judged = [
            Judged(*shape, truth if isinstance(truth, tuple) else (), _boxes(a))
            for a, truth, shape in zip(answers, truths, shapes, strict=True)
        ]
        return scored(judged, labels).ap50
    return _mean_iou(answers, truths)


_WORDS = {"accuracy": "a class", "AP50": "boxes (a COCO-style .json)", "mIoU": "a mask"}


def _is(answer: Guess | None, truth: str, labels: Sequence[str]) -> bool:
    """Whether an answer is the class of this name or number."""
    if answer is None:
        return False
    name = labels[answer.label] if answer.label < len(labels) else ""
    return truth in (name, str(answer.label))


def _boxes(answer: Guess | None) -> tuple[Box, ...]:
    return answer.detail if answer is not None and isinstance(answer.detail, tuple) else ()


def _mean_iou(answers: Answers, truths: Sequence[Truth]) -> float:
    """Mean over the classes that the labels show of intersection over union, pixels of all pictures together."""
    shared, either, shown = Counter[int](), Counter[int](), Counter[int]()
    for answer, truth in zip(answers, truths, strict=True):
        assert isinstance(truth, np.ndarray)
        if answer is not None and isinstance(answer.detail, Mask):
            found = cv2.resize(pixels(answer.detail), truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        else:
            found = np.full_like(truth, IGNORED)
        counted = truth != IGNORED
        a, b = truth[counted].astype(np.intp), np.asarray(found)[counted].astype(np.intp)
        both = np.bincount(a[a == b], minlength=256)
        for k, (n, m) in enumerate(zip(np.bincount(a, minlength=256), np.bincount(b, minlength=256), strict=True)):
            shared[k], either[k], shown[k] = (
                shared[k] + int(both[k]),
                either[k] + int(n + m - both[k]),
                shown[k] + int(n),
            )
    classes = [k for k in shown if shown[k]]
    return float(np.mean([shared[k] / either[k] for k in classes])) if classes else 0.0
