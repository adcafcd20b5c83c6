"""Answers drawn onto their pictures: boxes, masks, keypoints and depth, with names and where the answer came from.

Pure but for OpenCV, which keeps no state.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.proto.tasks import depth, segmentation
from isthmus.proto.vocabulary import Answer, AnswerSource, Box, Depth, Detail, Embedding, Mask, Pose, Values

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
LEAST = 320
"""A picture whose shorter side is less is enlarged to it, or no word would be legible."""
LONGEST = 4 * LEAST
"""The longer side is not enlarged to more."""
COVER = 0.55
"""How much of a mask's or a depth map's colour covers the picture."""
SEEN = 0.3
"""Keypoints less sure than this are not drawn."""
GOLDEN = 0.618034
"""Hues of neighbouring classes lie so far apart around the circle that many classes stay apart."""
BONES = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
"""Which of COCO's 17 keypoints belong together."""
WHITE, DARK = (255, 255, 255), (24, 24, 24)
LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue are (BT.601)."""
MARGIN, CUT = 6, ".."
FONT = cv2.FONT_HERSHEY_SIMPLEX


def drawn(picture: Pixels, answer: Answer, labels: Sequence[str] = ()) -> Pixels:
    """A copy of `picture` (H, W, 3) RGB with what was answered, and how: in colours, with names, a caption below.

    Small pictures are enlarged. `labels` name the classes. An answer without a label, or whose mask is damaged, is a caption
    alone.
    """
    canvas, said = marked(picture, answer, labels)
    return _captioned(canvas, said, _provenance(answer))


def marked(picture: Pixels, answer: Answer, labels: Sequence[str] = ()) -> tuple[Pixels, str]:
    """The same without the caption, and the caption's words about what was answered, for those who write them elsewhere."""
    canvas, said = _enlarged(picture), _said(answer, labels)
    try:
        _draw(canvas, answer.detail, labels)
    except ValueError:  # a damaged mask: the answer is still worth its words
        said = f"damaged: {said}"
    return canvas, said


def colour(label: int) -> Colour:
    """A class's colour, RGB: the same everywhere, bright, and unlike its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((label * GOLDEN + 0.55) % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _provenance(answer: Answer) -> str:
    """From where, why and how soon."""
    took = f"{answer.latency_s * 1000:.0f} ms" + ("" if answer.on_time else ", late")
    aged = f", {answer.age_s:.1f} s old" if answer.source in (AnswerSource.REPEAT, AnswerSource.TRACK) else ""
    whence = "" if answer.source is AnswerSource.NONE else f"{answer.source.value}, "
    return f"{whence}{answer.reason.value}, {took}{aged}"


def _said(answer: Answer, labels: Sequence[str]) -> str:
    detail, sure = answer.detail, f"{answer.confidence:.0%}"
    if answer.label is None:
        return "no answer"
    if isinstance(detail, tuple):
        return f"{len(detail)} found" if detail else "nothing found"
    if isinstance(detail, Pose):
        seen = sum(point.score >= SEEN for point in detail.points)
        return f"pose, {seen} of {len(detail.points)} points, {sure}"
    if isinstance(detail, Depth):
        return f"depth {detail.low:.3g} to {detail.high:.3g}"
    if isinstance(detail, Embedding):
        return f"embedding of {len(detail.values)} values"
    if isinstance(detail, Values):
        return "values " + ", ".join("x".join(map(str, shape)) for shape in detail.shapes)
    return f"{_name(answer.label, labels)} {sure}"


def _name(label: int, labels: Sequence[str]) -> str:
    return labels[label] if label < len(labels) else str(label)


def _enlarged(picture: Pixels) -> Pixels:
    """A copy that words can be read on."""
    height, width = picture.shape[:2]
    times = min(LEAST / min(height, width), LONGEST / max(height, width))
    if times <= 1:
        return np.ascontiguousarray(picture).copy()
    size = round(width * times), round(height * times)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _draw(canvas: Pixels, detail: Detail | None, labels: Sequence[str]) -> None:
    if isinstance(detail, Mask):
        _mask(canvas, detail, labels)
    elif isinstance(detail, Depth):
        _depth(canvas, detail)
    elif isinstance(detail, Pose):
        _pose(canvas, detail)
    elif isinstance(detail, tuple):
        for box in reversed(detail):  # the surest last, on top
            _box(canvas, box, labels)


def _mask(canvas: Pixels, mask: Mask, labels: Sequence[str]) -> None:
    """Every class but the background (0) in its colour, with its outline and the legend of what covers most."""
    height, width = canvas.shape[:2]
    classes = cv2.resize(segmentation.pixels(mask), (width, height), interpolation=cv2.INTER_NEAREST)
    palette = np.array([colour(k) for k in range(256)], np.uint8)
    tinted = cv2.addWeighted(canvas, 1 - COVER, palette[classes], COVER, 0)
    np.copyto(canvas, tinted.astype(np.uint8), where=(classes > 0)[..., None])
    found = sorted((k for k in mask.covered if k), key=lambda k: -mask.covered[k])
    line = _line_height(canvas)
    for row, label in enumerate(found[: max(1, height // (2 * line))]):
        outline, _ = cv2.findContours((classes == label).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, colour(label), _thickness(canvas), cv2.LINE_AA)
        _tag(canvas, f"{_name(label, labels)} {mask.covered[label]:.0%}", (0, row * line), colour(label))


def _depth(canvas: Pixels, found: Depth) -> None:
    """Small values dark, great ones bright; the whole map."""
    height, width = canvas.shape[:2]
    levels = cv2.resize(depth.levels(found), (width, height), interpolation=cv2.INTER_LINEAR)
    tint = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    canvas[:] = cv2.addWeighted(canvas, 1 - COVER - 0.2, np.ascontiguousarray(tint), COVER + 0.2, 0)


def _pose(canvas: Pixels, pose: Pose) -> None:
    height, width = canvas.shape[:2]
    places = [(_pixel(p.left, width), _pixel(p.top, height)) for p in pose.points]
    seen = [p.score >= SEEN for p in pose.points]
    thick = _thickness(canvas)
    for one, other in BONES if len(places) == 17 else ():
        if seen[one] and seen[other]:
            cv2.line(canvas, places[one], places[other], DARK, thick + 2, cv2.LINE_AA)
            cv2.line(canvas, places[one], places[other], colour(one), thick, cv2.LINE_AA)
    for label, place in enumerate(places):
        if seen[label]:
            cv2.circle(canvas, place, 2 * thick + 1, DARK, -1, cv2.LINE_AA)
            cv2.circle(canvas, place, 2 * thick, colour(label), -1, cv2.LINE_AA)


def _box(canvas: Pixels, box: Box, labels: Sequence[str]) -> None:
    height, width = canvas.shape[:2]
    left, right = _pixel(box.left, width), _pixel(box.right, width)
    top, bottom = _pixel(box.top, height), _pixel(box.bottom, height)
    cv2.rectangle(canvas, (left, top), (right, bottom), DARK, _thickness(canvas) + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (left, top), (right, bottom), colour(box.label), _thickness(canvas), cv2.LINE_AA)
    above = top - _line_height(canvas)
    _tag(canvas, f"{_name(box.label, labels)} {box.score:.0%}", (left, above if above >= 0 else top), colour(box.label))


def _pixel(share: float, extent: int) -> int:
    """Where a share of a picture's side lies, in pixels; far outside is just outside."""
    return round(min(max(share, -1.0), 2.0) * extent)


def _tag(canvas: Pixels, words: str, at: tuple[int, int], background: Colour) -> None:
    """Words on a plate of a class's colour, whose upper left corner is `at` (x, y) or as near as keeps them in the picture."""
    scale, line = _scale(canvas), _line_height(canvas)
    width = _extent(words, scale)
    x = max(0, min(at[0], canvas.shape[1] - width - 6))
    y = max(0, min(at[1], canvas.shape[0] - line))
    ink = DARK if np.dot(background, LUMA) > 110 else WHITE
    cv2.rectangle(canvas, (x, y), (x + width + 6, y + line - 1), background, -1)
    cv2.putText(canvas, words, (x + 3, y + round(0.74 * line)), FONT, scale, ink, 1, cv2.LINE_AA)


def _captioned(canvas: Pixels, said: str, provenance: str) -> Pixels:
    """The picture with a strip below: one line of words, or two where one is too short for them."""
    whole = f"{said}, {provenance}"
    fits = _extent(whole, _scale(canvas)) <= canvas.shape[1] - 2 * MARGIN
    return np.vstack([canvas, *(_strip(canvas, words) for words in ([whole] if fits else [said, provenance]))])


def _strip(canvas: Pixels, words: str) -> Pixels:
    """One line of words as wide as the picture, cut short where they are longer."""
    scale, width, line = _scale(canvas), canvas.shape[1], _line_height(canvas)
    while _extent(words, scale) > width - 2 * MARGIN and len(words) > len(CUT):
        words = words[: -len(CUT) - 1] + CUT
    strip = np.full((line, width, 3), DARK, np.uint8)
    cv2.putText(strip, words, (MARGIN, round(0.74 * line)), FONT, scale, WHITE, 1, cv2.LINE_AA)
    return strip


def _extent(words: str, scale: float) -> int:
    """The pixels that words are wide."""
    return int(cv2.getTextSize(words, FONT, scale, 1)[0][0])


def _scale(canvas: Pixels) -> float:
    """Of the font: as the picture grows, so do the words, but slower."""
    return max(0.5, float(min(canvas.shape[:2])) / 900)


def _line_height(canvas: Pixels) -> int:
    return round(40 * _scale(canvas))


def _thickness(canvas: Pixels) -> int:
    return max(2, round(float(min(canvas.shape[:2])) / 240))
