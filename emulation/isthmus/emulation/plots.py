"""The pictures of a run, as PNG bytes. Pure: records and a trace in, bytes out; matplotlib is imported nowhere else.

Colours are Okabe and Ito's, which every eye tells apart; lines carry their names, so that few legends are needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isthmus.emulation.traces import Floats, Trace
from isthmus.proto.plan import Source
from isthmus.proto.record import FrameRecord, RunHeader

SOURCE_COLOUR = {Source.SERVER: "#0072B2", Source.EXIT: "#E69F00", Source.NONE: "#D55E00"}
SOURCE_NAME = {Source.SERVER: "server", Source.EXIT: "early exit", Source.NONE: "no answer"}
_INK, _SOFT, _OUTAGE = "#222222", "#777777", "#E3E3E3"
_ISTHMUS, _LOCAL = "#0072B2", "#B36B00"
_WIDE_IN = 11.0
_MBPS = 8e-6


class View:
    """Records on the run's own time axis, with the link's rows beside them when the trace is known."""

    def __init__(self, header: RunHeader, records: Sequence[FrameRecord], trace: Trace | None):
        self.header = header
        self.records = sorted(records, key=lambda record: record.captured_s)
        self._began_s = header.trace_began_s if trace else self.records[0].captured_s
        self.time_s = np.array([record.captured_s for record in self.records]) - self._began_s
        self.trace = trace
        self.end_s = float(self.time_s[-1]) + 1 / header.fps

    def column(self, name: str) -> Floats:
        """One field of every record; None becomes NaN."""
        values = [getattr(record, name) for record in self.records]
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    def link_rows(self) -> Iterator[tuple[float, float, float]]:
        """(begin, end, up bytes/s) of each row of the trace that the run met, round and round."""
        if self.trace is None:
            return
        length_s, offset_s = self.trace.length_s, self.header.trace_start_s
        edges = [*self.trace.time_s.tolist(), length_s]
        for cycle in range(int(offset_s // length_s), int((offset_s + self.end_s) // length_s) + 1):
            for begin, end, rate in zip(edges, edges[1:], self.trace.up_Bps.tolist(), strict=False):
                met = [min(max(0.0, at + cycle * length_s - offset_s), self.end_s) for at in (begin, end)]
                if met[1] > met[0] + 1e-6:  # no slivers from float sums
                    yield met[0], met[1], rate

    def outages(self) -> list[tuple[float, float]]:
        """(begin, end) of each time without an uplink."""
        merged: list[tuple[float, float]] = []
        for begin, end, rate in self.link_rows():
            if rate == 0:
                joins = bool(merged) and abs(merged[-1][1] - begin) < 1e-9
                merged = [*merged[:-1], (merged[-1][0], end)] if joins else [*merged, (begin, end)]
        return merged

    def in_outage(self) -> list[bool]:
        """For each record, whether it was captured during an outage."""
        outages = self.outages()
        return [any(begin <= t < end for begin, end in outages) for t in self.time_s.tolist()]


def timeline(view: View) -> bytes:
    """What was decided, frame by frame, under what the link was doing."""
    panels: list[tuple[float, Callable[[Axes, View], None]]] = [(1.3, _latency), (1.0, _bytes), (0.8, _width)]
    if view.trace is not None:
        panels.insert(0, (1.0, _link))
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(_WIDE_IN, 1.65 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (_, draw) in zip(axes, panels, strict=True):
        _plain(axis)
        _shade(axis, view)
        draw(axis, view)
    axes[0].set_xlim(0, view.end_s)
    axes[-1].set_xlabel("seconds into the run")
    return _png(figure)


def accuracy(view: View, window_s: float = 5.0) -> bytes:
    """Accuracy over the last `window_s`, of Isthmus and of the device alone; frames of known truth only.

    A line begins once its window is full; a run too short for that has a window of a quarter of its length.
    """
    window_s = min(window_s, max(1.0, view.end_s / 4))
    figure = Figure(figsize=(_WIDE_IN, 3.2), layout="constrained")
    axis = figure.subplots()
    _plain(axis)
    _shade(axis, view)
    lines = (("right", "Isthmus", _ISTHMUS, 2.4), ("local_right", "device alone", _LOCAL, 1.8))
    ends: list[float] = []
    for name, _, colour, width in lines:
        time_s, share = _rolling(view.time_s, view.column(name), window_s)
        axis.plot(time_s, 100 * share, color=colour, linewidth=width, solid_capstyle="round")
        ends.append(float(100 * share[-1]) if len(share) else 0.0)
    for (_, label, colour, _), height in zip(lines, _apart(ends, 7.0), strict=True):
        axis.annotate(
            label, (1, height), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", color=colour,
            va="center", fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    axis.set(xlim=(0, view.end_s), ylim=(0, 103), xlabel="seconds into the run")
    axis.set_ylabel(f"right and on time, %\n(last {window_s:.2g} s)")
    return _png(figure)


def latency_cdf(view: View) -> bytes:
    """The share of answers given within a time, by source, and the deadline."""
    figure = Figure(figsize=(_WIDE_IN / 2, 3.2), layout="constrained")
    axis = figure.subplots()
    _plain(axis)
    deadline_ms = view.header.deadline_s * 1e3
    longest = deadline_ms
    for source, latency_ms in _by_source(view, view.column("latency_s") * 1e3).items():
        if source is Source.NONE:
            continue
        ordered = np.sort(latency_ms)
        share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        axis.step(
            [0, *ordered], [0, *share], where="post", color=SOURCE_COLOUR[source], linewidth=2.2,
            label=f"{SOURCE_NAME[source]} ({len(ordered)})",
        )  # fmt: skip
        longest = max(longest, float(ordered[-1]))
    axis.axvline(deadline_ms, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axis.annotate("deadline ", (deadline_ms, 4), color=_INK, ha="right")
    axis.set(xlim=(0, 1.05 * longest), ylim=(0, 102), xlabel="latency, ms", ylabel="answers given, %")
    if axis.lines[1:]:
        axis.legend(frameon=False, loc="best")
    return _png(figure)


def bytes_histogram(view: View) -> bytes:
    """How many bytes the frames sent; those that sent nothing are counted in words."""
    figure = Figure(figsize=(_WIDE_IN / 2, 3.2), layout="constrained")
    axis = figure.subplots()
    _plain(axis)
    size_kB = view.column("bytes_up") / 1e3
    sent = size_kB[size_kB > 0]
    if len(sent):
        axis.hist(sent, bins=np.linspace(0, float(sent.max()) * 1.02, 36).tolist(), color=SOURCE_COLOUR[Source.SERVER])
    silent = len(size_kB) - len(sent)
    axis.set_title(f"{silent} of {len(size_kB)} frames sent nothing", loc="left", fontsize=10, color=_SOFT)
    axis.set(xlabel="sent per frame, kB", ylabel="frames")
    return _png(figure)


def _link(axis: Axes, view: View) -> None:
    rows = list(view.link_rows())
    edges = [rows[0][0], *(end for _, end, _ in rows)]
    rates = np.array([rate * _MBPS for *_, rate in rows])
    axis.stairs(rates, edges, fill=True, color="#C9D7E3", baseline=1e-3)
    axis.stairs(rates, edges, color="#4A6A85", linewidth=1.0, baseline=None)
    estimate = view.column("goodput_Bps") * _MBPS
    if not np.isnan(estimate).all():
        axis.plot(view.time_s, estimate, color="#009E73", linewidth=1.2)
        axis.set_title("filled: the trace    green: the device's estimate", loc="left", fontsize=9, color=_SOFT)
    floor = float(rates[rates > 0].min()) if (rates > 0).any() else 0.01
    axis.set(yscale="log", ylim=(floor / 2, float(rates.max()) * 2 or 1.0))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylabel("uplink, Mbit/s")
    for begin, end in view.outages():
        if end - begin > 0.04 * view.end_s:
            axis.annotate(
                f"outage, {end - begin:.0f} s", ((begin + end) / 2, 0.5), xycoords=("data", "axes fraction"),
                ha="center", va="center", color=_SOFT,
            )  # fmt: skip


def _latency(axis: Axes, view: View) -> None:
    for source, latency_ms in _by_source(view, view.column("latency_s") * 1e3).items():
        axis.plot(
            _by_source(view, view.time_s)[source], latency_ms, "x" if source is Source.NONE else "o",
            color=SOURCE_COLOUR[source], markersize=_marker(view), label=SOURCE_NAME[source], markeredgewidth=0.8,
        )  # fmt: skip
    deadline_ms = view.header.deadline_s * 1e3
    axis.axhline(deadline_ms, color=_INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.annotate("deadline", (0.004, deadline_ms), xycoords=("axes fraction", "data"), va="bottom", fontsize=9)
    axis.set_ylabel("answered after, ms")
    axis.set_ylim(0, 1.22 * max(deadline_ms, float(np.nanmax(view.column("latency_s"))) * 1e3))
    axis.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.98), markerscale=2, borderpad=0)


def _bytes(axis: Axes, view: View) -> None:
    for source, size_bytes in _by_source(view, view.column("bytes_up")).items():
        axis.vlines(_by_source(view, view.time_s)[source], 0, size_bytes / 1e3, color=SOURCE_COLOUR[source], lw=1.0)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("sent, kB")


def _width(axis: Axes, view: View) -> None:
    widths = view.column("width")
    for source, values in _by_source(view, widths).items():
        axis.plot(
            _by_source(view, view.time_s)[source], values, "|", color=SOURCE_COLOUR[source], markersize=9,
            markeredgewidth=1.0,
        )  # fmt: skip
    known = sorted(set(widths[~np.isnan(widths)].tolist()))
    axis.set_yticks(known, [f"{width:g}" for width in known])
    axis.set_ylim(min(known, default=0) - 0.15, max(known, default=1) + 0.15)
    axis.set_ylabel("head's width")


def _by_source(view: View, values: Floats) -> Mapping[Source, Floats]:
    sources = np.array([record.source.value for record in view.records])
    return {source: values[sources == source.value] for source in SOURCE_COLOUR if (sources == source.value).any()}


def _rolling(time_s: Floats, values: Floats, window_s: float) -> tuple[Floats, Floats]:
    known = ~np.isnan(values)
    time_s, values = time_s[known], values[known]
    total = np.concatenate([[0.0], np.cumsum(values)])
    full = np.searchsorted(time_s, window_s) if len(time_s) and time_s[-1] > window_s else 0
    last = np.arange(1, len(time_s) + 1)[full:]
    first = np.searchsorted(time_s, time_s[full:] - window_s, side="right")
    return time_s[full:], (total[last] - total[first]) / (last - first)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Two labels' heights, moved so that neither covers the other."""
    first, second = heights
    if abs(first - second) >= gap:
        return [first, second]
    middle, sign = (first + second) / 2, 1 if first >= second else -1
    return [middle + sign * gap / 2, middle - sign * gap / 2]


def _marker(view: View) -> float:
    return float(np.clip(120 / np.sqrt(len(view.records) + 1), 1.2, 4.5))


def _shade(axis: Axes, view: View) -> None:
    for begin, end in view.outages():
        axis.axvspan(begin, end, color=_OUTAGE, linewidth=0, zorder=0)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#BBBBBB")
    axis.tick_params(colors=_SOFT, labelcolor=_INK, labelsize=9)
    axis.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axis.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
