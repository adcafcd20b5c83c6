"""The faces of the signs, and of what stands beside the road, as polygons and strokes. Rule: no fonts and no files.

Coordinates run from -1 to 1, x to the right and y down; angles are in degrees, clockwise as seen.
Every picture is premultiplied RGBA, drawn at four times its size and averaged down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 128
OVERSAMPLING = 4

Points = Sequence[tuple[float, float]]
Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]

RED, BLUE, YELLOW = (196, 24, 34), (20, 78, 168), (248, 196, 22)
WHITE, BLACK, GREY, GREEN, ORANGE = (242, 242, 238), (22, 22, 24), (128, 130, 132), (16, 122, 72), (232, 112, 20)


class Canvas:
    """A transparent square picture to draw on."""

    def __init__(self, size: int = SIZE) -> None:
        self._half = size * OVERSAMPLING / 2
        self._size = size
        self._pixels: Picture = np.zeros((size * OVERSAMPLING, size * OVERSAMPLING, 4), np.uint8)

    def fill(self, points: Points, colour: Colour) -> None:
        """A filled polygon."""
        cv2.fillPoly(self._pixels, [self._place(points)], (*colour, 255))

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """A line with round ends."""
        thick = max(1, round(width * self._half))
        cv2.polylines(self._pixels, [self._place(points)], False, (*colour, 255), thick)

    def disk(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.fill(arc(x, y, radius, radius, 0, 360), colour)

    def arrow(self, points: Points, width: float, colour: Colour) -> None:
        """A line whose last point is the tip of an arrow head."""
        (x0, y0), (x1, y1) = points[-2:]
        length = float(np.hypot(x1 - x0, y1 - y0))
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        head, half = 2.2 * width, 1.6 * width
        base = (x1 - head * ux, y1 - head * uy)
        self.stroke([*points[:-1], base], width, colour)
        wings = [(base[0] - half * uy, base[1] + half * ux), (base[0] + half * uy, base[1] - half * ux)]
        self.fill([(x1, y1), *wings], colour)

    def text(self, characters: str, height: float, colour: Colour, *, weight: float = 0.17, y: float = 0.0) -> None:
        """Characters side by side, centred on (0, y)."""
        unit = height / 2
        advance = unit * 1.42
        left = -(advance * len(characters) - 0.42 * unit) / 2
        for i, character in enumerate(characters):
            for line in CHARACTERS[character]:
                placed = [(left + i * advance + unit * px, y - unit + unit * py) for px, py in line]
                self.stroke(placed, weight * height, colour)

    def picture(self) -> Picture:
        """The finished face: (size, size, 4), premultiplied RGBA."""
        return cv2.resize(self._pixels, (self._size, self._size), interpolation=cv2.INTER_AREA).astype(np.uint8)

    def _place(self, points: Points) -> NDArray[np.int32]:
        return np.rint((np.asarray(points) + 1) * self._half).astype(np.int32)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points on an ellipse from angle `start` to `end`."""
    angles = np.radians(np.linspace(start, end, 49))
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]


# Lines in a box of width 1 and height 2.
CHARACTERS: dict[str, list[list[tuple[float, float]]]] = {
    "0": [arc(0.5, 1, 0.46, 1, 0, 360)],
    "1": [[(0.15, 0.45), (0.6, 0), (0.6, 2)]],
    "2": [[*arc(0.5, 0.52, 0.46, 0.52, 190, 395), (0.02, 2), (1, 2)]],
    "3": [arc(0.45, 0.5, 0.46, 0.5, 205, 440), arc(0.45, 1.45, 0.52, 0.55, 280, 515)],
    "5": [[(0.92, 0), (0.16, 0), (0.08, 0.92), *arc(0.46, 1.36, 0.52, 0.64, 235, 510)]],
    "8": [arc(0.5, 0.48, 0.42, 0.48, 0, 360), arc(0.5, 1.48, 0.5, 0.52, 0, 360)],
    "S": [[*arc(0.5, 0.5, 0.45, 0.5, 330, 110), *arc(0.5, 1.5, 0.45, 0.5, 290, 510)]],
    "T": [[(0, 0), (1, 0)], [(0.5, 0), (0.5, 2)]],
    "O": [arc(0.5, 1, 0.48, 1, 0, 360)],
    "P": [[(0.1, 2), (0.1, 0), *arc(0.45, 0.52, 0.5, 0.52, 270, 450), (0.1, 1.04)]],
}


def polygon(sides: int, radius: float, start: float) -> list[tuple[float, float]]:
    """A regular polygon whose first corner lies at angle `start`."""
    corners = np.radians(start + 360 / sides * np.arange(sides))
    return [(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in corners]


def _triangle(scale: float, y: float = 0.0) -> list[tuple[float, float]]:
    return [(-0.97 * scale, 0.72 * scale + y), (0, -0.95 * scale + y), (0.97 * scale, 0.72 * scale + y)]


# What tells the shapes apart: filled polygons, the outer one first.
_DISK, _RIM, _INNER = (arc(0, 0, r, r, 0, 360) for r in (0.97, 0.91, 0.74))
_SQUARE, _SQUARE_RIM = polygon(4, 1.3, 45), polygon(4, 1.22, 45)

Plate = Sequence[tuple[Points, Colour]]
OCTAGON: Plate = [(polygon(8, 0.99, 22.5), WHITE), (polygon(8, 0.92, 22.5), RED)]
RED_DISK: Plate = [(_DISK, WHITE), (_RIM, RED)]
RED_RING: Plate = [(_DISK, RED), (_INNER, WHITE)]
WHITE_DISK: Plate = [(_DISK, GREY), (_RIM, WHITE)]
BLUE_DISK: Plate = [(_DISK, WHITE), (_RIM, BLUE)]
BLUE_SQUARE: Plate = [(_SQUARE, WHITE), (_SQUARE_RIM, BLUE)]
DIAMOND: Plate = [(polygon(4, 0.98, 0), WHITE)]
RED_TRIANGLE: Plate = [(_triangle(1), RED), (_triangle(0.74, 0.06), WHITE)]
YELLOW_TRIANGLE: Plate = [(_triangle(1), BLACK), (_triangle(0.8, 0.045), YELLOW)]
YIELD_TRIANGLE: Plate = [([(x, -y) for x, y in points], colour) for points, colour in RED_TRIANGLE]
NO_SIGNS: list[Plate] = [
    [(_SQUARE, WHITE), (_SQUARE_RIM, GREEN)],
    [(polygon(4, 0.98, 0), BLACK), (polygon(4, 0.88, 0), ORANGE)],
    [(_DISK, GREY)],
]

# Glyphs: what tells the signs on one plate apart.


def _nothing(c: Canvas) -> None:
    pass


def _characters(text: str, height: float, colour: Colour) -> Callable[[Canvas], None]:
    return lambda c: c.text(text, height, colour)


def _bar(c: Canvas) -> None:
    c.fill([(-0.66, -0.17), (0.66, -0.17), (0.66, 0.17), (-0.66, 0.17)], WHITE)


def _slashes(c: Canvas) -> None:
    for shift in (-0.24, -0.12, 0, 0.12, 0.24):
        c.stroke([(0.5 + shift, -0.5 + shift), (-0.5 + shift, 0.5 + shift)], 0.06, BLACK)


def _two_cars(c: Canvas) -> None:
    for x, colour in ((-0.32, RED), (0.32, BLACK)):
        c.fill([(x - 0.26, 0.2), (x - 0.26, -0.06), (x + 0.26, -0.06), (x + 0.26, 0.2)], colour)
        c.fill([(x - 0.2, -0.04), (x - 0.13, -0.28), (x + 0.13, -0.28), (x + 0.2, -0.04)], colour)
        c.disk(x - 0.17, 0.22, 0.09, colour)
        c.disk(x + 0.17, 0.22, 0.09, colour)


def _inner_diamond(c: Canvas) -> None:
    c.fill(polygon(4, 0.72, 0), YELLOW)


def _three_arrows(c: Canvas) -> None:
    for start in (0, 120, 240):
        c.arrow(arc(0, 0, 0.5, 0.5, start, start + 88)[::12], 0.17, WHITE)


def _keep(side: int) -> Callable[[Canvas], None]:
    return lambda c: c.arrow([(-0.42 * side, -0.42), (0.55 * side, 0.55)], 0.24, WHITE)


def _turn_ahead(side: int) -> Callable[[Canvas], None]:
    path = [(-0.32 * side, 0.62), (-0.32 * side, 0.0), (-0.2 * side, -0.2), (0.0, -0.28), (0.66 * side, -0.28)]
    return lambda c: c.arrow(path, 0.22, WHITE)


def _walker(c: Canvas, x: float, y: float, scale: float, side: int) -> None:
    def at(*points: tuple[float, float]) -> Points:
        return [(x + side * scale * px, y + scale * py) for px, py in points]

    c.disk(x, y - 0.78 * scale, 0.19 * scale, BLACK)
    c.stroke(at((0, -0.5), (0, 0.1)), 0.28 * scale, BLACK)
    c.stroke(at((-0.42, 0.8), (0, 0.1), (0.42, 0.8)), 0.2 * scale, BLACK)
    c.stroke(at((-0.42, 0), (0, -0.45), (0.45, -0.12)), 0.16 * scale, BLACK)


def _crossing(c: Canvas) -> None:
    c.fill(_triangle(0.74, 0.02), WHITE)
    _walker(c, 0, 0.13, 0.42, 1)


def _children(c: Canvas) -> None:
    _walker(c, -0.2, 0.16, 0.37, 1)
    _walker(c, 0.24, 0.24, 0.28, 1)


def _skid(c: Canvas) -> None:
    c.fill([(-0.22, 0.0), (-0.12, -0.28), (0.18, -0.28), (0.28, 0.0)], BLACK)
    c.fill([(-0.28, 0.14), (-0.24, -0.04), (0.3, -0.04), (0.3, 0.14)], BLACK)
    for x in (-0.18, 0.18):
        c.stroke([(x, 0.14), (x + 0.12, 0.25), (x - 0.08, 0.38), (x + 0.08, 0.5)], 0.08, BLACK)


def _bumps(c: Canvas) -> None:
    for x in (-0.26, 0.26):
        c.fill([(x - 0.3, 0.48), *arc(x, 0.42, 0.26, 0.44, 180, 360), (x + 0.3, 0.48)], BLACK)


def _digger(c: Canvas) -> None:
    c.disk(-0.12, -0.3, 0.09, BLACK)
    c.stroke([(-0.12, -0.16), (-0.22, 0.12)], 0.14, BLACK)
    c.stroke([(-0.42, 0.46), (-0.22, 0.12), (-0.02, 0.46)], 0.1, BLACK)
    c.stroke([(-0.36, -0.08), (0.22, 0.3)], 0.07, BLACK)
    c.fill(arc(0.28, 0.5, 0.28, 0.3, 180, 360), BLACK)


def _bicycle(c: Canvas) -> None:
    for x in (-0.3, 0.3):
        c.stroke(arc(x, 0.28, 0.21, 0.21, 0, 360), 0.075, BLACK)
    c.stroke([(-0.3, 0.28), (-0.12, -0.04), (0.2, -0.04), (0.0, 0.28), (-0.3, 0.28)], 0.07, BLACK)
    c.stroke([(0.3, 0.28), (0.16, -0.2), (0.28, -0.22)], 0.07, BLACK)
    c.stroke([(0.0, 0.28), (-0.16, -0.16), (-0.06, -0.16)], 0.07, BLACK)


def _bolt(c: Canvas) -> None:
    c.fill([(0.12, -0.5), (-0.24, 0.1), (0, 0.1), (0.03, -0.06), (0.24, -0.44)], BLACK)
    c.fill([(0.0, -0.06), (0.24, -0.06), (-0.14, 0.54), (-0.04, 0.1)], BLACK)


def _flame(c: Canvas) -> None:
    c.fill([(0, -0.56), (0.22, -0.16), (0.3, 0.14), (0.14, 0.38), (-0.16, 0.38), (-0.3, 0.1), (-0.12, -0.14)], BLACK)
    c.fill([(0.02, 0.0), (0.12, 0.2), (0.02, 0.34), (-0.1, 0.22)], YELLOW)
    c.stroke([(-0.34, 0.5), (0.34, 0.5)], 0.1, BLACK)


Draw = Callable[[Canvas], None]

SIGNS: dict[str, tuple[Plate, Draw]] = {
    "stop": (OCTAGON, _characters("STOP", 0.56, WHITE)),
    "yield": (YIELD_TRIANGLE, _nothing),
    "no entry": (RED_DISK, _bar),
    "speed limit 30": (RED_RING, _characters("30", 0.72, BLACK)),
    "speed limit 50": (RED_RING, _characters("50", 0.72, BLACK)),
    "speed limit 80": (RED_RING, _characters("80", 0.72, BLACK)),
    "speed limit 120": (RED_RING, _characters("120", 0.6, BLACK)),
    "no overtaking": (RED_RING, _two_cars),
    "end of limits": (WHITE_DISK, _slashes),
    "priority road": (DIAMOND, _inner_diamond),
    "roundabout": (BLUE_DISK, _three_arrows),
    "keep left": (BLUE_DISK, _keep(-1)),
    "keep right": (BLUE_DISK, _keep(1)),
    "turn left": (BLUE_DISK, _turn_ahead(-1)),
    "turn right": (BLUE_DISK, _turn_ahead(1)),
    "children": (RED_TRIANGLE, _children),
    "slippery": (RED_TRIANGLE, _skid),
    "bumps": (RED_TRIANGLE, _bumps),
    "road works": (RED_TRIANGLE, _digger),
    "bicycles": (RED_TRIANGLE, _bicycle),
    "pedestrian crossing": (BLUE_SQUARE, _crossing),
    "parking": (BLUE_SQUARE, _characters("P", 1.1, WHITE)),
    "high voltage": (YELLOW_TRIANGLE, _bolt),
    "fire hazard": (YELLOW_TRIANGLE, _flame),
}


def face(plate: Plate, glyph: Draw) -> Picture:
    """(SIZE, SIZE, 4) premultiplied RGBA of a glyph on a plate."""
    canvas = Canvas()
    for points, colour in plate:
        canvas.fill(points, colour)
    glyph(canvas)
    return canvas.picture()


# Things beside the road.

Rng = np.random.Generator
Span = tuple[float, float]


def _any(rng: Rng, low: Colour, high: Colour) -> Colour:
    r, g, b = rng.integers(low, high, endpoint=True).tolist()
    return r, g, b


def _leaves(c: Canvas, rng: Rng, y: float, radius: float) -> None:
    dark, light = (18, 44, 14), (112, 142, 60)
    for _ in range(26):
        angle, r = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.random())
        blob = rng.uniform(0.25, 0.45) * radius
        c.disk(float(r * np.cos(angle)) * 0.7, y + float(r * np.sin(angle)) * 0.7, blob, _any(rng, dark, light))


def _tree(c: Canvas, rng: Rng) -> None:
    c.stroke([(0, 0), (0, 0.98)], 0.1, _any(rng, (50, 34, 20), (92, 74, 58)))
    _leaves(c, rng, -0.28, 0.68)


def _bush(c: Canvas, rng: Rng) -> None:
    _leaves(c, rng, 0.0, 0.95)


def _house(c: Canvas, rng: Rng) -> None:
    top = rng.uniform(-0.9, -0.4)
    c.fill([(-0.9, 1), (-0.9, top), (0.9, top), (0.9, 1)], _any(rng, (90, 70, 60), (225, 210, 190)))
    if rng.random() < 0.6:
        c.fill([(-0.98, top), (0, -0.98), (0.98, top)], _any(rng, (70, 30, 26), (170, 80, 60)))
    pane, columns = _any(rng, (30, 36, 50), (120, 140, 160)), int(rng.integers(2, 6))
    w, h = 1.6 / columns, rng.uniform(0.22, 0.4)
    for i in range(columns):
        for y in np.arange(top + 0.12, 0.9 - h / 2, h).tolist():
            x = -0.8 + (i + 0.25) * w
            c.fill([(x, y), (x + w / 2, y), (x + w / 2, y + h / 2), (x, y + h / 2)], pane)


def _car(c: Canvas, rng: Rng) -> None:
    body = _any(rng, (20, 20, 20), (225, 225, 225))
    c.fill([(-0.95, 0.75), (-0.95, -0.1), (-0.6, -0.75), (0.6, -0.75), (0.95, -0.1), (0.95, 0.75)], body)
    c.fill([(-0.75, -0.1), (-0.52, -0.6), (0.52, -0.6), (0.75, -0.1)], (40, 48, 58))
    for side in (-1, 1):
        c.disk(side * 0.75, 0.15, 0.15, _any(rng, (180, 20, 20), (255, 230, 200)))
        c.stroke([(side * 0.7, 0.75), (side * 0.7, 0.85)], 0.26, BLACK)
    c.fill([(-0.25, 0.3), (0.25, 0.3), (0.25, 0.48), (-0.25, 0.48)], WHITE)


def _lamp(c: Canvas, rng: Rng) -> None:
    steel = _any(rng, (70, 74, 78), (150, 152, 150))
    c.stroke([(0, 0.98), (0, -0.85), (0.35, -0.92)], 0.05, steel)
    c.stroke([(0.3, -0.92), (0.5, -0.9)], 0.1, _any(rng, (200, 190, 150), (250, 240, 220)))


def _billboard(c: Canvas, rng: Rng) -> None:
    c.fill([(-0.95, 0.5), (-0.95, -0.9), (0.95, -0.9), (0.95, 0.5)], _any(rng, (20, 20, 20), (250, 250, 250)))
    for _ in range(3):
        x, y, size = rng.uniform(-0.6, 0.3), rng.uniform(-0.7, 0.0), rng.uniform(0.15, 0.45)
        c.fill([(x, y), (x + size, y), (x + size, y + size), (x, y + size)], _any(rng, (0, 0, 0), (255, 255, 255)))
    words = "".join(rng.choice(list(CHARACTERS), 4))
    c.text(words, 0.45, _any(rng, (0, 0, 0), (255, 255, 255)), y=rng.uniform(-0.5, 0.1))
    for x in (-0.6, 0.6):
        c.stroke([(x, 0.5), (x, 0.98)], 0.07, GREY)


FALSE_PLATES = (RED_RING, RED_DISK, BLUE_DISK, WHITE_DISK, RED_TRIANGLE, YELLOW_TRIANGLE, BLUE_SQUARE, *NO_SIGNS)


def _false_sign(c: Canvas, rng: Rng) -> None:
    """A plate like a sign's, empty or with a glyph that no sign has."""
    for points, colour in FALSE_PLATES[int(rng.integers(len(FALSE_PLATES)))]:
        c.fill(points, colour)
    ink = (BLACK, WHITE, GREY)[int(rng.integers(3))]
    match int(rng.integers(4)):
        case 0:
            c.stroke([(0, -0.35), (0, 0.12)], 0.15, ink)
            c.disk(0, 0.36, 0.1, ink)
        case 1:
            c.stroke([(-0.25, -0.2), (0.25, 0.3)], 0.12, ink)
            c.stroke([(0.25, -0.2), (-0.25, 0.3)], 0.12, ink)
        case 2:
            for y in (-0.15, 0.08, 0.31):
                c.stroke([(-0.3, y), (0.3, y)], 0.09, ink)


@dataclass(frozen=True)
class Kind:
    """A kind of thing: how to draw it, and where it stands."""

    draw: Callable[[Canvas, Rng], None]
    height_m: Span
    x_m: Span
    """Distance from the middle of the road."""
    base_m: Span = (0, 0)
    """Height of its foot above the road."""


KINDS = (
    Kind(_tree, (4, 9), (5, 14)),
    Kind(_bush, (1, 2.2), (4, 9)),
    Kind(_house, (6, 14), (11, 22)),
    Kind(_house, (6, 14), (11, 22)),
    Kind(_car, (1.4, 1.9), (2.2, 3.5)),
    Kind(_lamp, (6, 8), (4, 6)),
    Kind(_billboard, (2, 4), (5, 10), (0, 2)),
    Kind(_false_sign, (0.7, 1.1), (3.5, 7), (1.5, 2.5)),
    Kind(_false_sign, (0.7, 1.1), (3.5, 7), (1.5, 2.5)),
)


def thing(kind: Kind, seed: int) -> Picture:
    """(SIZE, SIZE, 4) premultiplied RGBA of one thing of a kind; its height fills the picture."""
    canvas = Canvas()
    kind.draw(canvas, np.random.default_rng(seed))
    return canvas.picture()


def pyramid(picture: Picture) -> tuple[Picture, ...]:
    """The picture at 128, 64, 32 and 16 pixels, so that shrinking it does not alias."""
    sizes = (SIZE // 2, SIZE // 4, SIZE // 8)
    return picture, *(cv2.resize(picture, (n, n), interpolation=cv2.INTER_AREA).astype(np.uint8) for n in sizes)
