"""The `signs` scenes: a drive past road signs, as training set and as video. A frame depends on seed and index alone.

Things stand in a world and approach at constant speed: what passes the camera in q seconds appears at a scale of 1 / q
around the vanishing point. Time is cut into episodes, each drawn from its own generator: one sign comes, grows and
leaves, then there is none for a while. Training samples are single moments of many drives. World coordinates are pixels
from the vanishing point, x to the right and y down.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from isthmus.models import glyphs
from isthmus.models.glyphs import Picture, Rng

SIZE = 128
LABELS = ("nothing", *glyphs.SIGNS)

EPISODE_S = 5.0
THINGS_PER_EPISODE = 7
REACH_S = 7.0
"""Things farther away than this are not drawn."""
COUNTS_INSIDE = 0.5
"""Share of a sign that must lie within the picture for it to count."""
FADE_S = 0.15
"""A sign comes out of the haze in this time; half way through it begins to count."""

FOCAL_PX, SPEED_MPS, CAMERA_HEIGHT_M, ROAD_WIDTH_M = 120.0, 8.0, 1.3, 24.0
PANORAMAS, ROADS, VARIANTS, BUSH = 8, 4, 8, 1
HORIZON_ROW, TEXTURE_PX = 150, 256
SWAY = np.array([7.0, 4.0, 0.06, 0.12, 1.0])
"""Largest yaw and pitch in pixels, roll in radians, change of light, change of blur in pixels."""

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One frame and its truth."""

    image: Picture
    """(128, 128, 3) RGB."""
    label: int
    """The index of the class in LABELS."""
    box: tuple[int, int, int, int] | None
    """x, y, width, height in pixels of what is visible of the sign; None where the label is 0."""
    mask: Mask
    """(128, 128) true where the sign is visible."""


@dataclass(frozen=True)
class Sign:
    """The sign of one episode: which, when and where."""

    label: int
    appears_s: float
    leaves_s: float
    first_px: float
    last_px: float
    """Widths at `appears_s` and `leaves_s`."""
    leaves_at: tuple[float, float]
    """World position at `leaves_s`, on the rim of the picture."""
    turn_rad: float
    tilt_rad: float
    occluder: tuple[float, float, float] | None
    """x, y and size of a bush before it, in sign widths."""

    def width_px(self, t: float) -> float:
        """Width at time `t`; grows as 1 / distance."""
        ahead_s = (self.leaves_s - self.appears_s) / (self.last_px / self.first_px - 1)
        # Once half way out it hurries, since half a sign is neither a sign nor nothing.
        hurry_s = 6 * max(t - self.leaves_s, 0) ** 2
        return self.last_px * ahead_s / max(ahead_s + self.leaves_s - t - hurry_s, 0.05)


@dataclass(frozen=True)
class Thing:
    """Something beside the road that is no sign."""

    kind: int
    variant: int
    passes_s: float
    x_m: float
    base_m: float
    height_m: float
    turn_rad: float


@dataclass(frozen=True)
class Episode:
    """What five seconds of road hold."""

    sign: Sign
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Weather:
    """What one drive keeps: backdrop, light, camera."""

    panorama: int
    road: int
    heading_px: float
    turn_pxps: float
    gain: float
    contrast: float
    cast: tuple[float, float, float]
    noise: float
    blur_px: float
    blur_rad: float
    sway: Matrix
    """(5, 3) amplitude, radians per second and phase, in the order of SWAY."""


def _sign(rng: Rng, start_s: float) -> Sign:
    leaves_s = start_s + EPISODE_S * rng.uniform(0.9, 1.0)
    angle, side = rng.uniform(-0.75, 0.25), 1 if rng.random() < 0.7 else -1
    x, y = side * np.cos(angle), np.sin(angle)
    reach = 0.5 * SIZE / max(abs(x), abs(y))
    leaf_rad, leaf_size = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.75)
    leaf = (0.5 * float(np.cos(leaf_rad)), 0.5 * float(np.sin(leaf_rad)), leaf_size)
    return Sign(
        label=int(rng.integers(1, len(LABELS))),
        appears_s=leaves_s - EPISODE_S * rng.uniform(0.64, 0.84),
        leaves_s=leaves_s,
        first_px=rng.uniform(19, 28),
        last_px=rng.uniform(48, 72),
        leaves_at=(float(x * reach), float(y * reach)),
        turn_rad=rng.normal(0, 0.35),
        tilt_rad=rng.normal(0, 0.09),
        occluder=leaf if rng.random() < 0.3 else None,
    )


def _thing(rng: Rng, start_s: float) -> Thing:
    index, variant = int(rng.integers(len(glyphs.KINDS))), int(rng.integers(VARIANTS))
    kind, side = glyphs.KINDS[index], 1 if rng.random() < 0.5 else -1
    passes_s = start_s + EPISODE_S * rng.random()
    x_m, base_m, height_m = (rng.uniform(*span) for span in (kind.x_m, kind.base_m, kind.height_m))
    return Thing(index, variant, passes_s, side * x_m, base_m, height_m, turn_rad=rng.normal(0, 0.3))


def _weather(rng: Rng) -> Weather:
    night = rng.random() < 0.12
    return Weather(
        panorama=int(rng.integers(PANORAMAS)),
        road=int(rng.integers(ROADS)),
        heading_px=rng.uniform(0, 1024),
        turn_pxps=rng.normal(0, 6),
        gain=rng.uniform(0.35, 0.55) if night else rng.uniform(0.65, 1.15),
        contrast=rng.uniform(0.6, 1.05),
        cast=tuple(rng.normal(1, 0.06, 3).tolist()),
        noise=rng.gamma(2.0, 2.2),
        blur_px=rng.gamma(1.5, 1.3),
        blur_rad=rng.normal(0, 0.6),
        sway=np.stack([rng.uniform(0.4, 1.0, 5) * SWAY, rng.uniform(0.6, 3.0, 5), rng.uniform(0, 6.28, 5)], axis=1),
    )


@lru_cache(maxsize=64)
def _episode(seed: tuple[int, ...], k: int) -> Episode:
    rng, start_s = np.random.default_rng((*seed, k + 1)), k * EPISODE_S
    things = tuple(_thing(rng, start_s) for _ in range(THINGS_PER_EPISODE))
    return Episode(_sign(rng, start_s), things)


class Drive:
    """An endless drive past signs: `frame(i)` in any order, or iterate. Seeds are not negative."""

    def __init__(self, seed: int | tuple[int, ...], fps: float = 15.0) -> None:
        self._seed = (seed,) if isinstance(seed, int) else seed
        self._fps = fps
        self._weather = _weather(np.random.default_rng((*self._seed, 0)))

    def frame(self, index: int) -> Scene:
        """Frame `index` >= 0, taken at index / fps seconds."""
        return self.at(index / self._fps)

    def __iter__(self) -> Iterator[Scene]:
        """All frames from the first on, without end."""
        return map(self.frame, itertools.count())

    def at(self, t: float) -> Scene:
        """The scene `t` >= 0 seconds into the drive."""
        k = int(t // EPISODE_S)
        return _render(self._weather, [_episode(self._seed, i) for i in range(max(k - 1, 0), k + 3)], t)


def samples(n: int, seed: int) -> tuple[Picture, NDArray[np.int64]]:
    """Independent samples, each a random moment of its own drive: images (n, 128, 128, 3), labels (n,)."""
    images, labels = np.empty((n, SIZE, SIZE, 3), np.uint8), np.empty(n, np.int64)
    moments = np.random.default_rng((seed, 1)).uniform(EPISODE_S, 2 * EPISODE_S, n)
    for i, t in enumerate(moments.tolist()):
        scene = Drive((seed, 2, i)).at(t)
        images[i], labels[i] = scene.image, scene.label
    return images, labels


def _render(weather: Weather, episodes: list[Episode], t: float) -> Scene:
    """Backdrop, things from far to near, the signs, then blur, light and noise."""
    sway = weather.sway[:, 0] * np.sin(weather.sway[:, 1] * t + weather.sway[:, 2])
    camera = _camera(sway)
    image = _backdrop(weather, camera, t)
    for thing in sorted((x for e in episodes for x in e.things), key=lambda x: -x.passes_s):
        _draw_thing(image, camera, thing, t)
    label, mask = 0, np.zeros((SIZE, SIZE), bool)
    for sign in (e.sign for e in episodes):
        counts, visible = _draw_sign(image, camera, sign, t)
        if counts:
            label, mask = sign.label, visible
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return Scene(_expose(image, weather, sway, t), label, (x, y, w, h) if label else None, mask)


def _camera(sway: Matrix) -> Matrix:
    """World to picture: roll around the vanishing point, which yaw and pitch move."""
    c, s = np.cos(sway[2]), np.sin(sway[2])
    return np.array([[c, -s, SIZE / 2 + sway[0]], [s, c, 0.54 * SIZE + sway[1]], [0, 0, 1]])


def _backdrop(weather: Weather, camera: Matrix, t: float) -> Picture:
    """The panorama, and under its horizon the road."""
    pan_px = (weather.heading_px + weather.turn_pxps * t) % (2 * TEXTURE_PX)
    wall = np.array([[1, 0, -pan_px], [0, 1, -HORIZON_ROW], [0, 0, 1.0]])
    far = cv2.warpAffine(_panorama(weather.panorama), (camera @ wall)[:2], (SIZE, SIZE), borderMode=cv2.BORDER_WRAP)
    # Row v of the road lies z metres ahead: x = f x_m / z, y = f height / z.
    metre = ROAD_WIDTH_M / TEXTURE_PX
    z_m = 2 * ROAD_WIDTH_M - (SPEED_MPS * t) % ROAD_WIDTH_M
    across = [FOCAL_PX * metre, 0, -FOCAL_PX * ROAD_WIDTH_M / 2]
    ground = np.array([across, [0, 0, FOCAL_PX * CAMERA_HEIGHT_M], [0, -metre, z_m]])
    near = cv2.warpPerspective(_road(weather.road), camera @ ground, (SIZE, SIZE), borderMode=cv2.BORDER_WRAP)
    row = np.arange(SIZE, dtype=np.float32)
    below_px = camera[0, 0] * (row - camera[1, 2])[:, None] - camera[1, 0] * (row - camera[0, 2])[None]
    weight = np.clip(below_px / 10, 0, 1)[..., None].astype(np.float32)
    return np.asarray(far + weight * (near.astype(np.float32) - far), np.uint8)


def _draw_thing(image: Picture, camera: Matrix, thing: Thing, t: float) -> None:
    ahead_s = thing.passes_s - t
    if not 0.15 < ahead_s < REACH_S:
        return
    scale = FOCAL_PX / (SPEED_MPS * ahead_s)
    centre = thing.x_m * scale, (CAMERA_HEIGHT_M - thing.base_m - thing.height_m / 2) * scale
    place = _place(camera, centre, thing.height_m * scale, thing.turn_rad)
    _paste(image, _sprite(thing.kind, thing.variant), place, min(REACH_S - ahead_s, 1.0))


def _draw_sign(image: Picture, camera: Matrix, sign: Sign, t: float) -> tuple[bool, Mask]:
    """Draw the sign if it is there; tells whether it counts, and where it shows."""
    width, opacity = sign.width_px(t), min((t - sign.appears_s) / FADE_S + 0.5, 1.0)
    if opacity <= 0 or width > 3 * sign.last_px:
        return False, np.zeros((SIZE, SIZE), bool)
    x, y = (v * width / sign.last_px for v in sign.leaves_at)
    if opacity == 1:
        _pole(image, camera, x, y, width)
    place = _place(camera, (x, y), width, sign.turn_rad, sign.tilt_rad)
    mask = _paste(image, _face(sign.label), place, opacity)
    if sign.occluder is not None:
        leaf_x, leaf_y, leaf_size = sign.occluder
        leaf = _place(camera, (x + leaf_x * width, y + leaf_y * width), leaf_size * width)
        mask &= ~_paste(image, _sprite(BUSH, sign.label % VARIANTS), leaf, opacity)
    return t >= sign.appears_s and _inside(place) >= COUNTS_INSIDE, mask


def _pole(image: Picture, camera: Matrix, x: float, y: float, width: float) -> None:
    """A grey line from the middle of a sign down."""
    ends = camera @ np.array([[x, x], [y, y + 2.6 * width], [1, 1]])
    (xa, xb), (ya, yb) = np.rint(ends[:2] * 8).astype(int).tolist()
    cv2.line(image, (xa, ya), (xb, yb), (112, 114, 116), max(1, round(width / 14)), cv2.LINE_AA, shift=3)


def _place(camera: Matrix, centre: tuple[float, float], size: float, turn: float = 0.0, tilt: float = 0.0) -> Matrix:
    """Unit square around 0 to picture: turned around the vertical, tilted, moved to `centre`, seen by the camera."""
    turned = np.array([[np.cos(turn), 0, 0], [0, 1, 0], [0.4 * np.sin(turn), 0, 1]])
    c, s = size * np.cos(tilt), size * np.sin(tilt)
    return np.asarray(camera @ np.array([[c, -s, centre[0]], [s, c, centre[1]], [0, 0, 1]]) @ turned, np.float64)


def _bounds(place: Matrix) -> Matrix:
    """[[left, top], [right, bottom]] of the placed unit square."""
    corners = place @ np.array([[-0.5, 0.5, 0.5, -0.5], [-0.5, -0.5, 0.5, 0.5], [1, 1, 1, 1]])
    xy = corners[:2] / corners[2]
    return np.asarray((xy.min(axis=1), xy.max(axis=1)), np.float64)


def _inside(place: Matrix) -> float:
    """Share of the bounds that lies within the picture."""
    bounds = _bounds(place)
    return float(np.prod(np.diff(np.clip(bounds, 0, SIZE), axis=0)) / np.prod(np.diff(bounds, axis=0)))


def _paste(image: Picture, levels: tuple[Picture, ...], place: Matrix, opacity: float) -> Mask:
    """Draw a picture onto the unit square of `place`; gives where it covers the image."""
    mask, bounds = np.zeros(image.shape[:2], bool), _bounds(place)
    limit = image.shape[1::-1]
    x0, y0 = np.clip(np.floor(bounds[0]), 0, limit).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(bounds[1]), 0, limit).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        return mask
    shrink = glyphs.SIZE / max(bounds[1, 1] - bounds[0, 1], 1.0)
    n = (picture := levels[int(np.clip(np.log2(shrink), 0, len(levels) - 1))]).shape[0]
    to_unit = np.array([[1 / n, 0, 0.5 / n - 0.5], [0, 1 / n, 0.5 / n - 0.5], [0, 0, 1]])
    to_cut = np.array([[1, 0, -x0 - 0.5], [0, 1, -y0 - 0.5], [0, 0, 1.0]])
    warped = cv2.warpPerspective(picture, to_cut @ place @ to_unit, (x1 - x0, y1 - y0))
    drawn, cut = warped.astype(np.float32) * np.float32(opacity), image[y0:y1, x0:x1]
    cut[:] = cut * (1 - drawn[..., 3:] / 255) + drawn[..., :3]
    mask[y0:y1, x0:x1] = warped[..., 3] > 127
    return mask


def _expose(image: Picture, weather: Weather, sway: Matrix, t: float) -> Picture:
    """Motion blur, light, contrast, colour cast and sensor noise."""
    light = cv2.filter2D(image, -1, _streak(weather.blur_px + sway[4], weather.blur_rad)).astype(np.float32)
    gain = weather.gain * (1 + sway[3])
    light *= (gain * weather.contrast * np.array(weather.cast)).astype(np.float32)
    y, x = np.random.default_rng(int(t * 1e6)).integers(0, TEXTURE_PX - SIZE, 2).tolist()
    grain = _grain()[y : y + SIZE, x : x + SIZE]
    light += np.float32(weather.noise) * grain + np.float32(128 * gain * (1 - weather.contrast))
    return np.clip(light, 0, 255).astype(np.uint8)


def _streak(length_px: float, angle_rad: float) -> Floats:
    """A line of this length as a convolution kernel, (9, 9), sum 1."""
    y, x = np.mgrid[-4:5, -4:5]
    along = np.abs(x * np.cos(angle_rad) + y * np.sin(angle_rad))
    across = np.abs(y * np.cos(angle_rad) - x * np.sin(angle_rad))
    weight = np.clip(np.clip(length_px, 0, 7) / 2 + 0.75 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return np.asarray(weight / weight.sum(), np.float32)


# What every drive of a process shares.


@cache
def _face(label: int) -> tuple[Picture, ...]:
    return glyphs.pyramid(glyphs.face(*glyphs.SIGNS[LABELS[label]]))


@cache
def _sprite(kind: int, variant: int) -> tuple[Picture, ...]:
    return glyphs.pyramid(glyphs.thing(glyphs.KINDS[kind], seed=100 * kind + variant))


@cache
def _grain() -> Floats:
    """Noise of standard deviation 1, mostly light and a little colour, (256, 256, 3)."""
    draw = np.random.default_rng(9).standard_normal
    grain = 0.95 * draw((TEXTURE_PX, TEXTURE_PX, 1)) + 0.3 * draw((TEXTURE_PX, TEXTURE_PX, 3))
    return grain.astype(np.float32)


def _clouds(rng: Rng, height: int, width: int, cells: int) -> Floats:
    """Smooth noise from 0 to 1 with `cells` and finer bumps across, (height, width, 1)."""
    total = np.zeros((height, width), np.float32)
    for n in (cells, 2 * cells, 4 * cells, 8 * cells):
        grid = rng.random((max(n * height // width, 2), n)).astype(np.float32)
        total += cv2.resize(np.hstack([grid, grid[:, :1]]), (width, height), interpolation=cv2.INTER_CUBIC) * cells / n
    return np.asarray(np.clip(total / 1.875, 0, 1)[..., None], np.float32)


@cache
def _panorama(index: int) -> Picture:
    """Sky, clouds, hills and a row of trees and houses, (256, 512, 3), horizon at HORIZON_ROW."""
    rng, height, width = np.random.default_rng(1000 + index), TEXTURE_PX, 2 * TEXTURE_PX
    top, haze = rng.uniform((60, 100, 150), (150, 180, 230)), rng.uniform((170, 180, 190), (235, 235, 240))
    air = top + (haze - top) * np.minimum(np.arange(height)[:, None, None] / HORIZON_ROW, 1)
    clouds = 0.8 * np.clip(2.5 * _clouds(rng, height, width, 4) - rng.uniform(0.8, 1.5), 0, 1)
    hills = HORIZON_ROW - rng.uniform(4, 30) * _clouds(rng, 2, width, 3)[:1]
    soil, bumps = rng.uniform((50, 80, 40), (120, 130, 90)), _clouds(rng, height, width, 16)
    rows = enumerate(zip(air, clouds, bumps, strict=True))  # one by one: all at once would take 12 MB
    drawn = (np.where(y > hills[0], soil + 60 * (bump - 0.5), sky + c * (245 - sky)) for y, (sky, c, bump) in rows)
    picture = np.stack([np.clip(line, 0, 255).astype(np.uint8) for line in drawn])
    for _ in range(int(rng.integers(25, 70))):
        size, kind, variant = rng.uniform(10, 44), int(rng.integers(4)), int(rng.integers(VARIANTS))
        place = _place(np.eye(3), (rng.uniform(22, width - 22), HORIZON_ROW + 3 - size / 2), size)
        _paste(picture, _sprite(kind, variant), place, 0.85)
    return picture


@cache
def _road(index: int) -> Picture:
    """Verge, asphalt and lane marks from above, (256, 256, 3), repeating in both directions."""
    rng, size, metre = np.random.default_rng(2000 + index), TEXTURE_PX, TEXTURE_PX / ROAD_WIDTH_M
    picture = rng.uniform((60, 80, 30), (130, 130, 90)) + 90 * (_clouds(rng, size, size, 16) - 0.5)
    left, right = int(size / 2 - 4 * metre), int(size / 2 + 4 * metre)
    picture[:, left:right] = rng.uniform(70, 120) + 40 * (_clouds(rng, size, size, 32)[:, left:right] - 0.5)
    for x in (left + 4, right - 6):
        picture[:, x : x + 2] = 205
    for y in (0, size // 2):
        picture[y : y + size // 4, size // 2 - 1 : size // 2 + 2] = 215
    return np.clip(picture, 0, 255).astype(np.uint8)
