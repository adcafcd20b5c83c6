"""The pictures of a comparison. Pure: a comparison in, figures out.

Rows are policies in one order throughout, the bounds first; they are drawn in black and local-only in brown,
whoever else plays in blue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from isthmus.emulation.policies import BOUNDS
from isthmus.emulation.reports import figure_style, run_plots
from isthmus.emulation.reports.comparison import LOCAL_ONLY, Comparison, Entry, Fate, Player, RunConditions
from isthmus.emulation.reports.figure_style import Sheet
from isthmus.emulation.reports.run_plots import Uplink
from isthmus.emulation.traces import Floats, Trace

FATE_COLOUR = {
    Fate.SERVER: figure_style.BLUE,
    Fate.EXIT: figure_style.ORANGE,
    Fate.WRONG: figure_style.PALE,
    Fate.MISSED: figure_style.VERMILLION,
}
_ROW_IN = 0.29
"""The height of a policy's row, in inches."""
_BINS = 150
"""How many bins a strip's time is cut into; a bin holds a few frames at least."""


@dataclass(frozen=True)
class Scale:
    """A column of dots: its values by setting (or by run), the one that stands for them all, how that is written."""

    title: str
    values: Callable[[Player], list[float]]
    middle: Callable[[Player], float | None]
    written: Callable[[float], str]
    from_zero: bool = False
    least: float = -np.inf
    """What lies below is drawn at the edge, as an arrow."""


def accuracy_scales(comparison: Comparison) -> list[Scale]:
    """Accuracy and, where a bound played, the share of its gain."""
    shares = Scale(
        f"share of the {comparison.yardstick}'s gain, %",
        lambda who: [100 * share for share in comparison.recovered_in_each(who)],
        lambda who: None if (share := comparison.recovered_in_all(who)) is None else 100 * share,
        "{:.0f}".format,
        least=-20.0,
    )
    accuracy = _figure(comparison, "right and on time, %", lambda entry: entry.accuracy, 100, "{:.1f}", from_zero=False)
    return _known(comparison, accuracy, shares)


def cost_scales(comparison: Comparison) -> list[Scale]:
    """What the answers took: bytes, energy where a profile has it, the slow end of latency."""
    return _known(
        comparison,
        _figure(comparison, "sent per frame, kB", lambda entry: entry.bytes_per_frame, 1e-3, "{:.2f}"),
        _figure(comparison, "energy per frame, mJ", lambda entry: entry.energy_per_frame_J, 1e3, "{:.3g}"),
        _figure(comparison, "95 % answered within, ms", lambda entry: entry.latency_s(0.95), 1e3, "{:.0f}"),
    )


def _figure(
    comparison: Comparison,
    title: str,
    figure: Callable[[Entry], float | None],
    per: float,
    written: str,
    *,
    from_zero: bool = True,
) -> Scale:
    def values(who: Player) -> list[float]:
        return [value * per for value in comparison.spread(who, figure)]

    def middle(who: Player) -> float | None:
        mean = comparison.mean(who, figure)
        return None if mean is None else mean * per

    return Scale(title, values, middle, written.format, from_zero)


def _known(comparison: Comparison, *scales: Scale) -> list[Scale]:
    return [scale for scale in scales if any(scale.values(who) for who in comparison.players)]


def dots(comparison: Comparison, scales: Sequence[Scale], sheet: Sheet) -> Figure:
    """One panel a scale, one row a policy: a dot for each setting, the mean as a bar and in figures."""
    rows = len(comparison.players) * _ROW_IN + 0.75
    if sheet.narrow:
        figure = figure_style.blank(sheet, rows * len(scales))
        figure.set_layout_engine("constrained", h_pad=0.1)
        axes = figure.subplots(len(scales), 1, squeeze=False)[:, 0]
    else:
        figure = figure_style.blank(sheet, rows)
        axes = figure.subplots(1, len(scales), squeeze=False, sharey=True)[0]
    for axis, scale in zip(axes, scales, strict=True):
        _column(axis, comparison, scale)
    for axis in axes if sheet.narrow else axes[:1]:
        _name_rows(axis, comparison)
    return figure


def placed(comparison: Comparison) -> dict[Player, tuple[float, float]]:
    """(bytes a frame, % right and on time) of every player of whom both are known, the most often right first."""
    found = {}
    for who in comparison.players:
        sent = comparison.mean(who, lambda entry: entry.bytes_per_frame)
        right = comparison.mean(who, lambda entry: entry.accuracy)
        if sent is not None and right is not None:
            found[who] = sent, 100 * right
    return dict(sorted(found.items(), key=lambda item: -item[1][1]))


def tradeoff(comparison: Comparison, sheet: Sheet) -> Figure:
    """Accuracy over the bytes that it took, a point a player; names at the right, each tied to its point."""
    places = placed(comparison)
    figure = figure_style.blank(sheet, max(2.6, 0.2 * len(places) + 0.9))
    axis = figure.subplots()
    figure_style.plain(axis)
    sent, right = (np.array(column) for column in zip(*places.values(), strict=True))
    least, most = float(right.min()), float(right.max())
    axis.set_ylim(least - 0.06 * (most - least) - 0.1, most + 0.06 * (most - least) + 0.1)
    if (sent > 0).any() and sent.max() > 10 * sent[sent > 0].min():
        axis.set_xscale("symlog", linthresh=float(sent[sent > 0].min()))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.minorticks_off()
    axis.set_xlim(-0.03 * float(sent.max()) if axis.get_xscale() == "linear" else 0, 1.15 * float(sent.max()) or 1.0)
    for (who, (x, y)), at in zip(places.items(), _apart(right, axis.get_ylim(), 1 / (len(places) + 1)), strict=True):
        axis.plot([x], [y], "o", color=_colour(who), markersize=6.5, clip_on=False, zorder=3)
        axis.annotate(
            comparison.name(who), (x, y), (1.03, at), textcoords="axes fraction", va="center", color=_colour(who), fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": figure_style.AXIS, "linewidth": 0.7, "shrinkA": 2, "shrinkB": 4},
        )  # fmt: skip
    axis.set(xlabel="sent per frame, bytes", ylabel="right and on time, %")
    return figure


def _apart(values: Floats, limits: tuple[float, float], gap: float) -> Floats:
    """Places from 1 down to 0 for names of falling `values`, near them but never nearer to each other than `gap`."""
    at = (values - limits[0]) / (limits[1] - limits[0])
    for i in range(1, len(at)):
        at[i] = min(at[i], at[i - 1] - gap)
    for i in range(len(at) - 1, -1, -1):
        at[i] = max(at[i], 0.0 if i == len(at) - 1 else at[i + 1] + gap)
    return at


def latency(comparison: Comparison, sheet: Sheet) -> Figure:
    """A panel a policy: the share of frames answered within a time, over everybody else's in grey."""
    columns = 2 if sheet.narrow else 4
    rows = -(-len(comparison.players) // columns)
    figure = figure_style.blank(sheet, 1.55 * rows + 0.3)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    relative = len({setting.deadline_s for setting in comparison.settings}) > 1
    curves = {who: _curve(comparison, who, relative=relative) for who in comparison.players}
    deadline = 100.0 if relative else comparison.settings[0].deadline_s * 1e3
    longest = max(deadline, *(float(within[-1]) for within, _ in curves.values()))
    curves = {
        who: (np.append(within, 2 * longest), np.append(share, share[-1])) for who, (within, share) in curves.items()
    }
    for axis, who in zip(axes, comparison.players, strict=False):
        figure_style.plain(axis)
        for other, (within, share) in curves.items():
            if other != who:
                axis.plot(within, share, color=figure_style.SOFT, alpha=0.4, linewidth=0.8, rasterized=True)
        axis.plot(*curves[who], color=_colour(who), linewidth=2.0)
        axis.axvline(deadline, color=figure_style.FOREGROUND, linewidth=0.9, linestyle=(0, (4, 3)))
        figure_style.key(axis, (comparison.name(who), _colour(who)))
        axis.set(xlim=(0, 1.04 * longest), ylim=(0, 103), yticks=(0, 50, 100))
    for axis in axes[len(comparison.players) :]:
        axis.set_visible(False)
    figure.supxlabel("latency, % of the deadline" if relative else "latency, ms", fontsize=9, color=figure_style.SOFT)
    figure.supylabel("frames answered, %", fontsize=9, color=figure_style.SOFT)
    return figure


def timeline(comparison: Comparison, setting: RunConditions, trace: Trace | None, sheet: Sheet) -> Figure:
    """Under the trace, a strip a policy: what became of its frames, as shares of each stretch of time."""
    playing = [who for who in comparison.players if who in comparison.entries[setting]]
    firsts = [comparison.entries[setting][who].runs[0] for who in playing]
    end_s = max(float(run.time_s[-1]) for run in firsts if len(run.time_s)) + 1e-9
    frames = max(len(run.time_s) for run in firsts)
    bins = int(np.clip(frames // 6, 1, _BINS // 2 if sheet.narrow else _BINS))
    strip_in = 0.62 if sheet.narrow else 0.36
    figure = figure_style.blank(sheet, (1.15 if trace else 0.0) + strip_in * len(playing) + 0.65)
    heights = [1.0] * bool(trace) + [strip_in] * len(playing)
    axes = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    if trace:
        axis = axes.pop(0)
        figure_style.plain(axis)
        run_plots.link(axis, Uplink(trace, firsts[0].header.trace_start_s, end_s))
    for axis, who, run in zip(axes, playing, firsts, strict=True):
        _strip(axis, run.time_s, run.fate, np.linspace(0, end_s, bins + 1))
        if run.figures.accuracy is not None:
            _beside(axis, 0.5, f"{100 * run.figures.accuracy:.1f} %")
        if sheet.narrow:
            axis.set_title(comparison.name(who), loc="left", fontsize=8.5, color=_colour(who), pad=2)
        else:
            axis.set_ylabel(
                comparison.name(who), rotation=0, ha="right", va="center", fontsize=9, color=_colour(who), labelpad=8
            )
    axes[-1].tick_params(bottom=True, labelbottom=True)
    axes[-1].set_xlabel("seconds into the run", fontsize=9, color=figure_style.SOFT)
    axes[0].set_xlim(0, end_s)
    return figure


def _strip(axis: Axes, time_s: Floats, fate: NDArray[np.uint8], edges_s: Floats) -> None:
    counts = np.array([np.histogram(time_s[fate == kind], edges_s)[0] for kind in Fate], dtype=float)
    seen = counts.sum(axis=0)
    shares = np.divide(counts, seen, out=np.zeros_like(counts), where=seen > 0)
    below = np.zeros(len(seen))
    for kind, share in zip(Fate, shares, strict=True):
        axis.stairs(
            below + share, edges_s, baseline=below, fill=True, color=FATE_COLOUR[kind], linewidth=0, rasterized=True
        )
        below = below + share
    axis.set(ylim=(0, 1), yticks=())
    axis.spines[:].set_visible(False)
    axis.tick_params(
        colors=figure_style.AXIS, labelcolor=figure_style.FOREGROUND, labelsize=8.5, bottom=False, labelbottom=False
    )


def _column(axis: Axes, comparison: Comparison, scale: Scale) -> None:
    figure_style.plain(axis, grid="x")
    axis.spines[["left"]].set_visible(False)
    axis.tick_params(left=False)
    longest = 0.0
    for row, who in enumerate(comparison.players):
        middle, values = scale.middle(who), scale.values(who)
        if middle is None:
            continue
        longest = max(longest, *values)
        colour = _colour(who)
        below = [value for value in values if value < scale.least]
        inside = [value for value in values if value >= scale.least]
        if len(values) == 1:
            axis.plot(inside, [row] * len(inside), "o", color=colour, markersize=6.5)
        else:
            axis.plot(inside, [row] * len(inside), "o", color=colour, markersize=4, alpha=0.45, markeredgewidth=0)
            if middle >= scale.least:
                axis.plot([middle], [row], "|", color=colour, markersize=13, markeredgewidth=2.6)
        if below:
            axis.plot([scale.least], [row], "<", color=colour, markersize=5, markeredgewidth=0, clip_on=False)
        _beside(axis, row, scale.written(middle))
    axis.set_ylim(len(comparison.players) - 0.5, -0.5)
    if scale.from_zero:
        axis.set_xlim(0, 1.06 * longest or 1.0)
    if np.isfinite(scale.least):
        axis.set_xlim(scale.least, max(1.06 * longest, 105.0))
    figure_style.key(axis, (scale.title, figure_style.SOFT))


def _beside(axis: Axes, at: float, text: str) -> None:
    """A figure at the right of a row."""
    axis.annotate(
        text.replace("-", "−"), (1, at), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        fontsize=8.5, color=figure_style.FOREGROUND, annotation_clip=False,
    )  # fmt: skip


def _name_rows(axis: Axes, comparison: Comparison) -> None:
    axis.set_yticks(range(len(comparison.players)), [comparison.name(who) for who in comparison.players], fontsize=9)
    for text, who in zip(axis.get_yticklabels(), comparison.players, strict=True):
        text.set_color(_colour(who))


def _curve(comparison: Comparison, who: Player, *, relative: bool) -> tuple[Floats, Floats]:
    """(times, % of frames answered within them) of all runs of a player together; times in ms, or % of the deadline."""
    runs = [run for playing in comparison.entries.values() if who in playing for run in playing[who].runs]
    per = [run.header.deadline_s / 100 if relative else 1e-3 for run in runs]
    together = np.sort(
        np.concatenate([run.latency_s[run.answered] / unit for run, unit in zip(runs, per, strict=True)])
    )
    frames = sum(len(run.latency_s) for run in runs)
    picked = np.unique(np.linspace(0, len(together) - 1, 200).astype(int)) if len(together) else np.array([], dtype=int)
    share = 100 * (picked + 1) / max(frames, 1)
    return np.array([0.0, *together[picked]]), np.array([0.0, *share])


def _colour(who: Player) -> str:
    return {**dict.fromkeys(BOUNDS, figure_style.FOREGROUND), LOCAL_ONLY: figure_style.BROWN}.get(
        who.policy, figure_style.BLUE
    )
