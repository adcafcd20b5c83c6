"""A run's report: figures, plots and one page that holds them all and loads nothing. Pure but for what it writes.

write(folder, header, records, trace) -> folder/index.html
  folder/summary.json                 the header and every figure of the page
  folder/{timeline,accuracy,latency,bytes,reliability}.png, or in whatever forms are asked for
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.figure import Figure

from isthmus.emulation import traces
from isthmus.emulation.reports import figure_style, page, provenance, run_plots
from isthmus.emulation.reports.figure_style import Form, Plot, Sheet
from isthmus.emulation.reports.page import Row
from isthmus.emulation.run_summary import Summary, battery_h, summary
from isthmus.emulation.traces import AnyTrace, PacketTrace, Trace
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, RunHeader


def write(
    folder: Path,
    header: RunHeader,
    records: Sequence[FrameRecord],
    trace: AnyTrace | None = None,
    *,
    forms: Sequence[Form] = ("png",),
    pictures: Sequence[bytes] = (),
) -> Path:
    """Write the report of a run into `folder`, made if need be; returns the page. Raises DataError.

    `trace` is what the run's link replayed, for the panel above the decisions; without one, or where it does not know its
    uplink, that panel shows what the device believed alone. `forms` are those of the plots' own files. `pictures` are answers
    drawn on the frames that they are of, as JPEG.
    """
    view = run_plots.View(header, records, uplink(trace)) if records else None
    plots = _plots(view, forms) if view else []
    stretches = _stretches(view) if view else {}
    facts = {"header": header, "summary": summary(records), "by_link": stretches}
    return save(folder, _page(header, summary(records), stretches, plots, pictures), plots, facts)


def save(folder: Path, text: str, plots: Sequence[Plot], facts: object) -> Path:
    """A page, its plots and its figures into `folder`; returns the page's path. Raises DataError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
        for picture in plots:
            for form, drawn in picture.files.items():
                (folder / f"{picture.name}.{form}").write_bytes(drawn)
        (folder / "index.html").write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; name another folder for the report") from error
    return folder / "index.html"


def replayed(header: RunHeader) -> tuple[Trace | None, str]:
    """The rates that a run's uplink had, to draw; where they cannot be had, None and why, for its reader.

    A record may come from another machine, whose traces are not here, and a trace of the same name may be another one.
    """
    if header.trace is None:
        return None, ""
    try:
        trace = traces.find(header.trace)
    except DataError:
        return None, f"{header.trace}: is not on this machine, so that the link is not drawn"
    if header.trace_sha256 and trace.sha256 != header.trace_sha256:
        return None, f"{header.trace}: is not what was played (its sha256 differs), so that the link is not drawn"
    rates = uplink(trace.swapped() if header.trace_swapped and isinstance(trace, Trace) else trace)
    return (
        (rates.scaled(header.trace_scale), "") if rates else (None, f"{header.trace}: does not say its uplink's rates")
    )


def uplink(trace: AnyTrace | None) -> Trace | None:
    """A trace as rates to draw; None where its uplink is not known throughout."""
    if isinstance(trace, PacketTrace):  # in whole seconds: at narrow rates, shorter bins would read as outages
        trace = PacketTrace(trace.name, trace.up_ms, None).binned(1.0) if trace.up_ms is not None else None
    return None if trace is None or np.isnan(trace.up_Bps).any() else trace


def _plots(view: run_plots.View, forms: Sequence[Form]) -> list[Plot]:
    grey = "; grey is an outage" if view.outages() else ""
    lost = view.sent_in_vain()
    orange = " Orange bars among the bytes are features that were sent and did not come back as an answer in time."
    words = f"One mark per frame, in the colour of the half that answered{grey}.{orange if lost else ''}"

    def drawn(name: str, title: str, caption: str, draw: Callable[[run_plots.View, Sheet], Figure]) -> Plot:
        return figure_style.plot(name, title, caption, partial(draw, view), forms)

    plots = [drawn("timeline", "What was decided, and under which link", words, run_plots.timeline)]
    if any(record.right is not None for record in view.records):
        words = f"An answer counts when it is right and on time{grey}."
        plots.append(drawn("accuracy", "Accuracy over time", words, run_plots.accuracy))
    plots.append(drawn("latency", "Latency", "From capture to answer.", run_plots.latency_cdf))
    plots.append(drawn("bytes", "Bytes sent", "Payload of the layers, frame by frame.", run_plots.bytes_histogram))
    if any(record.promised is not None for record in view.records):
        words = (
            "What the scheduler expected of the link when it sent, and how often the answer came in time; the larger a "
            "mark, the more frames."
        )
        plots.append(drawn("reliability", "Promised and kept", words, run_plots.reliability))
    return plots


def _stretches(view: run_plots.View) -> dict[str, Summary]:
    """The figures apart for the times with and without a link; nothing when there was no outage."""
    if not view.outages():
        return {}
    down = list(zip(view.records, view.in_outage(), strict=True))
    return {
        "link up": summary([record for record, out in down if not out]),
        "outage": summary([record for record, out in down if out]),
    }


def _page(
    header: RunHeader,
    figures: Summary,
    stretches: Mapping[str, Summary],
    plots: Sequence[Plot],
    pictures: Sequence[bytes],
) -> str:
    return page.page(
        f"{header.kind} run",
        f"{header.bundle} on {header.trace or 'a live link'}, policy {header.policy}",
        _lead(header, figures),
        [
            _tiles(header, figures),
            page.notes(header.notes),
            page.pictures("Answers on the frames that they are of", pictures),
            *(page.figure(picture) for picture in plots),
            page.side_by_side(
                page.table("Who answered", ("source", "frames", "share"), _shares(figures.by_source, figures.frames)),
                page.table("Why", ("reason", "frames", "share"), _shares(figures.by_reason, figures.frames)),
                page.table(
                    "Width of the head", ("width", "frames", "share"), _shares(figures.by_width, figures.frames)
                ),
            ),
            _by_link(stretches),
            page.table("How this run was made", ("", ""), provenance.rows(header), name="manifest"),
        ],
    )


def _lead(header: RunHeader, figures: Summary) -> str:
    if not figures.frames:
        return "No frame was recorded."
    pace = f" at {header.fps:g} a second" if header.fps else ""
    on = f" on {header.profile}" if header.profile else ""
    return f"{figures.frames:,} frames{pace}{on}, each to be answered within {header.deadline_s * 1e3:g} ms."


def _tiles(header: RunHeader, figures: Summary) -> str:
    alone = page.percent(figures.accuracy_local_only)
    unknown = figures.frames - figures.labelled_frames
    latency = f"95 %: {page.milliseconds(figures.latency_p95_s)}, 99 %: {page.milliseconds(figures.latency_p99_s)}"
    each = [
        (page.percent(figures.answered_by_deadline), "answered by the deadline", f"of {figures.frames:,} frames"),
        (page.percent(figures.accuracy), "right and on time", f"the device alone: {alone}"),
        (page.size(figures.bytes_per_frame), "sent per frame", f"{page.size(figures.bytes_up)} in all"),
        (page.milliseconds(figures.latency_p50_s), "median latency", latency),
    ]
    if figures.ap50 is not None:
        each.append((f"{figures.ap50:.3f}", "AP50 on time", "boxes over things by half, in every frame"))
    if figures.kept is not None and figures.promised is not None:
        promised = f"{page.percent(figures.promised)} promised, {figures.promises:,} frames sent"
        each.append((page.percent(figures.kept), "of what was sent came back in time", promised))
    if figures.energy_per_frame_J is not None:
        each.append((page.energy(figures.energy_per_frame_J), "per frame", "above idling, computing and radio"))
    if header.battery is not None and (lasts_h := battery_h(header, figures.energy_per_frame_J)) is not None:
        idle = f"{header.battery.capacity_Wh:g} Wh, of which idling takes {header.battery.idle_W:g} W"
        each.append((page.hours(lasts_h), "the battery lasts", idle))
    if unknown:
        each.append((f"{unknown:,}", "frames of unknown truth", "left out of accuracy"))
    return page.tiles(*each)


def _by_link(stretches: Mapping[str, Summary]) -> str:
    rows = [
        (
            name,
            f"{part.frames:,}",
            page.percent(part.answered_by_deadline),
            page.percent(part.accuracy),
            page.percent(part.accuracy_local_only),
            page.size(part.bytes_per_frame),
        )
        for name, part in stretches.items()
    ]
    columns = ("", "frames", "answered by the deadline", "right and on time", "the device alone", "sent per frame")
    return page.table("With and without a link", columns, rows) if rows else ""


def _shares(counts: Mapping[str, int], frames: int) -> list[Row]:
    return [(name, f"{count:,}", page.percent(count / frames)) for name, count in counts.items()]
