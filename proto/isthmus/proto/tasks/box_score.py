"""Average precision of boxes, counted by a well-kept evaluator of COCO's rules (`faster-coco-eval`)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.proto.errors import ConfigError
from isthmus.proto.vocabulary import Box

Place = tuple[float, float, float, float]
"""Top, left, bottom, right, in pixels."""
EVERY_AREA, MOST = 0, 2
"""Where the evaluator keeps objects of any size, and a hundred boxes a picture."""

SIDE = 1000
"""Of a frame whose size is not known, in pixels: an overlap is the same whatever it is."""


@dataclass(frozen=True)
class Judged:
    """A picture's size in pixels, what is in it, and what was found there."""

    height: int
    width: int
    truth: tuple[tuple[str, Place], ...]
    found: tuple[Box, ...]


@dataclass(frozen=True)
class BoxScore:
    """Average precision, 0 to 1: at an overlap of a half, and the mean from a half to 0.95 (Lin et al. 2014)."""

    ap50: float
    ap50_95: float
    by_class: Mapping[str, float]
    """AP50 of each class."""
    agnostic50: float
    """AP50 where every box is of one class: whether things are found, whatever they are called."""


def evaluator() -> tuple[Any, Any]:
    """The evaluator's two classes. Raises ConfigError when it is not installed: to be asked before any work is done."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ConfigError(
            f"{error.name}: not installed; boxes are scored by faster-coco-eval, which the 'train' extra brings"
        ) from error
    return COCO, COCOeval_faster


def scored(pictures: Sequence[Judged], labels: Sequence[str]) -> BoxScore:
    """Score the boxes found in pictures, whose classes index `labels`; classes that no picture shows do not count.

    Raises ConfigError when the evaluator is not installed.
    """
    classes = sorted({name for picture in pictures for name, _ in picture.truth})
    precision = _precision(pictures, labels, classes)
    alone = _precision(pictures, labels, classes, agnostic=True)
    fifty = [_mean(precision[0, :, k]) for k in range(len(classes))]
    return BoxScore(
        ap50=_mean(precision[0]),
        ap50_95=_mean(precision),
        by_class=dict(zip(classes, fifty, strict=True)),
        agnostic50=_mean(alone[0]),
    )


def ap50(truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]]) -> float:
    """AP50 of what was found in frames, each with what is in it; classes and places as in `Box`.

    Raises ConfigError when the evaluator is not installed.
    """
    labels = [str(k) for k in range(1 + max((b.label for boxes in (*truth, *found) for b in boxes), default=0))]
    pictures = [
        Judged(
            SIDE,
            SIDE,
            tuple((labels[t.label], (SIDE * t.top, SIDE * t.left, SIDE * t.bottom, SIDE * t.right)) for t in things),
            tuple(boxes),
        )
        for things, boxes in zip(truth, found, strict=True)
    ]
    classes = sorted({name for picture in pictures for name, _ in picture.truth})
    return _mean(_precision(pictures, labels, classes)[0])


def _mean(precision: Any) -> float:
    """The mean of what was counted; nothing to find is found by nobody."""
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else 0.0


def _precision(
    pictures: Sequence[Judged], labels: Sequence[str], classes: Sequence[str], *, agnostic: bool = False
) -> Any:
    """Precision (overlaps, recalls, classes) over all sizes of objects."""
    COCO, COCOeval_faster = evaluator()
    ids = {name: 1 if agnostic else 1 + i for i, name in enumerate(classes)}
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(_dataset(pictures, ids))
        rows = _rows(pictures, labels, ids)
        if not rows:
            return np.zeros((10, 101, len(set(ids.values()))))
        run = COCOeval_faster(dataset, dataset.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
    return np.asarray(run.eval["precision"])[..., EVERY_AREA, MOST]


def _dataset(pictures: Sequence[Judged], ids: Mapping[str, int]) -> dict[str, Any]:
    boxes = [
        (i, ids[name], (left, top, right - left, bottom - top))
        for i, picture in enumerate(pictures, 1)
        for name, (top, left, bottom, right) in picture.truth
    ]
    return {
        "images": [{"id": i, "height": p.height, "width": p.width} for i, p in enumerate(pictures, 1)],
        "categories": [{"id": i, "name": str(i)} for i in sorted(set(ids.values()))],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": list(b), "area": b[2] * b[3], "iscrowd": 0}
            for n, (i, k, b) in enumerate(boxes, 1)
        ],
    }


def _rows(pictures: Sequence[Judged], labels: Sequence[str], ids: Mapping[str, int]) -> list[dict[str, Any]]:
    rows = []
    for i, picture in enumerate(pictures, 1):
        for box in picture.found:
            name = labels[box.label] if 0 <= box.label < len(labels) else ""
            if name in ids:
                left, top = box.left * picture.width, box.top * picture.height
                extent = (box.right - box.left) * picture.width, (box.bottom - box.top) * picture.height
                rows.append({"image_id": i, "category_id": ids[name], "bbox": [left, top, *extent], "score": box.score})
    return rows
