"""The pictures of one run. Pure: records and a trace in, figures out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isthmus.emulation import run_summary
from isthmus.emulation.reports import figure_style
from isthmus.emulation.reports.figure_style import Sheet
from isthmus.emulation.traces import MBIT_PER_BYTE, Floats, Trace
from isthmus.proto.record import FrameRecord, RunHeader
from isthmus.proto.vocabulary import AnswerSource

SOURCE_COLOUR = {
    AnswerSource.SERVER: figure_style.BLUE,
    AnswerSource.EXIT: figure_style.ORANGE,
    AnswerSource.NONE: figure_style.VERMILLION,
    AnswerSource.REPEAT: figure_style.SOFT,
    AnswerSource.FILTER: figure_style.GREEN,
    AnswerSource.TRACK: figure_style.BROWN,
}
SOURCE_NAME = {
    AnswerSource.SERVER: "server",
    AnswerSource.EXIT: "early exit",
    AnswerSource.NONE: "no answer",
    AnswerSource.REPEAT: "unchanged",
    AnswerSource.FILTER: "filter",
    AnswerSource.TRACK: "tracker",
}


@dataclass(frozen=True, eq=False)
class Uplink:
    """What a run's uplink was, from 0 to `end_s` on the run's time axis, where the trace began at `start_s` of its own."""

    trace: Trace
    start_s: float
    end_s: float

    def rows(self) -> Iterator[tuple[float, float, float]]:
        """(begin, end, bytes/s) of each row of the trace that the run was played on, round and round."""
        length_s = self.trace.length_s
        edges = [*self.trace.time_s.tolist(), length_s]
        for cycle in range(int(self.start_s // length_s), int((self.start_s + self.end_s) // length_s) + 1):
            for begin, end, rate in zip(edges, edges[1:], self.trace.up_Bps.tolist(), strict=False):
                span = [min(max(0.0, at + cycle * length_s - self.start_s), self.end_s) for at in (begin, end)]
                if span[1] > span[0] + 1e-6:  # no slivers from float sums
                    yield span[0], span[1], rate

    def outages(self) -> list[tuple[float, float]]:
        """(begin, end) of each time without an uplink."""
        merged: list[tuple[float, float]] = []
        for begin, end, rate in self.rows():
            if rate == 0:
                joins = bool(merged) and abs(merged[-1][1] - begin) < 1e-9
                merged = [*merged[:-1], (merged[-1][0], end)] if joins else [*merged, (begin, end)]
        return merged


class View:
    """Records on the run's own time axis, with the link beside them when the trace is known."""

    def __init__(self, header: RunHeader, records: Sequence[FrameRecord], trace: Trace | None):
        self.header = header
        self.records = sorted(records, key=lambda record: record.captured_s)
        began_s = header.trace_began_s if trace else self.records[0].captured_s
        self.time_s = np.array([record.captured_s for record in self.records]) - began_s
        self.end_s = float(self.time_s[-1]) + self._period_s()
        self.uplink = Uplink(trace, header.trace_start_s, self.end_s) if trace else None

    def column(self, name: str) -> Floats:
        """One field of every record; None becomes NaN."""
        values = [getattr(record, name) for record in self.records]
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    def outages(self) -> list[tuple[float, float]]:
        """(begin, end) of each time known to be without an uplink."""
        return self.uplink.outages() if self.uplink else []

    @property
    def estimated(self) -> bool:
        """Whether the device had an estimate of its uplink at any time."""
        return any(record.goodput_Bps is not None for record in self.records)

    def sent_in_vain(self) -> bool:
        """Whether any frame sent something and was answered by the device all the same."""
        return any(record.bytes_up and record.source is AnswerSource.EXIT for record in self.records)

    def in_outage(self) -> list[bool]:
        """Whether each record was captured during an outage."""
        outages = self.outages()
        return [any(begin <= t < end for begin, end in outages) for t in self.time_s.tolist()]

    def _period_s(self) -> float:
        if self.header.fps > 0:
            return 1 / self.header.fps
        return float(np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else 1.0  # a source with its own pace


def timeline(view: View, sheet: Sheet) -> Figure:
    """What was decided, frame by frame, under what the link was doing."""
    panels: list[tuple[float, Callable[[Axes, View], None]]] = [(1.3, _latency), (1.0, _bytes), (0.8, _width)]
    if view.uplink is not None or view.estimated:
        panels.insert(0, (1.0, _link))
    heights = [height for height, _ in panels]
    figure = figure_style.blank(sheet, 1.6 * sum(heights))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    outages = view.outages()
    for axis, (_, draw) in zip(axes, panels, strict=True):
        figure_style.plain(axis)
        shade(axis, outages)
        draw(axis, view)
    axes[0].set_xlim(0, view.end_s)
    axes[-1].set_xlabel("seconds into the run")
    figure.align_ylabels()
    return figure


def accuracy(view: View, sheet: Sheet, window_s: float = 5.0) -> Figure:
    """Accuracy over the last `window_s`, of the policy and of the device alone; frames of known truth only.

    A line begins once its window is full; a run too short for that has a window of a quarter of its length.
    """
    window_s = min(window_s, max(1.0, view.end_s / 4))
    figure = figure_style.blank(sheet, 2.6)
    axis = figure.subplots()
    figure_style.plain(axis)
    shade(axis, view.outages())
    lines = (
        ("right", view.header.policy, figure_style.BLUE, 2.4),
        ("local_right", "the device alone", figure_style.BROWN, 1.2),
    )
    for name, _, colour, width in lines:
        time_s, share = rolling(view.time_s, view.column(name), window_s)
        axis.plot(time_s, 100 * share, color=colour, linewidth=width, solid_capstyle="round")
    figure_style.key(axis, *((label, colour) for _, label, colour, _ in lines))
    axis.set(xlim=(0, view.end_s), ylim=(0, 103), xlabel="seconds into the run")
    axis.set_ylabel(f"right and on time, %\n(last {window_s:.2g} s)")
    return figure


def latency_cdf(view: View, sheet: Sheet) -> Figure:
    """The share of answers given within a time, by source, and the deadline."""
    figure = figure_style.blank(sheet, 2.6, share=0.5)
    axis = figure.subplots()
    figure_style.plain(axis)
    deadline_ms = view.header.deadline_s * 1e3
    longest, words = deadline_ms, []
    for source, latency_ms in _by_source(view, view.column("latency_s") * 1e3).items():
        if source is AnswerSource.NONE:
            continue
        ordered = np.sort(latency_ms)
        share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        colour = SOURCE_COLOUR[source]
        axis.step([0, *ordered], [0, *share], where="post", color=colour, linewidth=2.0)
        words.append((f"{SOURCE_NAME[source]}, {len(ordered):,} answers", colour))
        longest = max(longest, float(ordered[-1]))
    figure_style.key(axis, *words)
    figure_style.deadline(axis, deadline_ms, vertical=True)
    axis.set(xlim=(0, 1.05 * longest), ylim=(0, 102), xlabel="latency, ms", ylabel="answers given, %")
    return figure


def bytes_histogram(view: View, sheet: Sheet) -> Figure:
    """How many bytes the frames sent; those that sent nothing are counted in words."""
    figure = figure_style.blank(sheet, 2.6, share=0.5)
    axis = figure.subplots()
    figure_style.plain(axis)
    per, unit = _unit(view)
    size = view.column("bytes_up") / per
    sent = size[size > 0]
    if len(sent):
        axis.hist(
            sent, bins=np.linspace(0, float(sent.max()) * 1.02, 36).tolist(), color=SOURCE_COLOUR[AnswerSource.SERVER]
        )
    figure_style.key(axis, (f"{len(size) - len(sent):,} of {len(size):,} frames sent nothing", figure_style.SOFT))
    axis.set(xlabel=f"sent per frame, {unit}", ylabel="frames")
    return figure


def reliability(view: View, sheet: Sheet) -> Figure:
    """What was promised of the link, and what came of it: the nearer to the line, the better they agree."""
    figure = figure_style.blank(sheet, 2.6)
    axis = figure.subplots()
    figure_style.plain(axis)
    tenths = run_summary.reliability(view.records)
    promised, kept = (100 * np.array([getattr(tenth, name) for tenth in tenths]) for name in ("promised", "kept"))
    frames = np.array([tenth.frames for tenth in tenths])
    axis.plot([0, 100], [0, 100], color=figure_style.LINE, linewidth=1.0, zorder=1)
    axis.scatter(promised, kept, s=12 + 240 * frames / frames.sum(), color=figure_style.BLUE, linewidth=0, zorder=2)
    figure_style.key(axis, (f"{frames.sum():,} frames sent, by tenths of what was promised", figure_style.SOFT))
    axis.set(xlim=(0, 103), ylim=(0, 108), xlabel="promised to be back in time, %", ylabel="were back in time, %")
    return figure


def link(axis: Axes, uplink: Uplink) -> None:
    """The uplink that the trace gave, filled; an outage is a gap."""
    rows = list(uplink.rows())
    edges = [rows[0][0], *(end for _, end, _ in rows)]
    rates = np.array([rate * MBIT_PER_BYTE for *_, rate in rows])
    floor = _scale(axis, rates)
    axis.stairs(rates, edges, fill=True, color=figure_style.FILL, baseline=floor / 100)
    axis.stairs(np.where(rates > 0, rates, np.nan), edges, color=figure_style.LINE, linewidth=1.0, baseline=None)
    shade(axis, uplink.outages())


def _scale(axis: Axes, rates: Floats) -> float:
    """Set up an axis for rates in Mbit/s; the least that it shows."""
    floor = (float(rates[rates > 0].min()) if (rates > 0).any() else 0.01) / 2
    axis.set(yscale="log", ylim=(floor, float(rates.max()) * 2 or 1.0), ylabel="uplink, Mbit/s")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.minorticks_off()
    return floor


def shade(axis: Axes, outages: Sequence[tuple[float, float]]) -> None:
    """Outages in grey."""
    for begin, end in outages:
        axis.axvspan(begin, end, color=figure_style.SHADE, linewidth=0, zorder=0)


def rolling(time_s: Floats, values: Floats, window_s: float) -> tuple[Floats, Floats]:
    """(times, means over the `window_s` before them) of what is known, from the first full window on."""
    known = ~np.isnan(values)
    time_s, values = time_s[known], values[known]
    total = np.concatenate([[0.0], np.cumsum(values)])
    full = np.searchsorted(time_s, window_s) if len(time_s) and time_s[-1] > window_s else 0
    last = np.arange(1, len(time_s) + 1)[full:]
    first = np.searchsorted(time_s, time_s[full:] - window_s, side="right")
    return time_s[full:], (total[last] - total[first]) / (last - first)


def _link(axis: Axes, view: View) -> None:
    words = []
    if view.uplink is not None:
        link(axis, view.uplink)
        words.append(("the trace", figure_style.LINE))
    if view.estimated:
        estimate = view.column("goodput_Bps") * MBIT_PER_BYTE
        axis.plot(view.time_s, estimate, color=figure_style.GREEN, linewidth=1.1)
        words.append(("the device's estimate", figure_style.GREEN))
        if view.uplink is None:
            _scale(axis, estimate[~np.isnan(estimate)])
    figure_style.key(axis, *words)
    for begin, end in view.outages():
        if end - begin > 0.1 * view.end_s:
            axis.annotate(
                f"{end - begin:.0f} s out", ((begin + end) / 2, 0.5), xycoords=("data", "axes fraction"),
                ha="center", va="center", color=figure_style.SOFT, fontsize=8.5,
            )  # fmt: skip


def _latency(axis: Axes, view: View) -> None:
    times_s = _by_source(view, view.time_s)
    for source, latency_ms in _by_source(view, view.column("latency_s") * 1e3).items():
        axis.plot(
            times_s[source], latency_ms, "x" if source is AnswerSource.NONE else "o", color=SOURCE_COLOUR[source],
            markersize=_marker(view), markeredgewidth=0.0 if source is not AnswerSource.NONE else 0.9, rasterized=True,
        )  # fmt: skip
    figure_style.key(axis, *((SOURCE_NAME[source], SOURCE_COLOUR[source]) for source in times_s))
    deadline_ms = view.header.deadline_s * 1e3
    figure_style.deadline(axis, deadline_ms, vertical=False)
    axis.set_ylabel("answered after, ms")
    axis.set_ylim(0, 1.22 * max(deadline_ms, float(np.nanmax(view.column("latency_s"))) * 1e3))


def _bytes(axis: Axes, view: View) -> None:
    times_s = _by_source(view, view.time_s)
    per, unit = _unit(view)
    for source, size_bytes in _by_source(view, view.column("bytes_up")).items():
        axis.vlines(times_s[source], 0, size_bytes / per, color=SOURCE_COLOUR[source], lw=1.0, rasterized=True)
    axis.set_ylim(bottom=0)
    axis.set_ylabel(f"sent, {unit}")


def _width(axis: Axes, view: View) -> None:
    widths = view.column("width")
    times_s = _by_source(view, view.time_s)
    for source, values in _by_source(view, widths).items():
        axis.plot(
            times_s[source], values, "|", color=SOURCE_COLOUR[source], markersize=9, markeredgewidth=1.0,
            rasterized=True,
        )  # fmt: skip
    known = sorted(set(widths[~np.isnan(widths)].tolist()))
    axis.set_yticks(known, [f"{width:g}" for width in known])
    axis.set_ylim(min(known, default=0) - 0.15, max(known, default=1) + 0.15)
    axis.set_ylabel("head's width")


def _unit(view: View) -> tuple[float, str]:
    """(bytes in one, its name) of what suits the largest frame."""
    return (1e3, "kB") if max(record.bytes_up for record in view.records) >= 2000 else (1.0, "bytes")


def _by_source(view: View, values: Floats) -> Mapping[AnswerSource, Floats]:
    sources = np.array([record.source.value for record in view.records])
    return {source: values[sources == source.value] for source in SOURCE_COLOUR if (sources == source.value).any()}


def _marker(view: View) -> float:
    return float(np.clip(120 / np.sqrt(len(view.records) + 1), 1.2, 4.5))
