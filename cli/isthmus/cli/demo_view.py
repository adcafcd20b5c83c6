"""What the demo shows while it runs: the picture, its answer, where that came from, the link, the tally."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.align import Align
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from isthmus.device.output.drawing import colour
from isthmus.proto.record import FrameRecord
from isthmus.proto.vocabulary import AnswerSource, Box

ROWS = 22
"""The most rows of the picture, two pixels to a cell; it is twice as many columns wide."""
BESIDE, ABOVE_AND_BELOW = 56, 6
"""Columns and rows that everything else takes."""
MARGINS = 9
"""Columns of the strip that show no frame."""
BARS = "▁▂▃▄▅▆▇█"
COLOURS = {
    AnswerSource.SERVER: "bright_blue",
    AnswerSource.EXIT: "yellow",
    AnswerSource.NONE: "bright_red",
    AnswerSource.REPEAT: "grey62",
    AnswerSource.FILTER: "green",
    AnswerSource.TRACK: "cyan",
}
NAMES = {
    AnswerSource.SERVER: "edge server",
    AnswerSource.EXIT: "early exit on the device",
    AnswerSource.NONE: "no answer",
    AnswerSource.REPEAT: "unchanged picture",
    AnswerSource.FILTER: "nothing of interest",
    AnswerSource.TRACK: "tracker on the device",
}


class View:
    """Keeps what the screen needs and draws it; `rich` renders the object itself."""

    def __init__(self, labels: tuple[str, ...], *, deadline_s: float, title: str, columns: int, rows: int) -> None:
        """`columns` and `rows` are the terminal's; the picture takes what is left of them."""
        self._labels, self._deadline_s, self._title = labels, deadline_s, title
        self._rows = max(4, min(ROWS, rows - ABOVE_AND_BELOW, (columns - BESIDE) // 2))
        self.page = ""
        """Where the same is shown in a browser."""
        history = 2 * self._rows + BESIDE - MARGINS
        self._pixels: NDArray[np.uint8] | None = None
        self._last: FrameRecord | None = None
        self._sources: deque[AnswerSource] = deque(maxlen=history)
        self._rates: deque[float] = deque(maxlen=history)
        self._rate_Bps: float | None = None
        self._on_time = self._frames = self._right = self._known = 0
        self._by_source = dict.fromkeys(AnswerSource, 0)

    def show(self, record: FrameRecord, pixels: NDArray[np.uint8] | None, rate_Bps: float | None) -> None:
        """Take up one answer, the picture it is for (H, W, 3 RGB) and the link's rate now."""
        self._last, self._rate_Bps = record, rate_Bps
        self._frames += 1
        self._on_time += record.on_time and record.label is not None
        self._by_source[record.source] += 1
        self._sources.append(record.source)
        if rate_Bps is not None:
            self._rates.append(rate_Bps)
        if record.right is not None:
            self._known += 1
            self._right += record.right
        if pixels is not None:
            self._pixels = pixels

    @property
    def progress(self) -> str:
        """The tally in a few words, for where there is no terminal."""
        return ", ".join(f"{n} by {NAMES[s]}" for s, n in self._by_source.items() if n)

    def __rich__(self) -> RenderableType:
        """The whole screen."""
        row = Table.grid(padding=(0, 2))
        row.add_column(width=2 * self._rows, no_wrap=True)
        row.add_column()
        unseen = Text("starting ..." + "\n" * self._rows)
        boxes = self._last.boxes if self._last is not None and self._last.boxes else ()
        picture = unseen if self._pixels is None else half_blocks(self._pixels, self._rows, boxes)
        row.add_row(picture, Group(self._answer(), Text(), self._tally()))
        body, width = Group(row, Text(), self._strip()), 2 * self._rows + BESIDE
        return Panel(body, title=self._title, subtitle=self.page or None, width=width, border_style="dim")

    def _answer(self) -> RenderableType:
        r = self._last
        if r is None:
            return Align.left(Text("waiting for the first answer"))
        rows = Table.grid(padding=(0, 1))
        rows.add_column(style="dim", justify="right", width=9)
        rows.add_column(no_wrap=True)
        name = self._name(r.label)
        if r.truth is not None:
            rows.add_row("in view", self._name(r.truth))
        mark = "" if r.right is None else (" [green]✓[/]" if r.right else " [red]✗[/]")
        rows.add_row("answer", f"[bold]{name}[/] {r.confidence:.0%}{mark}")
        rows.add_row("from", f"[{COLOURS[r.source]}]{NAMES[r.source]}[/] [dim]({r.reason.value})[/]")
        rows.add_row(
            "width", "–" if r.width is None else f"{r.width:g}" + (f", exit {r.exit + 1}" if r.exit is not None else "")
        )
        rows.add_row("sent", f"{r.bytes_up} B" + (f" in {r.layers} layer{'s' * (r.layers > 1)}" if r.layers else ""))
        rows.add_row("took", self._deadline_bar(r.latency_s))
        rows.add_row("link", self._link())
        return rows

    def _name(self, label: int | None) -> str:
        return "–" if label is None else self._labels[label]

    def _deadline_bar(self, latency_s: float) -> str:
        filled = min(10, round(10 * latency_s / self._deadline_s))
        return f"{latency_s * 1000:3.0f} of {self._deadline_s * 1000:.0f} ms [cyan]{'━' * filled}[/][dim]{'─' * (10 - filled)}[/]"

    def _link(self) -> str:
        if self._rate_Bps is None:
            return "not shaped"
        if self._rate_Bps == 0:
            return "[bold red]outage[/]"
        believed = self._last.goodput_Bps if self._last else None
        shown = "" if believed is None else f" [dim](believed {believed * 8 / 1e6:.2g})[/]"
        return f"{self._rate_Bps * 8 / 1e6:.2f} Mbit/s up{shown}"

    def _tally(self) -> RenderableType:
        shares = ", ".join(f"[{COLOURS[s]}]{n}[/] {NAMES[s]}" for s, n in self._by_source.items() if n)
        right = f"right and on time {self._right / self._known:.1%}" if self._known else ""
        on_time = f"answered by the deadline {self._on_time / self._frames:.1%}" if self._frames else ""
        return Text.from_markup(f"{self._frames} frames: {shares}\n{on_time}\n{right}")

    def _strip(self) -> RenderableType:
        """The last frames: the link above, the source of each answer below."""
        bars, top = Text(), max(self._rates, default=1.0) or 1.0
        for rate in self._rates:
            bars.append(
                "╳" if rate == 0 else BARS[min(7, int(8 * (rate / top) ** 0.5))], "red" if rate == 0 else "green"
            )
        marks = Text()
        for source in self._sources:
            marks.append("■", COLOURS[source])
        return Group(Text("link ", "dim") + bars, Text("from ", "dim") + marks)


SEEN = 0.25
"""Boxes less sure than this are not drawn."""


def half_blocks(pixels: NDArray[np.uint8], rows: int, boxes: Sequence[Box] = ()) -> Text:
    """A picture in terminal cells, two pixels to a cell, twice as many columns as rows; its boxes around what they are of."""
    side = 2 * rows
    small = np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    for box in reversed([box for box in boxes if box.score >= SEEN]):
        corners = [round(edge * side) for edge in (box.left, box.top, box.right, box.bottom)]
        left, top, right, bottom = (
            corners[0] - 1,
            corners[1] - 1,
            max(corners[2], corners[0] + 1),
            max(corners[3], corners[1] + 1),
        )
        cv2.rectangle(small, (left, top), (right, bottom), colour(box.label), 1)
    text = Text(no_wrap=True)
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        for u, v in zip(upper, lower, strict=True):
            text.append("▀", Style(color=_rgb(u), bgcolor=_rgb(v)))
        text.append("\n")
    return text


def _rgb(pixel: NDArray[np.uint8]) -> str:
    return f"#{pixel[0]:02x}{pixel[1]:02x}{pixel[2]:02x}"
