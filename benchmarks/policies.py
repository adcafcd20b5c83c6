"""Policies against the clairvoyant: how much of what could be gained over the device alone does each recover?

    python benchmarks/policies.py [tuning|held-out] [--policies A,B] [--seconds 60] [--jobs 2]

For each setting (a trace, narrowed to where the features matter; a bundle, a device, a deadline, frames a second) the
share is (right in time - local-only's) / (the clairvoyant's - local-only's). Constants of the shipped scheduler were
chosen on `tuning` alone. Traces that are not shipped are looked for under ISTHMUS_TRACES.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from isthmus.emulation import policies, traces
from isthmus.emulation.simulate import simulate
from isthmus.emulation.virtual import scenario
from isthmus.models import bundle
from isthmus.proto.record import summary

TRACES = Path(os.environ.get("ISTHMUS_TRACES", "traces"))


class Setting(NamedTuple):
    """One row of the table."""

    trace: str
    bundle: str
    profile: str
    deadline_ms: float
    fps: float
    scale: float = 1.0
    start_s: float = 0.0
    swap: bool = False

    @property
    def name(self) -> str:
        """How the table calls it."""
        scaled = f" x{self.scale:g}" if self.scale != 1 else ""
        return f"{self.trace}{scaled}, {self.bundle} on {self.profile}, {self.deadline_ms:g} ms, {self.fps:g}/s"


TUNING = (
    Setting("nb-iot", "signs", "pi-zero-2w", 1500, 2),
    Setting("nb-iot", "cifar10", "pi4", 1000, 4),
    Setting("ble", "signs", "pi-zero-2w", 250, 10),
    Setting("lte-drive", "signs", "pi4", 100, 15, scale=0.02),
    Setting("mm-att-lte-driving", "signs", "pi4", 150, 15),
    Setting("mm-att-lte-driving", "cifar10", "pi4", 150, 15, scale=0.05, start_s=120),
    Setting("mm-att-lte-driving", "signs", "pi4", 300, 30, scale=0.05, start_s=300),
    Setting("mm-tmobile-umts-driving", "signs", "pi3b-plus", 300, 15, scale=0.1, start_s=60),
    Setting("mm-tmobile-umts-driving", "cifar10", "pi4", 150, 10, scale=0.05, start_s=300),
    Setting("nu-mmw-drive-2", "signs", "pi5", 100, 30, scale=0.001, start_s=30),
    Setting("umn-ul-tmobile-sa-1", "signs", "pi4", 150, 15, scale=0.002, start_s=200),
    Setting("nu-lte-drive-1", "cifar10", "pi4", 100, 30, scale=0.001),
)
HELD_OUT = (
    Setting("satellite", "signs", "pi4", 150, 15, scale=0.02),
    Setting("umts", "cifar10", "pi3b-plus", 300, 15, scale=0.1),
    Setting("wifi-roam", "signs", "pi4", 100, 15, scale=0.005),
    Setting("lora", "signs", "pi-zero-2w", 8000, 0.2),
    Setting("mm-att-lte-driving-2016", "signs", "pi4", 150, 15, scale=0.02),
    Setting("mm-verizon-lte-short", "cifar10", "pi4", 100, 30, scale=0.01),
    Setting("mm-tmobile-lte-short", "signs", "pi4", 200, 15, scale=0.003),
    Setting("nu-mmw-drive-3", "signs", "pi5", 100, 30, scale=0.001, start_s=100),
    Setting("nu-lte-drive-2", "signs", "pi4", 100, 15, scale=0.001),
    Setting("umn-ul-tmobile-sa-2", "cifar10", "pi4", 150, 15, scale=0.001, start_s=100),
    Setting("kr-5g-ul-downtown-1", "signs", "pi4", 100, 30, scale=0.001),
    Setting("no-hsdpa-bus-1", "signs", "pi4", 150, 15, scale=0.05, swap=True),
    Setting("no-hsdpa-train-12", "cifar10", "pi4", 200, 15, scale=0.05, swap=True),
    Setting("gophers-drive-1-tmobile", "signs", "pi4", 100, 15, scale=0.002, swap=True),
    Setting("ny-cell-7-3", "cifar10", "pi4", 150, 10, scale=0.01, swap=True),
)
SETTINGS = {"tuning": TUNING, "held-out": HELD_OUT}


def opened(setting: Setting, policy: str, seconds: float) -> scenario.Scenario:
    trace = setting.trace if setting.trace in traces.shipped() else str(TRACES / f"{setting.trace}.csv")
    return scenario.of(
        {
            "trace": trace,
            "scale": setting.scale,
            "swap": setting.swap,
            "start_s": setting.start_s,
            "bundle": setting.bundle,
            "profile": setting.profile,
            "deadline_s": setting.deadline_ms / 1e3,
            "fps": setting.fps,
            "policy": policy,
            "duration_s": max(seconds, 300 / setting.fps),
        }
    )


def right(setting: Setting, policy: str, seconds: float) -> tuple[float, float, bool]:
    """Share right and in time, bytes a frame, and whether a bound is exact."""
    (run,) = simulate(opened(setting, policy, seconds))
    figures = summary(run.records)
    return figures.accuracy or 0.0, figures.bytes_per_frame or 0.0, any("exact" in note for note in run.header.notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=SETTINGS, default="tuning")
    parser.add_argument("--policies", help="comma-separated [all]")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    names = tuple(args.policies.split(",")) if args.policies else policies.available(bundle.load("signs"))
    settings = SETTINGS[args.which]
    everybody = ("local-only", *(n for n in names if n != "local-only"), policies.CLAIRVOYANT)
    asked = [(setting, policy, args.seconds) for setting in settings for policy in everybody]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        found = dict(zip(((s, p) for s, p, _ in asked), pool.map(right, *zip(*asked, strict=True)), strict=True))
    report(settings, everybody, found)


def report(
    settings: Sequence[Setting], everybody: Sequence[str], found: dict[tuple[Setting, str], tuple[float, float, bool]]
) -> None:
    rivals = [p for p in everybody if p not in ("local-only", policies.CLAIRVOYANT)]
    print("| setting | alone | clairvoyant | " + " | ".join(rivals) + " |")
    print("|---" * (3 + len(rivals)) + "|")
    shares: dict[str, list[float]] = {p: [] for p in rivals}
    for setting in settings:
        alone, (best, _, exact) = found[setting, "local-only"][0], found[setting, policies.CLAIRVOYANT]
        cells = []
        for p in rivals:
            share = (found[setting, p][0] - alone) / (best - alone) if best > alone else float("nan")
            shares[p].append(share)
            cells.append(f"{share:.0%}")
        print(f"| {setting.name} | {alone:.3f} | {best:.3f}{'' if exact else ' ≤'} | " + " | ".join(cells) + " |")
    print("| mean | | | " + " | ".join(f"{mean(shares[p]):.1%}" for p in rivals) + " |")
    print("| least | | | " + " | ".join(f"{min(shares[p]):.0%}" for p in rivals) + " |")


if __name__ == "__main__":
    main()
