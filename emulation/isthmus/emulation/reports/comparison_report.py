"""A comparison's page: who was right and on time, at what cost, and what became of the frames. Pure but for what it writes.

write(folder, comparison) -> folder/index.html
  folder/summary.json                        every figure of the page, and how each run was made
  folder/{accuracy,tradeoff,cost,latencies,timeline-N}.png, or in whatever forms are asked for
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from isthmus.emulation.policies import BOUNDS, CLAIRVOYANT, TRACE_CLAIRVOYANT
from isthmus.emulation.reports import comparison_plots as plots
from isthmus.emulation.reports import figure_style, page, provenance
from isthmus.emulation.reports.comparison import LEAST_GAIN, LOCAL_ONLY, Comparison, Player, RunConditions
from isthmus.emulation.reports.figure_style import Draw, Form, Plot
from isthmus.emulation.reports.page import Row
from isthmus.emulation.reports.run_report import replayed, save

MOST_TIMELINES = 4
"""Settings that get a timeline: those in which the policies differ most."""
MOST_NOTES = 6
"""Notes of the runs that are shown; the others are in summary.json."""
FOLD_ROWS = 40
"""A table that is longer than a screen is folded."""
_NONE = "–"


def write(folder: Path, comparison: Comparison, *, forms: Sequence[Form] = ("png",)) -> Path:
    """Write the report of runs against each other into `folder`, made if need be; returns the page. Raises DataError.

    `forms` are those of the plots' own files.
    """
    plots, notes = _plots(comparison, forms)
    return save(folder, _page(comparison, plots, notes), plots, facts(comparison))


def facts(comparison: Comparison) -> dict[str, object]:
    """The figures, for programs: shares 0 to 1, SI units, None for unknown."""
    return {
        "entries": [
            {
                "setting": setting._asdict(),
                "policy": who.policy,
                "kind": who.kind,
                "runs": len(entry.runs),
                "frames": entry.frames,
                "accuracy": entry.accuracy,
                "ap50": entry.ap50,
                "accuracy_range": entry.accuracy_range,
                "fair_share": comparison.recovered(setting, who, TRACE_CLAIRVOYANT),
                "recovered": comparison.recovered(setting, who, CLAIRVOYANT),
                "answered_by_deadline": entry.answered_by_deadline,
                "latency_p50_s": entry.latency_s(0.5),
                "latency_p95_s": entry.latency_s(0.95),
                "bytes_per_frame": entry.bytes_per_frame,
                "energy_per_frame_J": entry.energy_per_frame_J,
                "battery_h": entry.battery_h,
            }
            for setting, playing in comparison.entries.items()
            for who, entry in playing.items()
        ],
        "runs": [{"file": str(digest.path), "header": digest.header} for digest in comparison.digests],
    }


def _plots(comparison: Comparison, forms: Sequence[Form]) -> tuple[list[Plot], list[str]]:
    """The plots, and what their reader must know of what is not on them."""
    many = len(comparison.settings) > 1
    each = (
        f"A dot is one {'setting' if many else 'run'}, a bar stands for all. "
        if len(comparison.digests) > len(comparison.players)
        else ""
    )

    def drawn(name: str, title: str, caption: str, draw: Draw) -> Plot:
        return figure_style.plot(name, title, caption, draw, forms)

    found = []
    if scales := plots.accuracy_scales(comparison):
        caption = each + _accuracy_caption(comparison)
        found.append(
            drawn("accuracy", "Accuracy within the deadline", caption, partial(plots.dots, comparison, scales))
        )
    if len(plots.placed(comparison)) > 1:
        caption = "Up and to the left is better: more answers right and on time, fewer bytes sent for them."
        found.append(drawn("tradeoff", "Accuracy over bytes", caption, partial(plots.tradeoff, comparison)))
    if scales := plots.cost_scales(comparison):
        caption = f"{each}Energy is the device's, above idling, where known."
        found.append(drawn("cost", "What it cost", caption, partial(plots.dots, comparison, scales)))
    caption = "Each policy in colour over all others in grey; the dashed line is the deadline."
    found.append(drawn("latencies", "Latency, from capture to answer", caption, partial(plots.latency, comparison)))
    notes = []
    for number, setting in enumerate(_most_telling(comparison), start=1):
        trace, why_not = replayed(next(iter(comparison.entries[setting].values())).runs[0].header)
        notes += [why_not] if why_not else []
        title = f"What became of the frames: {comparison.label(setting)}" if many else "What became of the frames"
        strips = partial(plots.timeline, comparison, setting, trace)
        found.append(drawn(f"timeline-{number}", title, _strip_caption(comparison, setting), strips))
    return found, notes


_KNOWS = {
    TRACE_CLAIRVOYANT: "The trace-clairvoyant knows the network, and of a picture no more than the device can see",
    CLAIRVOYANT: "The clairvoyant knows the trace, and which answers are right, and bounds what can be reached",
}


def _accuracy_caption(comparison: Comparison) -> str:
    shares = any(comparison.recovered_in_each(who) for who in comparison.players)
    caption = "An answer counts when it is right and on time."
    if shares:
        caption += (
            f" {_KNOWS[comparison.yardstick]}: 0 % of its gain is {LOCAL_ONLY}, 100 % the {comparison.yardstick}; "
            f"settings in which it gains less than {100 * LEAST_GAIN:g} points are left out."
        )
    return caption


def _strip_caption(comparison: Comparison, setting: RunConditions) -> str:
    known = any(entry.accuracy is not None for entry in comparison.entries[setting].values())
    fates = (
        "Blue: right from the server, in time. Orange: right from an early exit. Grey: wrong. Red: nothing in time."
        if known
        else "Blue: from the server, in time. Orange: from an early exit. Red: nothing in time."
    )
    several = any(len(entry.runs) > 1 for entry in comparison.entries[setting].values())
    return fates + (" The first run of each policy is shown." if several else "")


def _most_telling(comparison: Comparison) -> list[RunConditions]:
    """The settings in which policies differed most, in the order of the page."""

    def spread(setting: RunConditions) -> float:
        known = [entry.accuracy for entry in comparison.entries[setting].values() if entry.accuracy is not None]
        return max(known) - min(known) if known else 0.0

    with_frames = [s for s in comparison.settings if any(entry.frames for entry in comparison.entries[s].values())]
    chosen = sorted(with_frames, key=spread, reverse=True)[:MOST_TIMELINES]
    return [setting for setting in with_frames if setting in chosen]


def _page(comparison: Comparison, plots: Sequence[Plot], notes: Sequence[str]) -> str:
    shown = {picture.name: page.figure(picture) for picture in plots}
    policies, settings = len({who.policy for who in comparison.players}), len(comparison.settings)
    what = f"{policies} policies" if policies > 1 else f"Policy {comparison.players[0].policy}"
    where = f"in {settings} settings" if settings > 1 else f"on {comparison.settings[0].words(('scenario', 'trace'))}"
    return page.page(
        f"{' and '.join(comparison.kinds)} runs, compared",
        f"{what} {where}",
        _lead(comparison),
        [
            _tiles(comparison),
            page.notes([*_notes(comparison), *notes]),
            shown.pop("accuracy", ""),
            _matrix(comparison),
            *shown.values(),
            _settings(comparison),
            _figures(comparison),
            _virtual_beside_real(comparison),
            _manifest(comparison),
        ],
    )


def _lead(comparison: Comparison) -> str:
    frames = sum(digest.figures.frames for digest in comparison.digests)
    return "; ".join(
        part for part in (f"{len(comparison.digests):,} runs, {frames:,} frames", comparison.common) if part
    )


def _tiles(comparison: Comparison) -> str:
    def mean(who: Player) -> str:
        return page.percent(comparison.mean(who, lambda entry: entry.accuracy))

    causal = [who for who in comparison.players if who.policy not in BOUNDS]
    each = []
    if causal:
        best = causal[0]
        each.append((mean(best), "right and on time", f"{comparison.name(best)}, the best policy here"))
        share, shares = comparison.recovered_in_all(best), comparison.recovered_in_each(best)
        if share is not None:
            over = f"{page.percent(min(shares), 0)} to {page.percent(max(shares), 0)} by setting"
            whose = f"of the {comparison.yardstick}'s gain"
            each.append((page.percent(share, 0), whose, over if len(shares) > 1 else "recovered by it"))
    bound = comparison.yardstick, f"the {comparison.yardstick}, a bound"
    for policy, what in (bound, (LOCAL_ONLY, "local-only, the device alone")):
        each += [(mean(who), "right and on time", what) for who in comparison.players if who.policy == policy][:1]
    return page.tiles(*each)


def _notes(comparison: Comparison) -> list[str]:
    """What the runs say of themselves, each thing once, and what their files say."""
    said = list(dict.fromkeys(note for digest in comparison.digests for note in digest.header.notes))
    if len(said) > MOST_NOTES:
        said = [*said[:MOST_NOTES], f"and {len(said) - MOST_NOTES} more, in summary.json"]
    cut = [f"{d.path}: the last line was cut short and is left out" for d in comparison.digests if d.cut_lines]
    versions = sorted({digest.header.version for digest in comparison.digests if digest.header.version})
    mixed = [f"made by several versions of Isthmus: {', '.join(versions)}"] if len(versions) > 1 else []
    played = {len(playing) for playing in comparison.entries.values()}
    holes = ["not every policy has played in every setting: means are over those that it has played"]
    return [*(holes if played != {len(comparison.players)} else []), *said, *cut, *mixed]


def _matrix(comparison: Comparison) -> str:
    """Accuracy by setting and policy; the tint is the share of the yardstick's gain."""
    if len(comparison.settings) < 2:
        return ""
    rows, shades = [], []
    for setting, playing in comparison.entries.items():
        rows.append(
            [
                comparison.label(setting),
                *(_cell(page.percent(playing[w].accuracy)) if w in playing else _NONE for w in comparison.players),
            ]
        )
        shares = [comparison.recovered(setting, w) if w in playing else None for w in comparison.players]
        shades.append(["", *(_tint(share) for share in shares)])
    columns = ["", *(comparison.name(who) for who in comparison.players)]
    tinted = any(any(row) for row in shades)
    stronger = f"; the stronger the tint, the more of the {comparison.yardstick}'s gain" if tinted else ""
    title = f"Right and on time, by setting{stronger}"
    return page.table(title, columns, rows, shades=shades)


def _settings(comparison: Comparison) -> str:
    """What each setting is, where a name alone does not say it."""
    varying = comparison.varying
    if len(varying) < 2:
        return ""
    rows = [[s.words([field]) or _NONE for field in varying] for s in comparison.settings]
    names = [field.removesuffix("_s").replace("_", " ") for field in varying]
    return page.table("The settings", names, rows)


def _cell(text: str) -> str:
    return _NONE if text == "unknown" else text


def _tint(share: float | None) -> str:
    return f"rgba(0,114,178,{0.55 * min(share, 1.0):.2f})" if share is not None and share > 0 else ""


def _figures(comparison: Comparison) -> str:
    columns = (
        "setting", "policy", "runs", "frames", "right and on time", "of the runs", "AP50 on time",
        f"of the {comparison.yardstick}'s gain", "answered by the deadline", "latency, median", "95 %", "sent per frame",
        "energy per frame", "battery lasts",
    )  # fmt: skip
    rows: list[Row] = []
    for setting, playing in comparison.entries.items():
        for who in (w for w in comparison.players if w in playing):
            entry = playing[who]
            span = entry.accuracy_range if len(entry.runs) > 1 else None
            share = comparison.recovered(setting, who)
            cells = (
                comparison.label(setting), comparison.name(who), f"{len(entry.runs):,}", f"{entry.frames:,}",
                page.percent(entry.accuracy), f"{page.percent(span[0])} to {page.percent(span[1])}" if span else _NONE,
                _NONE if entry.ap50 is None else f"{entry.ap50:.3f}",
                _NONE if share is None else page.percent(share, 0), page.percent(entry.answered_by_deadline),
                page.milliseconds(entry.latency_s(0.5)), page.milliseconds(entry.latency_s(0.95)),
                page.size(entry.bytes_per_frame), page.energy(entry.energy_per_frame_J),
                page.hours(entry.battery_h),
            )  # fmt: skip
            rows.append([_cell(cell) for cell in cells])
    silent = {i for i in range(2, len(columns)) if all(row[i] == _NONE for row in rows)}
    if len(comparison.settings) == 1:
        silent.add(0)
    if all(row[2] == "1" for row in rows):
        silent |= {2, 5}
    kept = [i for i in range(len(columns)) if i not in silent]
    table = page.table("All figures", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    return page.folded(f"All figures, {len(rows)} rows", table) if len(rows) > FOLD_ROWS else table


def _virtual_beside_real(comparison: Comparison) -> str:
    rows: list[Row] = []
    for setting, playing in comparison.entries.items():
        for virtual in (w for w in comparison.players if w in playing and w.kind == "simulated"):
            for real in (w for w in playing if w.policy == virtual.policy and w.kind != "simulated"):
                rows.append(
                    (
                        comparison.label(setting),
                        virtual.policy,
                        page.percent(playing[virtual].accuracy),
                        f"{page.percent(playing[real].accuracy)} ({real.kind})",
                        page.milliseconds(playing[virtual].latency_s(0.5)),
                        page.milliseconds(playing[real].latency_s(0.5)),
                        _cell(page.percent(comparison.agreement(setting, virtual, real))),
                    )
                )
    columns = (
        "setting", "policy", "right and on time, virtual", "real", "median latency, virtual", "real",
        "frames answered in the same way",
    )  # fmt: skip
    return page.table("Virtual beside real", columns, rows) if rows else ""


def _manifest(comparison: Comparison) -> str:
    """How each run was made: what they share once, and the rest in a row for each."""
    fields = provenance.NAMES
    made = [{f: str(getattr(d.header, f) or "") for f in fields} for d in comparison.digests]
    shared = {f: made[0][f] for f in fields if len({run[f] for run in made}) == 1}
    varying = [f for f in fields if f not in shared]
    rows = [
        [
            str(d.path),
            d.header.policy,
            *(run[f][:12] if f.endswith("sha256") else run[f] for f in varying),
            str(d.header.seed),
        ]
        for d, run in zip(comparison.digests, made, strict=True)
    ]
    alike = page.table(
        "How these runs were made",
        ("", ""),
        [(fields[f], value) for f, value in shared.items() if value],
        name="manifest",
    )
    each = page.table("Each run", ("File", "Policy", *(fields[f] for f in varying), "Seed"), rows)
    return alike + page.folded(f"Each of the {len(rows):,} runs", each)
