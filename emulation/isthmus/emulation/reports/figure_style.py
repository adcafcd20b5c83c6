"""How plots are drawn: one style, colours that every eye can distinguish, SVG for the page and PNG for a file.

On a page a picture is inline SVG, drawn twice, for a screen and for a phone. Its text is set by the page and each of its
colours is a variable of the page, so that it is sharp at any size and follows the reader's light or dark theme. What is drawn
as points (thousands of marks) lies in it twice, for either theme.
"""

from __future__ import annotations

import base64
import enum
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isthmus.proto.colours import OKABE_ITO

# Okabe and Ito's colours, and others beside them. DARK gives each the one that dark pages show instead.
FOREGROUND, SOFT, AXIS, GRID, SHADE = "#222222", "#6b6b6b", "#bbbbbb", "#ececec", "#e3e3e3"
BLUE, GREEN, ORANGE, VERMILLION = OKABE_ITO
BROWN = "#9c5f00"
FILL, LINE, PALE = "#c9d7e3", "#4a6a85", "#b4b4b4"
DARK = {
    FOREGROUND: "#e9e7e4", SOFT: "#a5a29d", AXIS: "#565b61", GRID: "#2a2e33", SHADE: "#33383e",
    BLUE: "#4aa8e0", ORANGE: "#f0b429", VERMILLION: "#f07f3c", GREEN: "#2cc79a", BROWN: "#d9bb8c",
    FILL: "#2b4256", LINE: "#8fb3d1", PALE: "#9a9a9a",
}  # fmt: skip
# What an SVG inside a page has no use for: names of groups, a font and strokes of its own, which the page gives.
_UNWANTED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<metadata>.*?</metadata>",
        r"<style.*?</style>",
        r"<!--.*?-->",
        r' id="(?:matplotlib\.)?[a-z0-9]+_[0-9_]+"',
        r"font-family: [^;\"]*; ",
        r' transform="rotate\(-0 [^)]*\)"',
        r"\n *(?=<)",
    )
)
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_POINTS = re.compile(r'<image xlink:href="data:image/png;base64,\s*([^"]*)"([^>]*)/>')
_BOX = re.compile(r'<svg [^>]*viewBox="([^"]*)"[^>]*>')
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
Form = Literal["png", "svg", "pdf"]
FORMS: tuple[Form, ...] = ("png", "svg", "pdf")
_EM_PT = 5.3
"""How wide a letter of 9 points is, about: the page chooses the font."""
DOTS_PER_INCH = 144
"""The resolution of what is drawn as points: twice a screen's, so that it stays sharp on a fine one."""


class Sheet(enum.Enum):
    """What a picture is drawn on; the value is its width in inches, of 96 pixels on a page."""

    WIDE = 10.5
    NARROW = 4.1

    @property
    def narrow(self) -> bool:
        """A phone held upright."""
        return self is Sheet.NARROW


Draw = Callable[[Sheet], Figure]


@dataclass(frozen=True)
class Plot:
    """A picture with its words, ready for a page and for a file."""

    name: str
    title: str
    caption: str
    wide_svg: str
    narrow_svg: str
    files: dict[Form, bytes]
    """The wide one on white, to be kept by itself."""


def plot(name: str, title: str, caption: str, draw: Draw, forms: Sequence[Form] = ("png",)) -> Plot:
    """Draw for both sheets, and for files of these forms."""
    wide, narrow = _laid_out(draw(Sheet.WIDE)), _laid_out(draw(Sheet.NARROW))
    files = {form: _file(wide, form) for form in forms}
    return Plot(name, title, caption, _svg(wide, title), _svg(narrow, title), files)


def blank(sheet: Sheet, height_in: float, *, share: float = 1.0) -> Figure:
    """An empty figure; `share` is how much of a wide sheet it takes, a narrow one is always taken whole."""
    width_in = sheet.value * (1.0 if sheet.narrow else share)
    return Figure(figsize=(width_in, height_in), layout="constrained", dpi=DOTS_PER_INCH)


def plain(axis: Axes, *, grid: str = "y") -> None:
    """The house's axes: two quiet spines, a faint grid along `grid`."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(AXIS)
    axis.tick_params(which="both", colors=AXIS, labelcolor=FOREGROUND, labelsize=8.5)
    axis.xaxis.label.set(color=SOFT, fontsize=9)
    axis.yaxis.label.set(color=SOFT, fontsize=9)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def key(axis: Axes, *words: tuple[str, str]) -> None:
    """What is what in a panel: (words, colour), above it at the left, instead of a legend."""
    axis.set_title(" ", loc="left", fontsize=9)  # keeps the line free
    at_pt = 0.0
    for text, colour in words:
        axis.annotate(
            text, (0, 1), (at_pt, 5), xycoords="axes fraction", textcoords="offset points", color=colour, fontsize=9,
            fontweight="normal" if colour == SOFT else "bold", annotation_clip=False,
        )  # fmt: skip
        at_pt += _EM_PT * len(text) + 12


def deadline(axis: Axes, at: float, *, vertical: bool) -> None:
    """The dashed line that an answer must not cross, with its name."""
    if vertical:
        axis.axvline(at, color=FOREGROUND, linewidth=1.0, linestyle=(0, (4, 3)))
        axis.annotate(
            "deadline ", (at, 0.03), xycoords=("data", "axes fraction"), color=FOREGROUND, ha="right", fontsize=8.5
        )
    else:
        axis.axhline(at, color=FOREGROUND, linewidth=1.0, linestyle=(0, (4, 3)))
        axis.annotate(
            "deadline", (0.004, at), xycoords=("axes fraction", "data"), va="bottom", fontsize=8.5, color=FOREGROUND
        )


def standalone(plot: Plot) -> str:
    """A plot as an SVG file of its own, which brings what a page would give it and follows its reader's light or dark theme."""
    paper = ":root { --paper: #ffffff; } @media (prefers-color-scheme: dark) { :root { --paper: #17191c; } }"
    rules = "svg { background: var(--paper); font-family: system-ui, sans-serif; stroke-linejoin: round; }"
    opening, _, rest = plot.wide_svg.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{css()} {paper} {rules}</style>{rest}\n'


def css() -> str:
    """The colours as variables of a page, light and dark."""

    def block(colours: dict[str, str]) -> str:
        return " ".join(f"{_variable(light)}: {colour};" for light, colour in colours.items())

    return (
        f":root {{ {block({light: light for light in DARK})} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {block(DARK)} }} }}\n"
        "image.dark { display: none; }\n"
        "@media (prefers-color-scheme: dark) { image.light { display: none; } image.dark { display: inline; } }"
    )


def var(colour: str) -> str:
    """A colour as the page writes it."""
    return f"var({_variable(colour)})"


def _variable(colour: str) -> str:
    return f"--c{colour.removeprefix('#')}"


def _laid_out(figure: Figure) -> Figure:
    """The figure with its panels in their places for good: to find them takes as long as to draw."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _file(figure: Figure, form: Form) -> bytes:
    buffer = io.BytesIO()
    dated = {"Date": None} if form == "svg" else {"CreationDate": None} if form == "pdf" else {}
    with mpl.rc_context(
        {"svg.hashsalt": form, "pdf.fonttype": 42}
    ):  # the same again for the same run; text that can be edited
        figure.savefig(buffer, format=form, metadata=dated)
    return buffer.getvalue()


def _points(found: re.Match[str]) -> str:
    """A picture of points within an SVG, for light pages and for dark ones."""
    encoded = "".join(found[1].split())
    dark = base64.b64encode(_darkened(base64.b64decode(encoded))).decode()
    rest = re.sub(r' id="[^"]*"', "", found[2])
    kinds = (("light", encoded), ("dark", dark))
    return "".join(f'<image class="{kind}" xlink:href="data:image/png;base64,{png}"{rest}/>' for kind, png in kinds)


def _darkened(png: bytes) -> bytes:
    """The same points, each in what dark pages show instead of the nearest of our colours."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)  # (H, W, 4) BGRA
    light, dark = (np.array([_bgr(colour) for colour in side]) for side in (DARK, DARK.values()))
    colours, places = np.unique(pixels.view(np.uint32).ravel(), return_inverse=True)
    seen = colours.view(np.uint8).reshape(-1, 4)
    nearest = np.square(seen[:, None, :3].astype(int) - light[None]).sum(2).argmin(1)
    shown = np.column_stack([dark[nearest], seen[:, 3]]).astype(np.uint8)
    return cv2.imencode(".png", shown[places].reshape(pixels.shape))[1].tobytes()


def _bgr(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))[::-1]


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    salt = f"{label} {figure.get_figwidth()}"  # ids: one page, many pictures
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True)
    text = buffer.getvalue()
    for pattern in _UNWANTED:
        text = pattern.sub("", text)
    text = _POINTS.sub(_points, text)
    text = _COLOUR.sub(lambda found: var(found[0]) if found[0] in DARK else found[0], text)
    box = _BOX.search(text)
    assert box is not None, "matplotlib writes a viewBox"
    opening = (
        f'<svg viewBox="{box[1]}" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(label)}">'
    )
    return opening + text[box.end() :]
