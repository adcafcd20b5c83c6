"""Policies against the trace-clairvoyant: how much of what could be gained over the device alone does each recover?

    python benchmarks/policies.py [tuning|held-out] [--policies A,B] [--seeds 5] [--seconds 60] [--jobs 2]

For each setting (a trace, narrowed to where the features matter; a bundle, a device, a deadline, frames a second) the fair
share is (right in time - local-only's) / (the trace-clairvoyant's - local-only's), over five seeds together, and beside it
its standard error over the seeds. Tables are counted on one half of the pictures, the other half is replayed. A difference
of less than two standard errors is said to be none. The clairvoyant, who knows which answers are right, is the ceiling.
Constants of the scheduler and of its rivals were chosen on `tuning` alone.

What was played is kept in `--kept` and not played again, until code, bundle or trace change. Traces that are not shipped are
looked for under ISTHMUS_TRACES. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from policy_settings import OLD, SETTINGS, Setting

from isthmus.emulation import policies, sweep, traces
from isthmus.emulation.policies import CLAIRVOYANT, TRACE_CLAIRVOYANT
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual import scenario
from isthmus.models import bundle

TRACES = Path(os.environ.get("ISTHMUS_TRACES", "traces"))
OURS, ALONE = policies.NAMES[0], "local-only"
FEWEST, MOST = 300, 900
"""Frames of a run: enough to count, few enough to wait for."""
CERTAIN = 2.0
"""Standard errors that a difference must have to be one."""
NARROWER = 0.1
"""The share of frames that make a setting one in which the width is a choice."""


class Played(NamedTuple):
    """One policy in one setting with one seed."""

    accuracy: float
    """Right and in time."""
    bytes_per_frame: float
    energy_J: float | None
    narrower: float
    """The share of frames at another than the greatest width."""


def opened(setting: Setting, policy: str, seconds: float, seed: int) -> scenario.Scenario:
    """The scenario of one run."""
    trace = setting.trace if setting.trace in traces.shipped() else str(TRACES / f"{setting.trace}.csv")
    keys = setting._asdict() | {"trace": trace, "policy": policy, "seed": seed}
    keys["deadline_s"] = keys.pop("deadline_ms") / 1e3
    keys["events"] = [event.table for event in setting.events]
    keys["duration_s"] = min(max(seconds, FEWEST / setting.fps), MOST / setting.fps / setting.sessions**0.5)
    return scenario.of(keys)


def played(setting: Setting, policy: str, seconds: float, seed: int) -> Played:
    """Play one run."""
    runs = simulate(opened(setting, policy, seconds, seed))
    records = [record for run in runs for record in run.records]
    spent = [record.energy_J for record in records if record.energy_J is not None]
    widest = max(bundle.load(setting.bundle).manifest.widths)
    return Played(
        mean(bool(record.right) for record in records),
        mean(record.bytes_up for record in records),
        mean(spent) if spent else None,
        mean(record.width is not None and record.width < widest for record in records),
    )


class Kept:
    """What was played before, in a folder, by everything that it depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bundles = {name: bundle.load(name).sha256.hex() for name in ("signs", "cifar10")}
        self._code = sweep.code_sha256()
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, job: Job) -> Path:
        found = opened(*job)
        evidence = repr(found), traces.find(found.trace).sha256, self._bundles[job[0].bundle], self._code
        return self._folder / (hashlib.sha256("\n".join(evidence).encode()).hexdigest()[:20] + ".json")

    def get(self, job: Job) -> Played | None:
        """The run, if it was played."""
        try:
            return Played(*json.loads(self._path(job).read_text()))
        except FileNotFoundError:
            return None

    def put(self, job: Job, run: Played) -> None:
        """Keep a run, whole or not at all."""
        part = self._path(job).with_suffix(".part")
        part.write_text(json.dumps(run))
        part.rename(self._path(job))


Job = tuple[Setting, str, float, int]
Found = dict[tuple[Setting, str], list[Played]]
"""[setting, policy]: a run for each seed."""


def all_played(jobs: Sequence[Job], kept: Kept, processes: int) -> list[Played]:
    """Every run, as far as possible one that was played before."""
    left = [job for job in jobs if kept.get(job) is None]
    if left and processes == 1:
        for n, job in enumerate(left):
            kept.put(job, played(*job))
            _say(n + 1, len(left))
    elif left:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for n, (job, run) in enumerate(zip(left, pool.map(played, *zip(*left, strict=True)), strict=True)):
                kept.put(job, run)
                _say(n + 1, len(left))
    found = [kept.get(job) for job in jobs]
    return [run for run in found if run is not None]


def _say(done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        print(f"{done} of {of} runs played", file=sys.stderr, flush=True)


class Figure(NamedTuple):
    """A mean and its standard error."""

    value: float
    error: float

    @property
    def certain(self) -> float:
        """The value where it is told apart from none; else 0."""
        return self.value if abs(self.value) > CERTAIN * self.error else 0.0


def figure(samples: Sequence[float], value: float | None = None) -> Figure:
    """The mean of one sample a seed, or the value that they vary about."""
    error = stdev(samples) / len(samples) ** 0.5 if len(samples) > 1 else math.inf
    return Figure(mean(samples) if value is None else value, error)


def share(found: Found, settings: Iterable[Setting], policy: str, bound: str = TRACE_CLAIRVOYANT) -> Figure:
    """The share of the bound's gain in all settings together; gains are added up before they are divided."""
    runs = [tuple(found[setting, who] for who in (policy, ALONE, bound)) for setting in settings]
    mine = [[p.accuracy - a.accuracy for p, a in zip(ours, alone, strict=True)] for ours, alone, _ in runs]
    most = [[b.accuracy - a.accuracy for b, a in zip(best, alone, strict=True)] for _, alone, best in runs]
    by_seed = [sum(m) / sum(b) for m, b in zip(zip(*mine, strict=True), zip(*most, strict=True), strict=True) if sum(b)]
    whole = sum(map(sum, most))
    return figure(by_seed, sum(map(sum, mine)) / whole if whole else 0.0)


def lead(found: Found, setting: Setting, policy: str) -> Figure:
    """By how many points a rival is ahead of the shipped scheduler, seed by seed."""
    pairs = zip(found[setting, policy], found[setting, OURS], strict=True)
    return figure([100 * (rival.accuracy - ours.accuracy) for rival, ours in pairs])


def narrower(found: Found, setting: Setting) -> float:
    """The share of the shipped scheduler's frames that are not at full width."""
    return mean(run.narrower for run in found[setting, OURS])


def report(settings: Sequence[Setting], old: Sequence[Setting], everybody: Sequence[str], found: Found) -> None:
    """The table, and what it says in sum."""
    shown = [p for p in everybody if p not in (ALONE, TRACE_CLAIRVOYANT, CLAIRVOYANT)]
    rivals = [p for p in shown if p != OURS]
    print("| setting | alone | trace | ceiling | narrower | best rival ahead, points | " + " | ".join(shown) + " |")
    print("|---" * (6 + len(shown)) + "|")
    worst = 0.0
    for setting in settings:
        alone, trace, ceiling = (
            100 * mean(run.accuracy for run in found[setting, who]) for who in (ALONE, TRACE_CLAIRVOYANT, CLAIRVOYANT)
        )
        leads = {p: lead(found, setting, p) for p in rivals}
        ahead = max(leads, key=lambda p: leads[p].value, default=None)
        said = "" if ahead is None else f"{leads[ahead].value:+.1f} ± {leads[ahead].error:.1f} {ahead}"
        worst = max([worst, *(one.certain for one in leads.values())])
        shares = [share(found, [setting], p) for p in shown]
        cells = [f"{one.value:.0%} ± {one.error:.0%}" for one in shares] if trace - alone > 0.5 else ["-"] * len(shares)
        row = (setting.name, f"{alone:.1f}", f"{trace:.1f}", f"{ceiling:.1f}", f"{narrower(found, setting):.0%}", said)
        print("| " + " | ".join((*row, *cells)) + " |")
    for title, among, bound in (
        ("fair share, all settings", settings, TRACE_CLAIRVOYANT),
        ("fair share, settings of before", old, TRACE_CLAIRVOYANT),
        ("share of the ceiling's gain", settings, CLAIRVOYANT),
    ):
        shares = [share(found, among, p, bound) for p in shown]
        print(f"| {title} | | | | | | " + " | ".join(f"{s.value:.1%} ± {s.error:.1%}" for s in shares) + " |")
    ours, before = share(found, settings, OURS), share(found, old, OURS)
    print(
        json.dumps(
            {
                "fair_share": round(ours.value, 4),
                "fair_share_se": _rounded(ours.error),
                "worst_rival_lead": round(worst, 2),
                "settings": len(settings),
                "narrower_settings": sum(narrower(found, s) >= NARROWER for s in settings if s not in old),
                "fair_share_old": round(before.value, 4),
                "fair_share_old_se": _rounded(before.error),
                "bytes_per_frame": round(mean(r.bytes_per_frame for s in settings for r in found[s, OURS]), 1),
            }
        )
    )


def _rounded(error: float) -> float | None:
    """For JSON, which knows no infinity: one seed has no error."""
    return round(error, 4) if math.isfinite(error) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=SETTINGS, default="tuning")
    parser.add_argument("--policies", help="comma-separated [all]")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("runs/policies"), help="where runs are kept [runs/policies]")
    args = parser.parse_args()
    names = tuple(args.policies.split(",")) if args.policies else policies.available(bundle.load("signs"))
    settings = SETTINGS[args.which]
    everybody = tuple(dict.fromkeys((OURS, ALONE, *names, TRACE_CLAIRVOYANT, CLAIRVOYANT)))
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    jobs = [(setting, policy, args.seconds, seed) for setting in settings for policy in everybody for seed in seeds]
    found: Found = {}
    for job, run in zip(jobs, all_played(jobs, Kept(args.kept), args.jobs), strict=True):
        found.setdefault(job[:2], []).append(run)
    report(settings, OLD[args.which], everybody, found)


if __name__ == "__main__":
    main()
