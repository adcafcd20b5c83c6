"""The picture of a comparison of bundles: what each is worth for its bytes, and who is best at which uplink. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from isthmus.emulation.reports import figure_style
from isthmus.emulation.reports.contenders import Contender, Stretch, led
from isthmus.emulation.reports.figure_style import Plot, Sheet
from isthmus.emulation.traces import BYTES_PER_MBIT

COLOURS = (figure_style.BLUE, figure_style.GREEN, figure_style.ORANGE, figure_style.BROWN, figure_style.LINE)
"""Of bundles, in the order in which they are named; pictures as such have their own."""
FORMATS = {"WebP": figure_style.VERMILLION, "JPEG": figure_style.SOFT}
_BAR_IN, _PLOT_IN = 1.25, 3.4
_DECADES = 3.0
"""Uplinks are shown from the lowest at which something changes, over so many decades at least."""


@dataclass(frozen=True)
class Shown:
    """What is drawn."""

    contenders: tuple[Contender, ...]
    stretches: tuple[Stretch, ...]
    measure: str
    """What results are: accuracy, AP50, mIoU or agreement."""
    conditions: str
    """Device and deadline, in words."""

    def colour(self, name: str) -> str:
        """A contender's own."""
        bundles = [c.name for c in self.contenders if c.name not in FORMATS]
        return FORMATS[name] if name in FORMATS else COLOURS[bundles.index(name) % len(COLOURS)]


def plot(shown: Shown, title: str) -> Plot:
    """The picture, ready for a page and for a file."""
    caption = (
        f"{shown.measure} against the mean bytes of a frame; below, who is best at which uplink ({shown.conditions})."
    )
    return figure_style.plot("compare", title, caption, lambda sheet: draw(shown, sheet))


def draw(shown: Shown, sheet: Sheet) -> Figure:
    """Results against bytes, and under it the uplinks as a bar."""
    figure = figure_style.blank(sheet, _PLOT_IN + _BAR_IN, share=0.78)
    above, below = figure.subplots(2, 1, height_ratios=(_PLOT_IN, _BAR_IN))
    _results(above, shown)
    _uplinks(below, shown, sheet)
    return figure


def _results(axis: Axes, shown: Shown) -> None:
    figure_style.plain(axis, grid="both")
    sizes = [way.size_bytes for c in shown.contenders for way in c.ways if way.size_bytes]
    left = min(sizes) / 2.2
    for contender in shown.contenders:
        colour = shown.colour(contender.name)
        sent = [way for way in contender.ways if way.size_bytes]
        alone = [way for way in contender.ways if not way.size_bytes]
        best = Contender(contender.name, tuple(sent)).frontier
        picture = contender.name in FORMATS
        axis.plot([w.size_bytes for w in sent], [w.result for w in sent], ".", color=colour, alpha=0.35, markersize=4)
        axis.plot(
            [w.size_bytes for w in best], [w.result for w in best], "s--" if picture else "o-", color=colour,
            markersize=3.5, linewidth=1.2 if picture else 1.8,
        )  # fmt: skip
        axis.plot([left] * len(alone), [w.result for w in alone], "D", color=colour, markersize=5)
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_bytes))
    ticks = [10.0**k * m for k in range(1, 7) for m in (1, 3) if min(sizes) * 0.8 <= 10.0**k * m <= max(sizes) * 1.2]
    at_left = [left] if any(not w.size_bytes for c in shown.contenders for w in c.ways) else []
    axis.set_xticks([*at_left, *ticks])
    axis.set(xlabel="bytes a frame, mean", ylabel=shown.measure)
    if at_left:
        labels = ["device\nalone", *(_bytes(tick, 0) for tick in ticks)]
        axis.set_xticklabels(labels)
    figure_style.key(axis, *((c.name, shown.colour(c.name)) for c in shown.contenders))


def _uplinks(axis: Axes, shown: Shown, sheet: Sheet) -> None:
    figure_style.plain(axis, grid="x")
    axis.spines["left"].set_visible(False)
    changes = [s.from_Bps for s in shown.stretches if s.from_Bps] or [BYTES_PER_MBIT]
    low, high = min(changes) / 4, max(max(changes) * 4, min(changes) / 4 * 10**_DECADES)
    for each in led(shown.stretches):
        start, end = max(each.from_Bps, low), min(each.to_Bps, high)
        if end <= start:
            continue
        axis.barh(0, end - start, left=start, height=0.8, color=shown.colour(each.contender), linewidth=0)
        room = math.log10(end / start) / math.log10(high / low) * (40 if sheet.narrow else 100)
        words = f"{each.contender} {each.way.result:.3f}"
        if room > len(words):
            colour = shown.colour(each.contender)
            axis.annotate(words, ((start * end) ** 0.5, 0.5), color=colour, ha="center", fontsize=9, fontweight="bold")
    for each in shown.stretches:
        if each.from_Bps > low:
            axis.axvline(each.from_Bps, ymin=0.08, ymax=0.2, color=figure_style.FOREGROUND, linewidth=0.7)
    axis.set_xscale("log")
    axis.set(xlim=(low, high), ylim=(-0.55, 0.95), yticks=(), xticks=_decades(low, high))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_rate))
    axis.set_xlabel(f"uplink, {shown.conditions}")


def _decades(low_Bps: float, high_Bps: float) -> list[float]:
    """1, 10, 100 kbit/s and so on, as far as they lie between two uplinks."""
    every = (BYTES_PER_MBIT * 10.0**k for k in range(-6, 6))
    return [rate for rate in every if low_Bps <= rate <= high_Bps]


def _bytes(size: float, _: int) -> str:
    return f"{size / 1000:g} kB" if size >= 1000 else f"{size:g} B"


def _rate(rate_Bps: float, _: int) -> str:
    return rate_in_words(rate_Bps)


def rate_in_words(rate_Bps: float) -> str:
    """An uplink as people write it: 64 kbit/s, 1.2 Mbit/s."""
    mbps = rate_Bps / BYTES_PER_MBIT
    if mbps >= 1:
        return f"{mbps:.3g} Mbit/s"
    return f"{mbps * 1000:.3g} kbit/s"
