"""The table and the plots of an ablation: every variant against the base of the same seed, at equal bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import matplotlib as mpl
import msgspec

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from isthmus.models.ablation.rows import NARROW_BYTES, WIDE_BYTES, AtWidth, Row
from isthmus.models.ablation.variants import BASE, VARIANTS
from isthmus.proto.colours import OKABE_ITO

DESIGNS = (BASE, "ensemble", "ensemble-concat")
MEASURES: dict[str, Callable[[AtWidth], float | None]] = {
    "unquantised": lambda at: at.unquantised,
    "finest step": lambda at: at.finest,
    f"at {WIDE_BYTES} B": lambda at: at.at_wide,
    f"at {NARROW_BYTES} B": lambda at: at.at_narrow,
    "half the channels": lambda at: at.half_channels,
    "last exit": lambda at: at.last_exit,
}
ALIKE = 0.15
"""FLOPs that differ by no more are compared as equal: an ensemble's narrowest width is no rival of a sliced one's."""
Values = dict[int, float]
"""A measure by seed."""


class Made(msgspec.Struct, frozen=True):
    """The account of how a table was made."""

    command: str
    versions: dict[str, str]
    seeds: tuple[int, ...]
    runs: int


def write(folder: Path, rows: Sequence[Row], *, command: str) -> None:
    """Write `table.md`, `table.csv`, `manifest.json` and the plots (png, svg); each replaces an older one at once."""
    made = Made(
        command=command,
        versions={name: version(name) for name in ("isthmus", "torch", "numpy")},
        seeds=tuple(sorted({row.seed for row in rows})),
        runs=len(rows),
    )
    _replace(folder / "manifest.json", msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    _replace(folder / "table.csv", _csv(rows).encode())
    _replace(folder / "table.md", markdown(rows, command=command).encode())
    for name, figure in (("ingredients", _ingredients(rows)), ("designs", _designs(rows))):
        for suffix in ("png", "svg"):
            figure.savefig(partial := folder / f"{name}.partial.{suffix}")
            partial.replace(folder / f"{name}.{suffix}")
        plt.close(figure)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _csv(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    names = ["variant", "seed", *AtWidth.__struct_fields__]
    table = csv.DictWriter(out, names, lineterminator="\n")
    table.writeheader()
    for row in rows:
        for at in row.widths:
            table.writerow({"variant": row.variant, "seed": row.seed, **msgspec.structs.asdict(at)})
    return out.getvalue()


def values(rows: Sequence[Row], variant: str, width: float, measure: str) -> Values:
    """A measure (accuracy, 0 to 1) of one variant at one width, by seed; seeds that lack it are left out."""
    found = {}
    for row in rows:
        for at in row.widths:
            if (row.variant, at.width) == (variant, width) and (value := MEASURES[measure](at)) is not None:
                found[row.seed] = value
    return found


def changes(rows: Sequence[Row], variant: str, width: float, measure: str) -> Values:
    """What the variant adds to the base of the same seed, in points, by seed; nothing where their FLOPs are not alike."""
    mine, its = (_flops(rows, name).get(width, 0.0) for name in (BASE, variant))
    if abs(its - mine) > ALIKE * mine:
        return {}
    base = values(rows, BASE, width, measure)
    return {s: 100 * (v - base[s]) for s, v in values(rows, variant, width, measure).items() if s in base}


def spread(rows: Sequence[Row], width: float, measure: str) -> float:
    """The distance, in points, of two seeds of one change: the mean of what the variants show. 0 with one seed."""
    found = [changes(rows, name, width, measure).values() for name in VARIANTS if name != BASE]
    return mean([max(c) - min(c) for c in found if len(c) > 1] or [0.0])


def markdown(rows: Sequence[Row], *, command: str) -> str:
    """The table: accuracy of the base, and every variant's change in points, with the seeds' own in brackets."""
    budget, seeds = rows[0].budget, sorted({row.seed for row in rows})
    narrow, full = _ends(rows)
    columns = [(full, m) for m in MEASURES] + [(narrow, "unquantised"), (narrow, f"at {WIDE_BYTES} B")]
    lines = [
        f"`{command}`: the {budget.recipe} recipe with a head of half and a tail of a quarter of the channels, "
        f"{budget.epochs} epochs of {budget.pictures:,} pictures, measured on {budget.tested:,} test pictures, "
        f"seeds {', '.join(map(str, seeds))}. The base in percent; all others as the change to the base of the same "
        "seed in points: mean (each seed), – where it has no such width at like FLOPs. Differences below the spread of "
        "two seeds mean nothing.",
        "",
        "| | " + " | ".join(f"{m}, width {w:g}" for w, m in columns) + " |",
        "|---|" + "---|" * len(columns),
        "| **base** | " + " | ".join(_cell(values(rows, BASE, w, m), 100.0, "") for w, m in columns) + " |",
    ]
    for name, variant in VARIANTS.items():
        if name != BASE and any(row.variant == name for row in rows):
            cells = [_cell(changes(rows, name, w, m), 1.0, "+") for w, m in columns]
            lines.append(f"| {variant.title} (`{name}`) | " + " | ".join(cells) + " |")
    spreads = [f"{spread(rows, w, m):.1f}" for w, m in columns]
    lines.append("| *spread of two seeds* | " + " | ".join(spreads) + " |")
    return "\n".join([*lines, "", *_design_lines(rows)]) + "\n"


def _ends(rows: Sequence[Row]) -> tuple[float, float]:
    widths = {at.width for row in rows if row.variant == BASE for at in row.widths}
    return min(widths, default=1.0), max(widths, default=1.0)


def _cell(found: Values, factor: float, sign: str) -> str:
    if not found:
        return "–"
    shown = [f"{factor * found[seed]:{sign}.1f}" for seed in sorted(found)]
    middle = f"{factor * mean(found.values()):{sign}.1f}"
    return middle if len(found) == 1 else f"{middle} ({', '.join(shown)})"


def _design_lines(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"| design | width | head MFLOP | unquantised % | at {WIDE_BYTES} B % | at {NARROW_BYTES} B % | last exit % |",
        "|---|---|---|---|---|---|---|",
    ]
    shown = ("unquantised", f"at {WIDE_BYTES} B", f"at {NARROW_BYTES} B", "last exit")
    for name in (*DESIGNS, "separate-narrow", "separate-full"):
        for width, mflop in _flops(rows, name).items():
            cells = [_cell(values(rows, name, width, m), 100.0, "") for m in shown]
            lines.append(f"| {VARIANTS[name].title} | {width:g} | {mflop:.1f} | " + " | ".join(cells) + " |")
    return lines


def _flops(rows: Sequence[Row], variant: str) -> dict[float, float]:
    """The head's MFLOP by width."""
    return {at.width: at.head_mflop for row in rows if row.variant == variant for at in row.widths}


def _ingredients(rows: Sequence[Row]) -> Figure:
    """The change at equal bytes, full width: every seed a dot, their mean a bar."""
    full = _ends(rows)[1]
    names = [n for n in VARIANTS if n != BASE and changes(rows, n, full, "unquantised")]
    names.sort(key=lambda n: mean(changes(rows, n, full, f"at {WIDE_BYTES} B").values() or [0.0]))
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.34 * len(names) + 1.4), dpi=110, sharey=True, squeeze=False)
    for plot, size in zip(axes[0], (WIDE_BYTES, NARROW_BYTES), strict=True):
        measure = f"at {size} B"
        for y, name in enumerate(names):
            found = changes(rows, name, full, measure)
            if found:
                middle = mean(found.values())
                plot.barh(y, middle, height=0.55, color=OKABE_ITO[1] if middle > 0 else OKABE_ITO[3], alpha=0.45)
            for seed, change in found.items():
                plot.plot(change, y, "o", ms=4, color=OKABE_ITO[0] if seed % 2 else OKABE_ITO[2])
        plot.axvspan(-spread(rows, full, measure), spread(rows, full, measure), color="#dddddd", zorder=0)
        plot.axvline(0, lw=0.8, color="#444444")
        plot.set_title(f"at {size} bytes", loc="left", fontsize=10)
        plot.set_xlabel("points above the base of the same seed; grey: spread of two seeds", fontsize=8)
        plot.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(names)), [VARIANTS[n].title for n in names], fontsize=8)
    figure.tight_layout()
    return figure


def _designs(rows: Sequence[Row]) -> Figure:
    """Accuracy at equal bytes against the head's FLOPs: each seed a thin line, networks of their own as diamonds."""
    figure, plot = plt.subplots(figsize=(6.4, 4.2), dpi=110)
    measure = f"at {WIDE_BYTES} B"
    for name, colour in zip(
        (*DESIGNS, "separate-narrow", "separate-full"), (*OKABE_ITO[:3], "#444444", "#444444"), strict=True
    ):
        flops = _flops(rows, name)
        for seed in sorted({row.seed for row in rows if row.variant == name}):
            found = {w: values(rows, name, w, measure).get(seed) for w in flops}
            known = [(flops[w], 100 * v) for w, v in found.items() if v is not None]
            label = VARIANTS[name].title if seed == min(row.seed for row in rows if row.variant == name) else None
            plot.plot(
                [x for x, _ in known],
                [y for _, y in known],
                "D" if len(flops) == 1 else "o-",
                ms=4,
                lw=1,
                color=colour,
                label=label,
            )
    plot.set_xlabel("head, MFLOP a frame")
    plot.set_ylabel(f"accuracy at {WIDE_BYTES} bytes, %")
    plot.spines[["top", "right"]].set_visible(False)
    plot.grid(axis="y", lw=0.4, color="#cccccc")
    plot.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure
