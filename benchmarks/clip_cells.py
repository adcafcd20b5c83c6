"""A sweep over clips, cell by cell: the shipped policy beside the best of its rivals, clip against the same clip.

    isthmus sweep examples/skywatch.toml --out FOLDER
    python benchmarks/clip_cells.py FOLDER … [--out FILE.md]

A cell is a device, a link, a deadline and a load. Frames right: in time, with each thing's class and overlap of a half or
more. All policies of a cell play the same clips at the same moments, so a lead is the mean over clips played of what ours
has right more there, and its error that mean's standard error. The best rival is taken cell by cell from a detector
on every frame, a tracker and WebP; the others stand beside them. AP50 is of the boxes in time, the mean over seeds.
Prints the table in Markdown; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from isthmus.emulation import run_summary, sweep
from isthmus.proto import record
from isthmus.proto.record import Run

OURS, RIVALS, BESIDE = "expected-utility", ("local-only", "tracker-only", "always-webp"), ("untracked", "approxdet")


class Cell(NamedTuple):
    """What the policies of one row have in common."""

    profile: str
    link: str
    deadline_ms: int
    load: str

    @classmethod
    def of(cls, run: Run) -> Cell:
        """That of a run; the load stands in the scenario's name, where sweeps say what no field of a header does."""
        said = dict(word.split("=") for word in (run.header.scenario or "").split() if "=" in word)
        profile, link = run.header.profile or "", Path(run.header.trace or "").stem
        return cls(profile, link, round(run.header.deadline_s * 1e3), f"{float(said.get('load', 1)):g}")


class Played(NamedTuple):
    """One policy in one cell."""

    right: dict[tuple[int, str], float]
    """By seed and clip, the share of frames right."""
    frames: Counter[tuple[int, str]]
    ap50: float
    widths: Counter[str]
    sources: Counter[str]

    @property
    def accuracy(self) -> float:
        """The share of all frames."""
        return sum(self.right[key] * n for key, n in self.frames.items()) / sum(self.frames.values())

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Played:
        """The runs of all seeds."""
        right: dict[tuple[int, str], list[bool]] = defaultdict(list)
        widths, sources, ap50 = Counter[str](), Counter[str](), []
        for run in runs:
            ap50.append(run_summary.summary(run.records).ap50 or 0.0)
            for r in run.records:
                clip = (r.picture or "").split(" #")[0]
                right[run.header.seed or 0, clip].append(bool(r.right))
                widths[f"{r.width:g}" if r.width is not None else "-"] += 1
                sources[r.source.value] += 1
        return cls(
            {key: mean(rows) for key, rows in right.items()},
            Counter({key: len(rows) for key, rows in right.items()}),
            mean(ap50),
            widths,
            sources,
        )


def lead(ours: Played, rival: Played) -> tuple[float, float]:
    """By how much ours is ahead, and the standard error of that, clips weighed by their frames."""
    total, n = sum(ours.frames.values()), len(ours.frames)
    parts = [(ours.right[key] - rival.right[key]) * frames / total for key, frames in ours.frames.items()]
    return sum(parts), stdev(parts) * n**0.5 if n > 1 else 0.0


def table(cells: dict[Cell, dict[str, Played]]) -> tuple[list[str], dict[str, object]]:
    """The rows in Markdown, and what they come to."""
    names = [name for name in (*RIVALS, *BESIDE) if all(name in row for row in cells.values())]
    asked = [name for name in names if name in RIVALS]
    rows = [
        f"| device | link | ms | load | {OURS} | {' | '.join(names)} | lead | AP50 | its lead |",
        "|---|---|--:|--:|" + "--:|" * (len(names) + 4),
    ]
    leads, ap_leads, below, widths = [], [], [], Counter[str]()
    for cell, row in sorted(cells.items()):
        ours = row[OURS]
        best = max(asked, key=lambda name: row[name].accuracy)
        ahead, error = lead(ours, row[best])
        ap_lead = ours.ap50 - max(row[name].ap50 for name in asked)
        leads.append(ahead)
        ap_leads.append(ap_lead)
        widths += ours.widths
        if ahead < -error:
            below.append(" ".join(map(str, cell)))
        shown = [f"**{row[name].accuracy:.3f}**" if name == best else f"{row[name].accuracy:.3f}" for name in names]
        rows.append(
            f"| {' | '.join(map(str, cell))} | {ours.accuracy:.3f} | {' | '.join(shown)} "
            f"| {ahead:+.3f} ± {error:.3f} | {ours.ap50:.3f} | {ap_lead:+.3f} |"
        )
    shares = {width: round(n / sum(widths.values()), 3) for width, n in sorted(widths.items())}
    return rows, {
        "cells": len(leads),
        "frames_right": round(mean(row[OURS].accuracy for row in cells.values()), 4),
        "lead": round(mean(leads), 4),
        "least_lead": round(min(leads), 4),
        "ap50": round(mean(row[OURS].ap50 for row in cells.values()), 4),
        "ap50_lead": round(mean(ap_leads), 4),
        "least_ap50_lead": round(min(ap_leads), 4),
        "below_beyond_error": below,
        "widths": shares,
    }


def by_link(cells: dict[Cell, dict[str, Played]]) -> list[str]:
    """Means by device and link: what the whole table comes to, in a few rows."""
    names = [name for name in (OURS, *RIVALS, *BESIDE) if all(name in row for row in cells.values())]
    rows = [
        f"| device | link | {' | '.join(names)} | {' | '.join(f'AP50 {name}' for name in names)} |",
        "|---|---|" + "--:|" * 2 * len(names),
    ]
    for profile, link in sorted({(cell.profile, cell.link) for cell in cells}):
        here = [row for cell, row in cells.items() if (cell.profile, cell.link) == (profile, link)]
        right = [f"{mean(row[name].accuracy for row in here):.3f}" for name in names]
        ap50 = [f"{mean(row[name].ap50 for row in here):.3f}" for name in names]
        rows.append(f"| {profile} | {link} | {' | '.join(right)} | {' | '.join(ap50)} |")
    return rows


def main() -> None:
    """Read a sweep's folder and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of sweeps: seeds may be played one after the other")
    parser.add_argument("--out", type=Path, help="write both tables here, too")
    options = parser.parse_args()
    runs: dict[tuple[Cell, str], dict[int, Run]] = defaultdict(dict)
    for file in (file for folder in options.folders for file in sweep.files(folder)):
        run = record.load(file)
        runs[Cell.of(run), run.header.policy or ""][run.header.seed or 0] = run
    cells: dict[Cell, dict[str, Played]] = defaultdict(dict)
    for (cell, policy), by_seed in runs.items():
        cells[cell][policy] = Played.of(list(by_seed.values()))
    whole = {cell: row for cell, row in cells.items() if OURS in row and any(name in row for name in RIVALS)}
    rows, sums = table(whole)
    text = "\n".join([*by_link(whole), "", *rows])
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    print(json.dumps(sums))


if __name__ == "__main__":
    main()
