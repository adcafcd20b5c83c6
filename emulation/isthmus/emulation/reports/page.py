"""The parts that a report's page is made of, and the page itself: one file that loads nothing. Pure: words in, HTML out.

Whatever comes from a file (names, notes, paths) is escaped here, and nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from isthmus.emulation.reports import figure_style
from isthmus.emulation.reports.figure_style import Plot

Row = Sequence[str]


def page(kind: str, title: str, lead: str, body: Iterable[str]) -> str:
    """The whole page; empty parts of the body are left out."""
    head = f"<header><p>Isthmus · {escape(kind)}</p><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>"
    parts = "\n".join([head, *(part for part in body if part)])
    return _SHELL.format(title=escape(title), colours=figure_style.css(), style=_STYLE, body=parts)


def tiles(*each: tuple[str, str, str]) -> str:
    """The figures to see first: (figure, what it is, more)."""
    inner = "".join(
        f"<div><b>{escape(figure)}</b><span>{escape(name)}</span><small>{escape(more)}</small></div>"
        for figure, name, more in each
    )
    return f'<section class="tiles">{inner}</section>'


def notes(lines: Iterable[str]) -> str:
    """What a reader must know; nothing when there is nothing."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">{items}</ul>' if items else ""


def figure(plot: Plot) -> str:
    """A plot under its title and over its caption."""
    return (
        f'<figure class="{escape(plot.name)}"><h2>{escape(plot.title)}</h2>'
        f'<div class="wide">{plot.wide_svg}</div><div class="narrow">{plot.narrow_svg}</div>'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def pictures(title: str, jpegs: Sequence[bytes]) -> str:
    """Photographs side by side under their title; nothing when there are none."""
    coded = (base64.b64encode(jpeg).decode() for jpeg in jpegs)
    inner = "".join(f'<img alt="" src="data:image/jpeg;base64,{text}">' for text in coded)
    return f'<figure class="pictures"><h2>{escape(title)}</h2><div>{inner}</div></figure>' if inner else ""


WIDE_COLUMNS = 5
"""A table of so many columns is wider than a phone, which shows each row as a card: every cell beside its column's name."""


def table(title: str, columns: Row, rows: Iterable[Row], *, name: str = "", shades: Sequence[Row] = ()) -> str:
    """Rows under their columns; `shades`, of the rows' shape, are CSS backgrounds of the cells, '' for none."""
    wide = len(columns) >= WIDE_COLUMNS
    named = [f' data-name="{escape(column)}"' if wide else "" for column in columns]

    def line(cells: Row, shade: Row) -> str:
        styles = (f' style="background:{s}"' if s else "" for s in (*shade, *([""] * (len(cells) - len(shade)))))
        inner = "".join(
            f"<td{name}{style}>{escape(cell)}</td>" for cell, name, style in zip(cells, named, styles, strict=True)
        )
        return f"<tr>{inner}</tr>"

    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    head = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    listed = list(rows)
    body = "".join(line(row, shades[i] if shades else ()) for i, row in enumerate(listed))
    kinds = " ".join(kind for kind in (name, "cards" if wide else "") if kind)
    attribute = f' class="{kinds}"' if kinds else ""
    return (
        f"<div{attribute}><h2>{escape(title)}</h2>"
        f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div></div>'
    )


def side_by_side(*tables: str) -> str:
    """Small tables beside one another, where there is room."""
    return f'<section class="tables">{"".join(tables)}</section>'


def folded(summary: str, inner: str) -> str:
    """What most readers pass over, behind its name."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def percent(share: float | None, places: int = 1) -> str:
    """'85.6 %'."""
    return "unknown" if share is None else f"{100 * share:.{places}f} %".replace("-", "−")


def size(size_bytes: float | None) -> str:
    """'88 B', '1.20 kB', '3.45 MB'."""
    if size_bytes is None:
        return "unknown"
    for per, unit in ((1e6, "MB"), (1e3, "kB")):
        if size_bytes >= per:
            return f"{size_bytes / per:.2f} {unit}"
    return f"{size_bytes:.0f} B"


def milliseconds(time_s: float | None) -> str:
    """'50.1 ms'."""
    return "unknown" if time_s is None else f"{time_s * 1e3:.1f} ms"


def hours(time_h: float | None) -> str:
    """'7.4 h'."""
    return "unknown" if time_h is None else f"{time_h:.3g} h"


def energy(energy_J: float | None) -> str:
    """'12.3 mJ'."""
    return "unknown" if energy_J is None else f"{energy_J * 1e3:.3g} mJ"


_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --sans: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  --text: var(--c222222); --soft: var(--c6b6b6b); --rule: var(--cececec); --accent: var(--c0072b2);
  color: var(--text); background: var(--paper); font: 16px/1.5 var(--sans); }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; } }
body { max-width: 63rem; margin: 2rem auto 4rem; padding: 0 1.1rem; }
header p { margin: 0; color: var(--soft); }
h1 { margin: .1rem 0 .3rem; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 .4rem; font-size: 1.05rem; }
table, .tiles b { font-variant-numeric: tabular-nums; }
.tiles, .tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); }
.tiles { gap: .2rem 2rem; margin: 1.5rem 0 1.4rem; }
.tiles div { border-top: 2px solid var(--accent); padding: .5rem 0 .7rem; }
.tiles b { font-size: 1.65rem; font-weight: 600; line-height: 1.3; }
.tiles b, .tiles span, .tiles small { display: block; }
.tiles small, figcaption, .notes { color: var(--soft); font-size: .85rem; }
.notes { margin: 0 0 2rem; padding-left: 1.1rem; }
figure { margin: 0 0 2.4rem; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
figcaption { max-width: 46rem; margin-top: .3rem; }
.pictures div { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .6rem; }
.pictures img { display: block; width: 100%; height: auto; }
.narrow { display: none; max-width: 30rem; }
figure.latency, figure.bytes { display: inline-block; width: calc(50% - .7rem); vertical-align: top; }
figure.latency { margin-right: 1rem; }
.tables { gap: 1.5rem 2rem; margin-bottom: 2rem; }
.scroll { overflow-x: auto; margin-bottom: 2rem; }
.tables .scroll { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; font-weight: 400; white-space: nowrap; }
th { color: var(--soft); font-size: .82rem; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.manifest td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.manifest td:first-child { color: var(--soft); white-space: nowrap; width: 11rem; vertical-align: top; }
details { margin-bottom: 1.5rem; } summary { cursor: pointer; margin-bottom: .6rem; color: var(--accent); }
@media (max-width: 42rem) {
  body { margin-top: 1rem; } h1 { font-size: 1.35rem; }
  .wide { display: none; } .narrow { display: block; }
  .tiles { grid-template-columns: 1fr 1fr; gap: .2rem 1.2rem; } .tiles b { font-size: 1.35rem; }
  figure.latency, figure.bytes { display: block; width: 100%; margin-right: 0; }
  .cards thead { display: none; } .cards table, .cards tbody, .cards tr { display: block; }
  .cards tr { padding: .5rem 0; border-bottom: 1px solid var(--rule); }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem .3rem; white-space: normal; }
  .cards td:first-child { padding-left: 0; font-weight: 600; } .cards td:not(:first-child)::before { color: var(--soft); }
  .cards td::before { content: attr(data-name); text-align: left; } .cards td:first-child::before { content: none; }
  .manifest td:first-child { width: 8rem; white-space: normal; }
}
@media print { .scroll { overflow: visible; } details > * { display: block; } }
"""
_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{colours}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
