"""A run's report: figures, pictures and one page that holds them all and loads nothing. Pure but for what it writes.

write(folder, header, records, trace) -> folder/index.html
  folder/summary.json                 the header and every figure of the page
  folder/{timeline,accuracy,latency,bytes}.png
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import msgspec
import numpy as np

from isthmus.emulation import plots
from isthmus.emulation.traces import AnyTrace, PacketTrace, Trace
from isthmus.proto.errors import DataError
from isthmus.proto.record import FrameRecord, RunHeader, Summary, summary

Row = Sequence[str]
_TITLES = {
    "timeline": (
        "What was decided, and under which link",
        "One mark per frame, in the colour of the half that answered; grey is an outage. Orange bars among the bytes "
        "are features that were sent and did not come back as an answer in time.",
    ),
    "accuracy": ("Accuracy over time", "An answer counts when it is right and on time."),
    "latency": ("Latency", "From capture to answer."),
    "bytes": ("Bytes sent", "Payload of the layers, frame by frame."),
}


def write(folder: Path, header: RunHeader, records: Sequence[FrameRecord], trace: AnyTrace | None = None) -> Path:
    """Write the report of a run into `folder`, made if need be; returns the page. Raises DataError.

    `trace` is what the run's link replayed, for the panel above the decisions; None leaves that panel out, and so does
    an uplink that the trace does not know.
    """
    view = plots.View(header, records, _uplink(trace)) if records else None
    pictures = _pictures(view) if view else {}
    stretches = _stretches(view) if view else {}
    facts = {"header": header, "summary": summary(records), "by_link": stretches}
    page = _page(header, summary(records), stretches, pictures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
        for name, picture in pictures.items():
            (folder / f"{name}.png").write_bytes(picture)
        (folder / "index.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; name another folder for the report") from error
    return folder / "index.html"


def _uplink(trace: AnyTrace | None) -> Trace | None:
    if isinstance(trace, PacketTrace):  # in whole seconds: at narrow rates, shorter bins would read as outages
        return PacketTrace(trace.name, trace.departures_ms("up"), None).binned(1.0)
    return None if trace is None or np.isnan(trace.up_Bps).any() else trace


def _pictures(view: plots.View) -> dict[str, bytes]:
    drawn = {"timeline": plots.timeline(view)}
    if any(record.truth is not None for record in view.records):
        drawn["accuracy"] = plots.accuracy(view)
    return drawn | {"latency": plots.latency_cdf(view), "bytes": plots.bytes_histogram(view)}


def _stretches(view: plots.View) -> dict[str, Summary]:
    """The figures apart for the times with and without a link; nothing when there was no outage."""
    if not view.outages():
        return {}
    down = list(zip(view.records, view.in_outage(), strict=True))
    return {
        "link up": summary([record for record, out in down if not out]),
        "outage": summary([record for record, out in down if out]),
    }


def _page(header: RunHeader, figures: Summary, stretches: Mapping[str, Summary], pictures: Mapping[str, bytes]) -> str:
    title = f"{header.bundle} on {header.trace or 'a live link'}, policy {header.policy}"
    body = [
        f"<header><p>Isthmus · {escape(header.kind)} run</p><h1>{escape(title)}</h1>{_lead(header, figures)}</header>",
        f'<section class="tiles">{"".join(_tiles(figures))}</section>',
        _notes(header),
        *(_figure(name, picture) for name, picture in pictures.items()),
        '<section class="tables">',
        _table("Who answered", ("source", "frames", "share"), _shares(figures.by_source, figures.frames)),
        _table("Why", ("reason", "frames", "share"), _shares(figures.by_reason, figures.frames)),
        _table("Width of the head", ("width", "frames", "share"), _shares(figures.by_width, figures.frames)),
        "</section>",
        _by_link(stretches),
        _manifest(header),
    ]
    return _SHELL.format(title=escape(title), body="\n".join(part for part in body if part))


def _lead(header: RunHeader, figures: Summary) -> str:
    if not figures.frames:
        return "<p>No frame was recorded.</p>"
    return (
        f"<p>{figures.frames:,} frames at {header.fps:g} a second, each to be answered within "
        f"{header.deadline_s * 1e3:g} ms.</p>"
    )


def _tiles(figures: Summary) -> Iterable[str]:
    alone = _percent(figures.accuracy_local_only)
    unknown = figures.frames - figures.labelled_frames
    yield _tile(_percent(figures.answered_by_deadline), "answered by the deadline", f"of {figures.frames:,} frames")
    yield _tile(_percent(figures.accuracy), "right and on time", f"the device alone: {alone}")
    yield _tile(_kilobytes(figures.bytes_per_frame), "sent per frame", f"{_kilobytes(figures.bytes_up)} in all")
    yield _tile(
        _milliseconds(figures.latency_p50_s),
        "median latency",
        f"95 %: {_milliseconds(figures.latency_p95_s)}, 99 %: {_milliseconds(figures.latency_p99_s)}",
    )
    if unknown:
        yield _tile(f"{unknown:,}", "frames of unknown truth", "left out of accuracy")


def _tile(figure: str, name: str, more: str) -> str:
    return f"<div><b>{escape(figure)}</b><span>{escape(name)}</span><small>{escape(more)}</small></div>"


def _notes(header: RunHeader) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in header.notes)}</ul>'


def _figure(name: str, picture: bytes) -> str:
    title, caption = _TITLES[name]
    data = base64.b64encode(picture).decode()
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f'<figure class="{name}"><h2>{title}</h2>{image}<figcaption>{caption}</figcaption></figure>'


def _by_link(stretches: Mapping[str, Summary]) -> str:
    rows = [
        (
            name,
            f"{part.frames:,}",
            _percent(part.answered_by_deadline),
            _percent(part.accuracy),
            _percent(part.accuracy_local_only),
            _kilobytes(part.bytes_per_frame),
        )
        for name, part in stretches.items()
    ]
    columns = ("", "frames", "answered by the deadline", "right and on time", "the device alone", "sent per frame")
    return _table("With and without a link", columns, rows) if rows else ""


def _manifest(header: RunHeader) -> str:
    facts = msgspec.to_builtins(header)
    host = facts.pop("host")
    del facts["notes"]  # they stand above the pictures
    rows = [(name, "" if value is None else str(value)) for name, value in facts.items()]
    rows += [(f"host: {name}", str(value)) for name, value in host.items()]
    return f'<div class="manifest">{_table("How this run was made", ("", ""), rows)}</div>'


def _table(title: str, columns: Row, rows: Iterable[Row]) -> str:
    def line(tag: str, cells: Row) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head = f"<thead>{line('th', columns)}</thead>" if any(columns) else ""
    body = "".join(line("td", row) for row in rows)
    return f"<div><h2>{escape(title)}</h2><table>{head}<tbody>{body}</tbody></table></div>"


def _shares(counts: Mapping[str, int], frames: int) -> list[Row]:
    return [(name, f"{count:,}", _percent(count / frames)) for name, count in counts.items()]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _kilobytes(size_bytes: float | None) -> str:
    if size_bytes is None:
        return "unknown"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.2f} kB"


def _milliseconds(time_s: float | None) -> str:
    return "unknown" if time_s is None else f"{time_s * 1e3:.1f} ms"


_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color: #222; background: #fff; font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }}
.tiles b, table {{ font-variant-numeric: tabular-nums; }}
body {{ max-width: 68rem; margin: 2rem auto 4rem; padding: 0 1.2rem; }}
header p {{ margin: 0; color: #666; }}
h1 {{ margin: .1rem 0 .3rem; font-size: 1.7rem; line-height: 1.25; }}
h2 {{ margin: 0 0 .4rem; font-size: 1.05rem; }}
.tiles, .tables {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); }}
.tiles {{ gap: .8rem; margin: 1.5rem 0 1.2rem; }}
.tiles div {{ border: 1px solid #ddd; border-top: 3px solid #0072b2; border-radius: 4px; padding: .7rem 1rem .8rem; }}
.tiles b {{ font-size: 1.65rem; font-weight: 600; line-height: 1.3; }}
.tiles b, .tiles span, .tiles small {{ display: block; }}
.tiles small, figcaption, .notes {{ color: #666; font-size: .85rem; }}
.notes {{ margin: 0 0 2rem; padding-left: 1.1rem; }}
figure {{ margin: 0 0 2.2rem; }}
figure img {{ display: block; width: 100%; height: auto; }}
figure.latency, figure.bytes {{ display: inline-block; width: calc(50% - .7rem); vertical-align: top; }}
figure.latency {{ margin-right: 1rem; }}
.tables {{ gap: 1.5rem 2rem; margin-bottom: 2rem; }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 2rem; font-size: .92rem; }}
.tables table {{ margin: 0; }}
th, td {{ padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #e6e6e6; text-align: right; font-weight: 400; }}
th {{ color: #666; font-size: .85rem; }}
th:first-child, td:first-child, .manifest td {{ text-align: left; }}
.manifest td:first-child {{ color: #666; white-space: nowrap; width: 11rem; vertical-align: top; }}
.manifest td {{ overflow-wrap: anywhere; }}
@media (max-width: 42rem) {{ figure.latency, figure.bytes {{ display: block; width: 100%; }} }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
